"""What looks wrong, and for how long without a gap: nothing is removed on one look."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass
class Suspicions(Generic[S]):
    """What looks wrong, and since when without a gap. Something that changed, or was not there once, starts anew.

    Times are those of a clock that nobody can set: a day that a clock jumped over is no day of absence.
    """

    _since: dict[S, float] = field(default_factory=dict)

    def confirmed(self, seen: Iterable[S], now: float, grace_s: float) -> list[S]:
        self._since = {one: self._since.get(one, now) for one in seen}
        return [one for one, since in self._since.items() if now - since >= grace_s]

    def seen_for_s(self, one: S, now: float) -> float:
        """0 for what was not among the last that were seen."""
        return now - self._since.get(one, now)

    def since(self, one: S) -> float:
        return self._since[one]

    def forget(self) -> None:
        self._since.clear()
