"""Addresses that were released, in the order in which they may be used again. The time is an argument."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple


class Rest(NamedTuple):
    """Since when an address is idle, and when its cool-down ends (Unix seconds)."""

    since: float
    until: float


class IdleQueue:
    """Longest idle first, among those whose cool-down has ended.

    Two heaps with lazy deletion: `_resting` is the truth, an entry that disagrees with it is skipped.
    """

    def __init__(self) -> None:
        self._resting: dict[int, Rest] = {}
        self._cooling: list[tuple[float, float, int]] = []  # until, since, address
        self._ready: list[tuple[float, int, float]] = []  # since, address, until

    def __len__(self) -> int:
        return len(self._resting)

    def __contains__(self, address: int) -> bool:
        return address in self._resting

    def get(self, address: int) -> Rest | None:
        return self._resting.get(address)

    def add(self, address: int, rest: Rest) -> None:
        if self._resting.get(address) != rest:
            self._resting[address] = rest
            heappush(self._cooling, (rest.until, rest.since, address))

    def remove(self, address: int) -> Rest | None:
        return self._resting.pop(address, None)

    def pop(self, now: float, skip: int = 0) -> tuple[int, Rest] | None:
        """Take out the longest idle one; with `skip`, pass over up to that many, which stay."""
        self._warm_up(now)
        passed: list[tuple[float, int, float]] = []
        chosen: tuple[float, int, float] | None = None
        while self._ready and len(passed) < skip + 1:
            entry = heappop(self._ready)
            if self._resting.get(entry[1]) == (entry[0], entry[2]):
                chosen = entry
                passed.append(entry)
        for entry in passed[:-1]:
            heappush(self._ready, entry)
        if chosen is None:
            return None
        return chosen[1], self._resting.pop(chosen[1])

    def first_ready_at(self) -> float | None:
        """When the first cool-down ends (or ended)."""
        return min((rest.until for rest in self._resting.values()), default=None)

    def _warm_up(self, now: float) -> None:
        while self._cooling and self._cooling[0][0] <= now:
            until, since, address = heappop(self._cooling)
            if self._resting.get(address) == (since, until):
                heappush(self._ready, (since, address, until))
