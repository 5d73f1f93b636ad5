"""`network.status` and `host.status`: how things are, told to who listens whenever that changes.

At most once a second of each thing, and always its last state. Works only while somebody listens; a listener knows how
things were from the list it began with. Not in the journal, because it is no change that anybody asked for. Reads
memory, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace

from controller.hosts import Hosts
from controller.merging import Merging
from controller.networks import Networks
from controller.settings import Clock
from controller.state import State
from controller.status import CONVERGED, Look, Statuses
from controller.views import HostSeen, NetworkSeen, Status
from kvnet import keys
from kvnet.errors import NotFound
from kvnet.model import Alive, Endpoint, Host, HostState, Network, NetworkObserved, Observed, Versioned

SETTLE_S = 0.1
REST_S = 1.0
TICK_S = 1.0  # what no change tells of: that the store is not heard any more

NETWORK, HOST = "network", "host"


class StatusEvents:
    def __init__(self, state: State, statuses: Statuses, networks: Networks, hosts: Hosts, clock: Clock) -> None:
        self._state = state
        self._statuses = statuses
        self._networks = networks
        self._hosts = hosts
        self._clock = clock
        self._merging = Merging(SETTLE_S, REST_S)
        self._doubt: object = None
        self._woken = asyncio.Event()
        state.networks.listen(self._on_network)
        state.endpoints.listen(self._on_endpoint)
        state.hosts.listen(self._on_host)
        state.alive.listen(self._on_alive)
        state.observed.listen(self._on_observed)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._state.events.audience:
                self._tell_due()
            else:
                self._merging.forget_all()
            due = self._merging.next_due
            wait_s = TICK_S if due is None else min(TICK_S, max(0.0, due - self._clock.monotonic()))
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    def _note(self, kind: str, names: Iterable[str]) -> None:
        if not self._state.events.audience:
            return
        is_first = self._merging.next_due is None
        now = self._clock.monotonic()
        for name in names:
            self._merging.note((kind, name), now)
        if is_first:
            self._woken.set()

    def _on_network(self, name: str, _before: Versioned[Network] | None, after: Versioned[Network] | None) -> None:
        if after is None:
            self._merging.forget((NETWORK, name))
        else:
            self._note(NETWORK, (name,))

    def _on_endpoint(self, name: str, before: Versioned[Endpoint] | None, after: Versioned[Endpoint] | None) -> None:
        if not self._state.events.audience:
            return
        self._note(NETWORK, (name.partition("/")[0],))
        self._note(HOST, {one.value.host for one in (before, after) if one is not None})

    def _on_host(self, name: str, _before: Versioned[Host] | None, after: Versioned[Host] | None) -> None:
        if after is None:
            self._merging.forget((HOST, name))
        else:
            self._note(HOST, (name,))

    def _on_alive(self, name: str, _before: Versioned[Alive] | None, _after: Versioned[Alive] | None) -> None:
        observed = self._state.observed.get(name)
        told = observed.value.networks if observed is not None else {}
        self._note(HOST, (name,))
        self._note(NETWORK, {*self._state.networks_on(name), *told})

    def _on_observed(self, name: str, before: Versioned[Observed] | None, after: Versioned[Observed] | None) -> None:
        old: dict[str, NetworkObserved] = dict(before.value.networks) if before is not None else {}
        new: dict[str, NetworkObserved] = dict(after.value.networks) if after is not None else {}
        self._note(HOST, (name,))
        self._note(NETWORK, [id_ for id_ in old.keys() | new.keys() if old.get(id_) != new.get(id_)])

    def _tell_due(self) -> None:
        look = self._statuses.look()
        if look.doubt != self._doubt:
            self._doubt = look.doubt
            self._note(NETWORK, self._state.networks.items)
            self._note(HOST, self._state.hosts.items)
        for kind, name in self._merging.due(self._clock.monotonic()):
            with contextlib.suppress(NotFound):
                if kind == NETWORK:
                    self._tell_network(look, name)
                else:
                    self._tell_host(look, name)

    def _tell_network(self, look: Look, name: str) -> None:
        found = self._state.networks.get(name)
        if found is None:
            return
        self._note(HOST, look.roll(name).living)  # how far they are behind
        seen = NetworkSeen(found.value, self._networks.use(found.value), look.applied_of(name), look.network(found))
        self._tell((NETWORK, name), keys.network(name), name, seen)

    def _tell_host(self, look: Look, name: str) -> None:
        found = self._hosts.get(name)
        marked = found.host.state
        seen = HostSeen(
            name=name,
            alive=found.alive,
            state=marked.value if marked is not HostState.ACTIVE else ("alive" if found.alive else "down"),
            down_since=found.down_since,
            incarnation=found.incarnation,
            endpoints=found.endpoints,
            networks=found.networks,
            lag_revisions=max(found.lag.values(), default=0),
            status=look.host(found),
        )
        self._tell((HOST, name), keys.host(name), "", seen)

    def _tell(self, thing: tuple[str, str], key: str, network: str, seen: NetworkSeen | HostSeen) -> None:
        content = replace(seen, status=_timeless(seen.status))
        if self._merging.is_news(thing, content, self._clock.monotonic()):
            self._state.events.tell_status(f"{thing[0]}.status", key, network, seen, self._clock.now())


def _timeless(status: Status) -> Status:
    """That everything is applied still, or again, since a later moment is no news."""
    return tuple(replace(one, since=None) if one.kind == CONVERGED else one for one in status)
