"""A thousand hosts on one machine: the worker's own code on kernels in memory, real controllers, a real store.

Measured on the embedded store with one controller, and on etcd with three. What is simulated is the kernel alone, and
that a thousand hosts share two cores: so latencies are upper bounds.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator

from bench.figures import Figure
from bench.scale.measure import Size, measured

SMALL = (Size("sqlite", 1, 10, 120, 1, 2, group=5, burst_hosts=5, burst=20),)
PUBLISHED = (
    Size("sqlite", 1, 1_000, 50_000, 4, 20),
    Size("etcd3.5", 3, 1_000, 50_000, 4, 20),
)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    for size in SMALL if quick else PUBLISHED:
        yield from as_they_come(measured(size))


def as_they_come(figures: AsyncIterator[Figure]) -> Iterator[Figure]:
    """What was measured before something fails, or takes too long, is told."""
    told: queue.SimpleQueue[Figure | BaseException | None] = queue.SimpleQueue()
    ending = threading.Event()

    async def follow() -> None:
        async for figure in figures:
            told.put(figure)

    async def run() -> None:
        following = asyncio.create_task(follow())
        while not following.done() and not ending.is_set():
            await asyncio.wait((following,), timeout=0.2)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        error = following.exception() if not following.cancelled() else None
        told.put(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        while (figure := told.get()) is not None:
            if isinstance(figure, BaseException):
                raise figure
            yield figure
    finally:
        ending.set()
        thread.join()
