"""How far each host of a network is: who takes part, what it has applied, and waiting until nobody is behind.

A host takes part if it carries endpoints of the network, or reports that it has something of it (as that of a peer, or
what is still to be taken away). Hosts that are down are never waited for: they fence themselves, and look at everything
when they return. Answers from memory, in time that grows with the hosts of the one network; never asks a host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from controller.rolls import Roll
from controller.settings import Clock
from controller.state import State
from controller.views import Convergence, HostConvergence, NetworkConvergence
from kvnet.model import Endpoint, Network, Versioned


class Convergences:
    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def of(self, network: Versioned[Network]) -> NetworkConvergence:
        """Every host of the network, those that are down too, in the order of their names."""
        id_ = network.value.id
        wanted = self._state.latest_change(id_)
        roll = self._state.rolls.of(id_)
        hosts = tuple(self._host(id_, host, wanted, roll) for host in sorted((*roll.living, *roll.away)))
        return NetworkConvergence(id_, wanted, not roll.behind(wanted), hosts)

    def _host(self, network: str, host: str, wanted: int, roll: Roll) -> HostConvergence:
        seen = self._state.reports.of(network).get(host)
        applied = seen.version if seen is not None else 0
        since = self._state.behind_since(network, host)
        lag_s = max(0.0, self._clock.now() - since) if applied < wanted and since is not None else None
        return HostConvergence(
            host=host,
            alive=host in roll.living,
            wanted=wanted,
            applied=applied,
            lag_revisions=max(0, wanted - applied),
            lag_seconds=lag_s if applied < wanted else 0.0,
            conditions=seen.conditions if seen is not None else (),
        )

    def lag_s(self, network: str, host: str) -> float | None:
        """How long a change of the network has waited for the host; None if none waits, or nobody knows how long."""
        since = self._state.behind_since(network, host)
        return None if since is None else max(0.0, self._clock.now() - since)

    def of_endpoint(self, endpoint: Versioned[Endpoint]) -> Convergence:
        return self._state.rolls.of(endpoint.value.network).told(endpoint.version)

    async def until(self, wanted: Mapping[str, int], timeout_s: float) -> Convergence:
        """Wait until every living host has applied, of each network, the revision given; who has not when time is up.

        A host that has nothing of a network any more is not behind in it, so this also waits for what was deleted.
        """
        await self._state.progress.until(lambda: not self._waiting(wanted), timeout_s)
        return self.told(wanted)

    def told(self, wanted: Mapping[str, int]) -> Convergence:
        """As `until`, as it is now."""
        waiting = self._waiting(wanted)
        away = {host for network in wanted for host in self._state.rolls.of(network).away}
        return Convergence(not waiting, tuple(sorted(waiting)), tuple(sorted(away)))

    async def until_converged(self, find: Callable[[], Versioned[Network]], timeout_s: float) -> NetworkConvergence:
        """Wait until the network is applied everywhere, whatever becomes of it meanwhile.

        Raises:
            NotFound: `find` does not find it (any more).
        """
        await self._state.progress.until(lambda: self.of(find()).converged, timeout_s)
        return self.of(find())

    def _waiting(self, wanted: Mapping[str, int]) -> Collection[str]:
        return {host for network, version in wanted.items() for host in self._state.rolls.of(network).behind(version)}
