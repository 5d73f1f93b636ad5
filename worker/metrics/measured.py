"""Wrappers that time what passes through them and change nothing: attach and detach, answers to names and to
controllers' questions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kvnet.errors import KvnetError
from worker.metrics.figures import Figures

Clock = Callable[[], float]
Doing = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
Asked = Callable[[bytes, str, bool], Any]


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
