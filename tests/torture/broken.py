"""Stores that break one promise of the contract now and then. They prove that the harness bites."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Self

from backends.store import Batch, Check, Entry, Put, Revision, Session, Snapshot, Store, Unchanged, Write


class Flaw(StrEnum):
    DROPS_A_CHECK = "drops a check"
    FORGETS_A_WRITE = "acknowledges a write that it does not keep"
    REUSES_VERSIONS = "tells two commits the same revision"
    LOSES_AN_EVENT = "leaves a change out of a watch"
    BLAMES_WITHOUT_REASON = "reports a conflict that is none"
    LISTS_HALF = "leaves a key out of a list"


class BrokenStore:
    """`rate`: how often it does what its flaw says."""

    def __init__(self, store: Store, flaw: Flaw, rng: random.Random, rate: float = 0.1) -> None:
        self._store = store
        self._flaw = flaw
        self._rng = rng
        self._rate = rate
        self._last: Revision = 0

    def _is_due(self, flaw: Flaw) -> bool:
        return self._flaw is flaw and self._rng.random() < self._rate

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def list(self, prefix: str) -> Snapshot:
        snapshot = await self._store.list(prefix)
        if snapshot.entries and self._is_due(Flaw.LISTS_HALF):
            return Snapshot(snapshot.entries[1:], snapshot.revision)
        return snapshot

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        checks, writes = list(checks), list(writes)
        if self._is_due(Flaw.DROPS_A_CHECK):
            checks = []
        if self._is_due(Flaw.FORGETS_A_WRITE):
            writes = [w for w in writes if not isinstance(w, Put)] or writes[1:]
        if checks and self._is_due(Flaw.BLAMES_WITHOUT_REASON):
            checks = [Unchanged(check.key, 1) for check in checks[:1]]
        revision = await self._store.commit(checks, writes)
        if self._last and self._is_due(Flaw.REUSES_VERSIONS):
            return self._last
        self._last = revision
        return revision

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        async for batch in self._store.watch(prefix, after):
            if batch.changes and self._is_due(Flaw.LOSES_AN_EVENT):
                yield Batch(batch.changes[1:], batch.revision)
            else:
                yield batch

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        return await self._store.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
