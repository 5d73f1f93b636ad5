"""Which networks a host takes part in: those that it has an endpoint of, and the peers of these.

Answered from memory, in time that does not grow with the cluster; before it says no it asks the store itself, because a
worker may know of its new endpoint before this replica does. How often it asks for one host is bounded, so that a host
that is refused all day costs the store little. Tells who reads a network when its host has left. Never writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from backends.store import Revision, Store, Unavailable
from controller.security.limits import Buckets
from controller.state import State
from kvnet import codec, keys
from kvnet.errors import StoreBroken
from kvnet.model import Endpoint, Network, Versioned

LOOKS_PER_S = 20.0
LOOKS_AT_ONCE = 60.0
LATELY_S = 60.0
MAX_LEFT = 10_000


def takes_part(state: State, host: str, network: str) -> bool:
    """As far as this replica knows."""
    carried = state.networks_on(host)
    return network in carried or any(peer in carried for peer in peers_of(state, network))


def peers_of(state: State, network: str) -> Collection[str]:
    found = state.networks.get(network)
    return found.value.peers if found is not None else ()


class Participation:
    def __init__(self, state: State, store: Store, monotonic: Callable[[], float]) -> None:
        self._state = state
        self._store = store
        self._monotonic = monotonic
        self._looks = Buckets()
        self._watching: dict[str, set[asyncio.Event]] = {}
        self._left: OrderedDict[tuple[str, str], float] = OrderedDict()
        state.endpoints.listen(self._on_endpoint)
        state.networks.listen(self._on_network)

    def takes_part(self, host: str, network: str) -> bool:
        """As far as this replica knows."""
        return takes_part(self._state, host, network)

    async def confirmed(self, host: str, network: str) -> Revision | None:
        """Up to which revision it is certain that the host takes part; None: it does not.

        Raises:
            Unavailable: it is not known here, and has been asked too often.
            StoreError: it is not known here, and the store does not answer.
        """
        if self.takes_part(host, network):
            return self.revision
        if self._looks.take(host, LOOKS_PER_S, LOOKS_AT_ONCE, self._monotonic()):
            raise Unavailable(f"host {host} asks too often for what it has no part in")
        local = await self._store.list(keys.local_of(host))
        carried = {entry.value.decode("ascii", "replace") for entry in local.entries}
        if network in carried:
            return local.revision
        entry = await self._store.get(keys.network(network)) if carried else None
        try:
            peers = codec.decode(Network, entry.value).peers if entry is not None else ()
        except StoreBroken:
            peers = ()
        return None if carried.isdisjoint(peers) else local.revision

    def took_part_lately(self, host: str, network: str) -> bool:
        """As far as this replica saw: the host may have something of it in its kernel yet."""
        left_at = self._left.get((host, network))
        return left_at is not None and self._monotonic() - left_at <= LATELY_S

    @property
    def revision(self) -> Revision:
        """Whatever made a host leave, and is known here, is not newer than this."""
        return max(self._state.endpoints.mirror.revision, self._state.networks.mirror.revision)

    @contextmanager
    def watching(self, network: str) -> Iterator[asyncio.Event]:
        """Set whenever somebody may have left the network, or it has other peers; whoever waits clears it."""
        changed = asyncio.Event()
        self._watching.setdefault(network, set()).add(changed)
        try:
            yield changed
        finally:
            there = self._watching[network]
            there.discard(changed)
            if not there:
                del self._watching[network]

    def _on_endpoint(self, name: str, before: Versioned[Endpoint] | None, after: Versioned[Endpoint] | None) -> None:
        if before is None or after is not None:
            return
        network, host = name.partition("/")[0], before.value.host
        for one in (network, *peers_of(self._state, network)):
            self._note(host, one)
            self._tell(one)

    def _on_network(self, name: str, before: Versioned[Network] | None, after: Versioned[Network] | None) -> None:
        was, now = (set(one.value.peers) if one is not None else set() for one in (before, after))
        if before is not None and was != now:
            self._tell(name, *(was | now))

    def _note(self, host: str, network: str) -> None:
        self._left[host, network] = self._monotonic()
        self._left.move_to_end((host, network))
        if len(self._left) > MAX_LEFT:
            self._left.popitem(last=False)

    def _tell(self, *networks: str) -> None:
        for network in networks:
            for changed in self._watching.get(network, ()):
                changed.set()
