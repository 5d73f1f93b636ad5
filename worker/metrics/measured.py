"""Wrappers that time what passes through them and change nothing: the store, attach and detach, answers to names and to
controllers' questions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from backends.store import Batch, Check, Entry, Revision, Session, Snapshot, Store, Write
from kvnet.errors import KvnetError
from worker.metrics.figures import Figures

Clock = Callable[[], float]
Doing = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
Asked = Callable[[bytes, str, bool], Any]


class MeasuredStore:
    """A store that times what it is asked. Watches are not timed: they last."""

    def __init__(self, inner: Store, figures: Figures, clock: Clock = time.perf_counter) -> None:
        self._inner = inner
        self._figures = figures
        self._clock = clock

    async def get(self, key: str) -> Entry | None:
        with self._timed("get"):
            return await self._inner.get(key)

    async def list(self, prefix: str) -> Snapshot:
        with self._timed("list"):
            return await self._inner.list(prefix)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        with self._timed("commit"):
            return await self._inner.commit(checks, writes)

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        return self._inner.watch(prefix, after)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        with self._timed("session"):
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

    @contextmanager
    def _timed(self, op: str) -> Iterator[None]:
        began, error = self._clock(), ""
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._figures.stored(op, self._clock() - began, error)


@contextmanager
def timed(figures: Figures, doing: str, runtime: str, clock: Clock = time.perf_counter) -> Iterator[None]:
    """An attach or a detach. What failed is counted by its code and not timed: most of that is waiting."""
    began = clock()
    try:
        yield
    except KvnetError as error:
        figures.failed(doing, error.code)
        raise
    figures.did(doing, runtime, clock() - began)


def answering(figures: Figures, kinds: Mapping[str, Doing]) -> dict[str, Doing]:
    """What answers controllers' questions, counted."""

    def counted(kind: str, answer: Doing) -> Doing:
        async def answer_counted(parameters: Mapping[str, Any]) -> dict[str, Any]:
            is_failed = True
            try:
                found = await answer(parameters)
                is_failed = False
                return found
            finally:
                figures.answered_question(kind, is_failed=is_failed)

        return answer_counted

    return {kind: counted(kind, answer) for kind, answer in kinds.items()}


def naming(figures: Figures, asked: Asked, clock: Clock = time.perf_counter) -> Asked:
    """What answers questions for names, counted and timed."""

    def asked_counted(data: bytes, source: str, over_tcp: bool) -> Any:
        began = clock()
        figures.asked_name(over_tcp=over_tcp)
        answer = asked(data, source, over_tcp)
        if isinstance(answer, bytes):
            figures.answered_name(answer, "memory", clock() - began)
        elif answer is not None:
            return later(answer, began)
        return answer

    async def later(answer: Awaitable[bytes | None], began: float) -> bytes | None:
        found = await answer
        if found is not None:
            figures.answered_name(found, "others", clock() - began)
        return found

    return asked_counted
