"""The store as those who stream through this controller see it: it ends when the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from backends.passing import PassingStore
from backends.store import Batch, Revision, Store, Unavailable


class EndingStore(PassingStore):
    """A store whose watches end when the server stops: whoever streams one would hold the process up."""

    def __init__(self, inner: Store, stopping: asyncio.Event) -> None:
        super().__init__(inner)
        self._stopping = stopping

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        """
        Raises:
            Unavailable: the server stops; watch again elsewhere, or here when it is back.
        """
        batches = self._inner.watch(prefix, after)
        stop = asyncio.create_task(self._stopping.wait())
        upcoming: asyncio.Task[Batch] | None = None
        try:
            while not self._stopping.is_set():
                upcoming = upcoming or asyncio.create_task(_next(batches))
                await asyncio.wait((upcoming, stop), return_when=asyncio.FIRST_COMPLETED)
                if upcoming.done():
                    batch, upcoming = upcoming.result(), None
                    yield batch
            raise Unavailable("the controller stops")
        finally:
            stop.cancel()
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)
            aclose = getattr(batches, "aclose", None)
            if aclose is not None:
                await aclose()


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    return await anext(batches)
