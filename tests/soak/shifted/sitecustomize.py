"""Shifts the wall clock of a Python process by what a file says, as `date -s` on its host would; nothing else of it.

Found by Python through PYTHONPATH, which only the soak's launcher sets: the product has no part in it. The file
holds one double, mapped into memory, so that a jump is seen by the very next reading. What measures durations (the
monotonic clock, and with it every timeout of asyncio) is left alone, because the kernel leaves it alone when
somebody sets the clock.
"""

import mmap
import os
import struct
import time

SIZE = 8
_SECOND_NS = 1_000_000_000


def _shift(path: str) -> None:
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        seconds: float = struct.unpack_from("<d", shared)[0]
        return seconds

    def shifted() -> float:
        return real() + offset()

    def shifted_ns() -> int:
        return real_ns() + int(offset() * _SECOND_NS)

    time.time, time.time_ns = shifted, shifted_ns


if _path := os.environ.get("KVNET_SOAK_CLOCK"):
    _shift(_path)
