"""Stores around a store: everything is passed on, and what a subclass overrides is seen or changed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from backends.store import Batch, Check, Entry, Revision, Session, Snapshot, Store, Unavailable, Write


class PassingStore:
    """Adds nothing, hides nothing."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    async def get(self, key: str) -> Entry | None:
        return await self._inner.get(key)

    async def list(self, prefix: str) -> Snapshot:
        return await self._inner.list(prefix)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        return await self._inner.commit(checks, writes)

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        return self._inner.watch(prefix, after)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        return await self._inner.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)


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
