"""The use cases of networks: create, find, delete, prune.

Creation is `network_creation`'s. Deletion is in two steps: marked first, so that no endpoint can come in any more, and
removed when the store shows that none is left. Never removes what somebody still uses.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.store import Revision
from controller.network_creation import NetworkCreation
from controller.network_rules import no_network, stored_network
from controller.outcomes import store_errors_told
from controller.removal import Removal
from controller.requests import Caller, NetworkRequest
from controller.security.host_calls import require_own_network
from controller.state import State
from controller.views import NetworkUse, SubnetUse
from controller.writer import Writer
from kvnet import keys
from kvnet.errors import NetworkInUse, NotFound
from kvnet.model import Network, NetworkState, Versioned
from kvnet.rules import NAME


class Networks:
    def __init__(self, state: State, writer: Writer, creation: NetworkCreation, removal: Removal) -> None:
        self._state = state
        self._writer = writer
        self._creation = creation
        self._removal = removal

    def get(self, name_or_id: str) -> Versioned[Network]:
        """Raises: NotFound."""
        found = self._state.network_named(name_or_id)
        if found is None:
            raise no_network(name_or_id, [network.value.name for network in self._state.networks.items.values()])
        return found

    async def fresh(self, name_or_id: str) -> Versioned[Network]:
        """As `get`, but looks into the store before it says that there is none: another replica may be ahead.

        Raises:
            NotFound, StoreError
        """
        found = self._state.network_named(name_or_id)
        if found is None:
            named = await self._writer.store.get(keys.name(name_or_id)) if NAME.match(name_or_id) else None
            network_id = named.value.decode() if named else name_or_id
            found = await self.find(network_id) if NAME.match(network_id) else None
        if found is None or not self._state.shows(found.value):
            raise no_network(name_or_id, [network.value.name for network in self._state.networks.items.values()])
        return found

    async def create(self, request: NetworkRequest, caller: Caller) -> Versioned[Network]:
        """As `NetworkCreation.create`."""
        return await self._creation.create(request, caller)

    async def find(self, network_id: str) -> Versioned[Network] | None:
        """What the store has now."""
        return await stored_network(self._writer.store, network_id)

    def use(self, network: Network) -> NetworkUse:
        """How full a network is, and where it is, as far as is known here: of a new one perhaps nothing yet."""
        subnets = tuple(
            SubnetUse(window.subnet.cidr, window.endpoints, window.subnet.size)
            for window in self._state.space(network).windows
        )
        return NetworkUse(
            endpoints=len(self._state.endpoints_of(network.id)),
            hosts=tuple(sorted(self._state.hosts_of(network.id))),
            used=sum(s.used for s in subnets),
            size=sum(s.size for s in subnets),
            subnets=subnets,
            peers=tuple((id_, found.value.name) for id_ in network.peers if (found := self._state.networks.get(id_))),
        )

    async def delete(self, name_or_id: str, caller: Caller, if_version: int | None = None) -> tuple[str, Revision]:
        """Remove a network that nobody uses, with its reservations; its id, and the revision that removed it.

        Raises:
            NotFound, PreconditionFailed
            Forbidden: a host asks, and did not make it.
            NetworkInUse: names each endpoint, its host, and when that was last seen; the network stays as it was.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found = await self.fresh(name_or_id)
            require_own_network(caller.principal, found.value)
            revision = await self._removal.remove(found, caller, if_version)
            await self._state.reached(revision, self._state.networks, self._state.subnets)
        return found.value.id, revision

    async def prune(
        self, caller: Caller, dry_run: bool = False, shows: Callable[[Network], bool] = lambda _: True
    ) -> tuple[Versioned[Network], ...]:
        """Remove every network without endpoints, of those that `shows` takes; the answer tells which.

        Networks that just got one stay, and those that get their name just now.
        """
        settled = (n for n in self.list() if n.value.state is not NetworkState.NAMING and shows(n.value))
        unused = [n for n in settled if not self._state.endpoints_of(n.value.id)]
        if dry_run:
            return tuple(unused)
        removed = []
        for network in unused:
            try:
                await self.delete(network.value.id, caller)
            except (NetworkInUse, NotFound):
                continue
            removed.append(network)
        return tuple(removed)

    def list(self) -> tuple[Versioned[Network], ...]:
        """All of them, by name."""
        return tuple(self._state.networks_in_order())
