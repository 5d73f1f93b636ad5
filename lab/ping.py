"""ICMP echo from inside a network namespace, so that the lab needs no `ping` on the machine.

One packet at a time and no retry unless asked: "it answered the first packet" must mean just that.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvnet.model import Address

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
IPV4_HEADER_WORDS = 0x0F

OpenSocket = Callable[[int, int, int], socket.socket]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an echo came back, and after how long."""

    ok: bool
    rtt_ms: float | None
    reason: str = ""


async def ping(open_socket: OpenSocket, address: Address, *, timeout_s: float = 1.0, payload: int = 56) -> Answer:
    """Send one echo request and wait for its reply.

    `open_socket(family, type, protocol)` opens a socket in the namespace to ping from.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if address.version == 4 else socket.IPPROTO_ICMPV6
    identifier = secrets.randbelow(1 << 16)
    with open_socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_sendto(raw, _request(address.version, identifier, payload), (str(address), 0))
                while True:
                    packet, sender = await loop.sock_recvfrom(raw, 65535)
                    if sender[0].split("%")[0] == str(address) and _is_reply(address.version, identifier, packet):
                        return Answer(True, round((time.perf_counter() - started) * 1e3, 3))
        except TimeoutError:
            return Answer(False, None, f"no answer within {timeout_s} s")
        except OSError as error:
            return Answer(False, None, error.strerror or str(error))


def _request(version: int, identifier: int, payload: int) -> bytes:
    body = struct.pack(">HH", identifier, 1) + bytes(payload)
    checksum = 0
    if version == 4:  # the kernel fills in ICMPv6 checksums itself (RFC 3542 section 3.1)
        checksum = _checksum(struct.pack(">BBH", ECHO_REQUEST[4], 0, 0) + body)
    return struct.pack(">BBH", ECHO_REQUEST[version], 0, checksum) + body


def _is_reply(version: int, identifier: int, packet: bytes) -> bool:
    icmp = packet[(packet[0] & IPV4_HEADER_WORDS) * 4 :] if version == 4 else packet
    return len(icmp) >= 8 and icmp[0] == ECHO_REPLY[version] and struct.unpack_from(">H", icmp, 4)[0] == identifier


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
