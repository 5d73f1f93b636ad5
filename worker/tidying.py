"""Makes a worker small and quick at its start, and keeps it small: what nobody needs any more is given back.

What a worker keeps lives long, so Python's collector of garbage looks at it rarely, for short pauses: after so many new
objects that a quiet worker would take weeks. But tables of networks that went, and sockets of connections that broke,
are rings that nobody else opens. And what was freed, the allocator keeps for later. So once in a while all is looked
through, which takes 5 ms with a thousand endpoints. Decides nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable

from worker.ports import Time

GC_THRESHOLDS = (20_000, 20, 100)
SWITCH_INTERVAL_S = 0.001
# Of every TLS connection's buffer, which asyncio makes 256 KB large; a record has 16 KB at most.
TLS_BUFFER_BYTES = 32 * 1024
EVERY_S = 120.0


def tune() -> None:
    """Of the process: when everything is loaded, and before anything runs.

    The kernel thread, which waits in system calls, gets the interpreter back after one switch interval.
    """
    SSLProtocol.max_size = TLS_BUFFER_BYTES
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def tidy() -> None:
    gc.collect()
    _trim()


def _trim() -> None:
    """The C library's own call for it; others than glibc have none, and need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Tidying:
    """Until cancelled."""

    def __init__(self, time: Time, tidy: Callable[[], None] = tidy) -> None:
        self._time = time
        self._tidy = tidy

    async def run(self) -> None:
        while True:
            await self._time.sleep(self._time.jittered(EVERY_S))
            self._tidy()
