"""Whether this machine's neighbour table overflows: a condition of every network, as hosts and workloads get lost.

The kernel only counts how often it had no room, so a count that grew since the last look is the sign, and the condition
stands until it has not grown for a while. The first look says nothing: what was counted before may be long over.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvnet.model import Condition
from worker.kernel.failures import NEIGHBOURS_FULL, neighbours_full

QUIET_S = 60.0


class Crowding:
    def __init__(self) -> None:
        self._seen: Mapping[str, int] | None = None
        self._grew_at: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def note(self, refused: Mapping[str, int], at: float, now: float) -> bool:
        """By family how often there was no room; `at` monotonic, `now` the wall clock. Whether it became another."""
        before = self.conditions
        if self._seen is not None:
            for family, count in refused.items():
                if count > self._seen.get(family, count):
                    self._grew_at[family] = at
                    self._since.setdefault(family, now)
        self._seen = refused
        for family in [family for family, grew_at in self._grew_at.items() if at - grew_at >= QUIET_S]:
            del self._grew_at[family], self._since[family]
        return self.conditions != before

    @property
    def conditions(self) -> list[Condition]:
        return [Condition(NEIGHBOURS_FULL, neighbours_full(f), since) for f, since in sorted(self._since.items())]
