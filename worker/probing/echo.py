"""Echo requests through one raw socket, many at once, and the times of what comes back.

The socket may live in another namespace. Sends at most as many packets as its caller asks for, and never by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from kvnet.model import Address
from worker.kernel.rawsockets import open_raw
from worker.probing import frames

SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3
MAX_SEQUENCE = 0xFFFF
LONGEST = 65535


def open_echo_socket(version: int) -> socket.socket:
    """In the calling thread's namespace: hears echo replies only, and sends nothing in fragments.

    What it sends is not bound by what routers said before: it shall find that out.
    """
    is_v4 = version == 4
    family, protocol = (socket.AF_INET, frames.ICMP) if is_v4 else (socket.AF_INET6, frames.ICMPV6)
    made = open_raw(family, socket.SOCK_RAW, protocol)
    if is_v4:
        made.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << frames.ECHO_REPLY[4])))
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
    else:
        passed = bytearray(b"\xff" * 32)
        word, bit = divmod(frames.ECHO_REPLY[6], 32)
        struct.pack_into("=I", passed, 4 * word, 0xFFFFFFFF & ~(1 << bit))
        made.setsockopt(frames.ICMPV6, ICMP6_FILTER, bytes(passed))
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PROBE)
    return made


class Echo:
    """`rtt_ms` by sequence, of what was answered by who was asked."""

    def __init__(self, opened: socket.socket, version: int, identifier: int) -> None:
        self._socket = opened
        self._version = version
        self._identifier = identifier
        self._sent: dict[int, tuple[str, float]] = {}
        self._next = 1
        self._changed = asyncio.Event()
        self.rtt_ms: dict[int, float] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[Echo]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._read)
        try:
            yield self
        finally:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def send(self, target: Address, payload: bytes) -> int:
        """The request's sequence number.

        Raises:
            OSError: it cannot be sent: no route, larger than the link takes, a firewall of the sender's own.
        """
        sequence, self._next = self._next, self._next + 1
        packet = frames.echo_request(self._version, self._identifier, sequence & MAX_SEQUENCE, payload)
        self._sent[sequence & MAX_SEQUENCE] = (str(target), time.perf_counter())
        try:
            self._socket.sendto(packet, (str(target), 0))
        except OSError:
            del self._sent[sequence & MAX_SEQUENCE]
            raise
        return sequence

    async def until_answered(self, timeout_s: float) -> None:
        """All that was sent, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(self.rtt_ms) < len(self._sent):
                    self._changed.clear()
                    await self._changed.wait()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                packet, sender = self._socket.recvfrom(LONGEST)
                found = frames.read_echo_reply(self._version, packet)
                if found is None or found[0] != self._identifier or found[1] in self.rtt_ms:
                    continue
                target, at = self._sent.get(found[1], ("", 0.0))
                if target == sender[0].partition("%")[0]:
                    self.rtt_ms[found[1]] = round((time.perf_counter() - at) * 1000, 3)
                    self._changed.set()
