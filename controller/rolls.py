"""Who takes part in each network, and how far each of its hosts is: kept with every change, not made for every answer.

A creation tells how far its network's hosts are; with a thousand hosts in it, finding that out took longer than the
creation. Says what hosts report and what is assigned to them; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from controller.views import Convergence
from kvnet.model import Alive, Endpoint, Observed, Versioned

if TYPE_CHECKING:
    from controller.state import State


class Roll:
    """Who takes part in one network. `living`: what each has applied; `away`: those that are down, in their order."""

    __slots__ = ("_slowest", "away", "living")

    def __init__(self, living: Mapping[str, int], away: tuple[str, ...]) -> None:
        self.living = dict(living)
        self.away = away
        self._slowest: int | None = None

    @property
    def slowest(self) -> int | None:
        """What every living host has applied; None if none lives."""
        if self._slowest is None:
            self._slowest = min(self.living.values(), default=None)
        return self._slowest

    def note(self, host: str, applied: int) -> None:
        """What a living host has applied now."""
        before = self.living[host]
        self.living[host] = applied
        if self._slowest is not None and (before == self._slowest or applied < self._slowest):
            self._slowest = None

    def behind(self, version: int) -> tuple[str, ...]:
        if self.slowest is None or self.slowest >= version:
            return ()
        return tuple(sorted(host for host, applied in self.living.items() if applied < version))

    def told(self, version: int) -> Convergence:
        waiting = self.behind(version)
        return Convergence(not waiting, waiting, self.away)


class Rolls:
    """By network; made when first asked for."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: dict[str, Roll] = {}
        state.endpoints.listen(self._on_endpoint)
        state.alive.listen(self._on_alive)
        state.observed.listen(self._on_observed)

    def of(self, network: str) -> Roll:
        """As it is now, and only now."""
        roll = self._kept.get(network)
        if roll is None:
            roll = self._kept[network] = roll_of(self._state, network)
        return roll

    def _on_endpoint(self, name: str, before: Versioned[Endpoint] | None, after: Versioned[Endpoint] | None) -> None:
        network = name.partition("/")[0]
        roll = self._kept.get(network)
        if roll is None:
            return
        host = "" if after is None else after.value.host
        has_moved = before is not None and before.value.host != host
        if has_moved or (host not in roll.living and host not in roll.away):
            del self._kept[network]

    def _on_alive(self, host: str, before: Versioned[Alive] | None, after: Versioned[Alive] | None) -> None:
        if (before is None) == (after is None):
            return
        seen = self._state.observed.get(host)
        for network in {*self._state.networks_on(host), *(seen.value.networks if seen is not None else ())}:
            self._kept.pop(network, None)

    def _on_observed(self, host: str, before: Versioned[Observed] | None, after: Versioned[Observed] | None) -> None:
        old = before.value.networks if before is not None else {}
        new = after.value.networks if after is not None else {}
        for network in old.keys() | new.keys():
            roll = self._kept.get(network)
            if roll is None:
                continue
            seen = new.get(network)
            if seen is not None and seen.version and host in roll.living:
                roll.note(host, seen.version)
            else:
                del self._kept[network]


def roll_of(state: State, network: str) -> Roll:
    reports = state.reports.of(network)
    hosts = {*state.hosts_of(network), *(host for host, seen in reports.items() if seen.version)}
    living = {
        host: reports[host].version if host in reports else 0 for host in hosts if state.alive.get(host) is not None
    }
    return Roll(living, tuple(sorted(hosts - living.keys())))
