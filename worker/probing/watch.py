"""Listens on all devices of this host for the probes of one test, for a bounded time, and counts them.

A packet socket with a filter in the kernel: only marked packets come up here, before any firewall's input hook and
after the tunnel. It never sends, and nothing on the host changes; with the socket it is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from typing import Self

from worker.kernel.netlink import widen
from worker.kernel.rawsockets import open_raw
from worker.probing.sight import LONGEST, program, read
from worker.probing.tally import Tally

ETH_P_ALL = 3
SO_ATTACH_FILTER = 26
SOL_PACKET, PACKET_STATISTICS = 263, 6
RECEIVE_BUFFER = 8 << 20
AT_A_TIME = 512


class Watch:
    """Open until `close`; `missed` packets came faster than they could be counted."""

    def __init__(self, tap: socket.socket, tally: Tally) -> None:
        self._tap = tap
        self.tally = tally
        self.missed = 0
        asyncio.get_running_loop().add_reader(tap.fileno(), self._read)

    @classmethod
    async def open(cls, tally: Tally) -> Self:
        """Raises: OSError: packet sockets are not allowed here."""
        return cls(await asyncio.to_thread(_tap), tally)

    async def close(self) -> None:
        """Closing takes the kernel some milliseconds, so it is not done on the event loop."""
        self._read()
        dropped = struct.unpack("=II", self._tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        self.missed += dropped
        asyncio.get_running_loop().remove_reader(self._tap.fileno())
        await asyncio.to_thread(self._tap.close)

    def _read(self) -> None:
        for _ in range(AT_A_TIME):
            try:
                packet, (device, protocol, packet_type, *_) = self._tap.recvfrom(LONGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # a device went down
                continue
            found = read(protocol, packet)
            if found is not None:
                self.tally.add(found, device, packet_type)


def _tap() -> socket.socket:
    """What comes before the filter is there is read like the rest, and is nobody's."""
    lines = b"".join(struct.pack("=HBBI", *line) for line in program())
    buffer = ctypes.create_string_buffer(lines)
    count, address = len(lines) // 8, ctypes.addressof(buffer)
    made = open_raw(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", count, address))
        widen(made, RECEIVE_BUFFER)
    except OSError:
        made.close()
        raise
    return made
