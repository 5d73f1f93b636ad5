"""The revisions at which one thing changed, so that it can be told since when somebody is behind.

Bounded: when it grows too long every second of the old ones is forgotten, which makes the answer late by less the
newer the question; the newest is always kept. Pure.
"""

from __future__ import annotations

from bisect import bisect_right

MOST = 64


class Steps:
    __slots__ = ("_revisions",)

    def __init__(self) -> None:
        self._revisions: list[int] = []

    @property
    def last(self) -> int:
        return self._revisions[-1] if self._revisions else 0

    def note(self, revision: int) -> None:
        """Older than the last one: nothing new."""
        if revision <= self.last:
            return
        self._revisions.append(revision)
        if len(self._revisions) > MOST:
            half = MOST // 2
            self._revisions[:half] = self._revisions[:half:2]

    def after(self, revision: int) -> int | None:
        """The first known one that is newer."""
        place = bisect_right(self._revisions, revision)
        return self._revisions[place] if place < len(self._revisions) else None

    def went_back(self, revision: int) -> None:
        """The store did: what is numbered above will never be seen again."""
        if self.last > revision:
            self._revisions = [*(one for one in self._revisions if one < revision), revision]
