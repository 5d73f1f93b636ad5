"""A store whose network fails on demand; wraps a real one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from backends.store import (
    Batch,
    Check,
    Entry,
    Revision,
    Session,
    Snapshot,
    Store,
    Unavailable,
    Unknown,
    Write,
)


class FaultyStore:
    """`applied` has every transaction that took place, in the order in which it did, whatever the caller was told."""

    def __init__(self, store: Store, rng: random.Random, *, failing: float = 0.0) -> None:
        self.store = store
        self.failing = failing
        self.applied: list[tuple[Revision, tuple[Check, ...], tuple[Write, ...]]] = []
        self.is_away = False
        self._rng = rng
        self._went_away = asyncio.Event()

    def go_away(self) -> None:
        """Calls fail and open watches end, until `come_back`."""
        self.is_away = True
        self._went_away.set()

    def come_back(self) -> None:
        self.is_away = False
        self._went_away = asyncio.Event()

    async def get(self, key: str) -> Entry | None:
        self._require_luck()
        return await self.store.get(key)

    async def list(self, prefix: str) -> Snapshot:
        self._require_luck()
        return await self.store.list(prefix)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        await asyncio.sleep(self._rng.random() * 0.002)
        self._require_luck()
        if self._rng.random() < self.failing / 2:
            raise Unknown("injected: the request was lost")
        revision = await self.store.commit(checks, writes)
        self.applied.append((revision, tuple(checks), tuple(writes)))
        await asyncio.sleep(self._rng.random() * 0.002)
        if self._rng.random() < self.failing / 2:
            raise Unknown("injected: the answer was lost")
        return revision

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        self._require_luck()
        batches = self.store.watch(prefix, after)
        away = asyncio.ensure_future(self._went_away.wait())
        coming: asyncio.Future[Batch] = asyncio.ensure_future(anext(batches))
        try:
            while True:
                await asyncio.wait([coming, away], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    raise Unavailable("injected: the connection is gone")
                yield coming.result()
                self._require_luck()
                coming = asyncio.ensure_future(anext(batches))
        finally:
            away.cancel()
            coming.cancel()
            await asyncio.gather(away, coming, return_exceptions=True)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        self._require_luck()
        return await self.store.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _require_luck(self) -> None:
        if self.is_away or self._rng.random() < self.failing:
            raise Unavailable("injected: nobody there")
