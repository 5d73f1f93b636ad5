"""Stores around a store: everything is passed on, and what a subclass overrides is seen or changed on the way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from backends.store import Batch, Check, Entry, Revision, Room, Session, Snapshot, Store, Write, room_of


class PassingStore:
    """Adds nothing, hides nothing."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def room(self) -> Room:
        return room_of(self._inner)

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


class TimedStore(PassingStore):
    """Tells of each request what it was, how long it took, and which error it met ("" for none).

    Watches are not timed: they last.
    """

    def __init__(
        self, inner: Store, told: Callable[[str, float, str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(inner)
        self._told = told
        self._clock = clock

    async def get(self, key: str) -> Entry | None:
        with _Timed("get", self._told, self._clock):
            return await super().get(key)

    async def list(self, prefix: str) -> Snapshot:
        with _Timed("list", self._told, self._clock):
            return await super().list(prefix)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        with _Timed("commit", self._told, self._clock):
            return await super().commit(checks, writes)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        with _Timed("session", self._told, self._clock):
            return await super().session(ttl_s, resume=resume)


class _Timed:
    """A class, for a generator costs more than many a request of a store in memory."""

    __slots__ = ("_began", "_clock", "_op", "_told")

    def __init__(self, op: str, told: Callable[[str, float, str], None], clock: Callable[[], float]) -> None:
        self._op = op
        self._told = told
        self._clock = clock
        self._began = clock()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._told(self._op, self._clock() - self._began, kind.__name__ if kind is not None else "")
