"""A table's values in the order in which they are listed: sorted when somebody asks, then kept so with every change.

A page of a list costs what it shows, not what there is. While nobody asks it costs a creation next to nothing: what
came is only noted, and of too much to note the whole order is given up until the next question. Decides nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from controller.tables import Table
from kvnet.model import Versioned

T = TypeVar("T")
Key = tuple[str, ...]

FEW = 64
# Putting one in moves what comes after it; of more than this part of all, sorting anew is faster.
PART = 64


class Ordered(Generic[T]):
    """`key` tells any two apart."""

    def __init__(self, table: Table[T], key: Callable[[Versioned[T]], Key]) -> None:
        self._table = table
        self._key = key
        self._sorted: list[Versioned[T]] | None = None
        self._changes: list[tuple[Versioned[T] | None, Versioned[T] | None]] = []
        table.listen(self._on_change)

    def all(self) -> Sequence[Versioned[T]]:
        """Not to be kept: it goes on changing."""
        if self._sorted is None:
            self._sorted = sorted(self._table.items.values(), key=self._key)
        for before, after in self._changes:
            if before is not None:
                del self._sorted[self._place(self._sorted, self._key(before))]
            if after is not None:
                insort(self._sorted, after, key=self._key)
        self._changes.clear()
        return self._sorted

    def under(self, first: str) -> Sequence[Versioned[T]]:
        """Those whose key begins with this part."""
        known = self.all()
        return known[self._place(known, (first,)) : self._place(known, (first + "\0",))]

    def _place(self, known: Sequence[Versioned[T]], key: Key) -> int:
        return bisect_left(known, key, key=self._key)

    def _on_change(self, _name: str, before: Versioned[T] | None, after: Versioned[T] | None) -> None:
        if self._sorted is None:
            return
        self._changes.append((before, after))
        if len(self._changes) > FEW + len(self._sorted) // PART:
            self._sorted = None
            self._changes.clear()
