"""When each of many things is looked at after it changed, so that it is told soon, seldom, and never not at all.

A thing that changed is looked at a moment later, so that what belongs together is seen together, and told if it differs
from what was told of it last; then it rests. What changed while it rested is looked at when the rest is over: the last
state is always told. Pure: the clock is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Any


class Merging:
    """`settle_s`: from the first change to the look. `rest_s`: at least so long between two tellings of one thing."""

    def __init__(self, settle_s: float, rest_s: float) -> None:
        self._settle_s = settle_s
        self._rest_s = rest_s
        self._due: dict[Hashable, float] = {}
        self._queue: list[tuple[float, int, Hashable]] = []
        self._count = 0
        self._told: dict[Hashable, tuple[float, Any]] = {}

    def note(self, thing: Hashable, now: float) -> None:
        """It may have changed."""
        if thing in self._due:
            return
        told = self._told.get(thing)
        due = now + self._settle_s
        if told is not None:
            due = max(due, told[0] + self._rest_s)
        self._due[thing] = due
        self._count += 1
        heapq.heappush(self._queue, (due, self._count, thing))

    @property
    def next_due(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def due(self, now: float) -> list[Any]:
        """What is to be looked at now, each once."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            _, _, thing = heapq.heappop(self._queue)
            del self._due[thing]
            found.append(thing)
        return found

    def is_news(self, thing: Hashable, content: Any, now: float) -> bool:
        """Whether this differs from what was told last; then it counts as told."""
        told = self._told.get(thing)
        if told is not None and told[1] == content:
            return False
        self._told[thing] = now, content
        return True

    def forget(self, thing: Hashable) -> None:
        """It is gone: nothing more is told of it."""
        self._told.pop(thing, None)

    def forget_all(self) -> None:
        self._told.clear()
        self._due.clear()
        self._queue.clear()
