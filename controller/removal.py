"""How a network ends: marked first, then looked through in the store itself, then removed piece by piece.

Once it is marked no endpoint and no reservation can come in, because their commits check the network's version; so
what the store shows after the mark is all there is. Every commit of the removal checks the mark, the network's own key
goes last: a removal that was cut short is found and finished by upkeep, a mark that was taken back stops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backends.store import Check, Conflict, Delete, Put, Revision, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.requests import Caller
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import NetworkInUse, NotFound, PreconditionFailed
from kvnet.model import Endpoint, Network, NetworkState, Versioned
from kvnet.moments import moment

REMOVALS_PER_COMMIT = 50
PEERS_PER_COMMIT = 15  # each is a check and a write, beside up to 20 operations of the network itself
MAX_NAMED_BLOCKERS = 20
MAX_BLOCKERS_AS_DATA = 100


class Removal:
    def __init__(self, state: State, writer: Writer) -> None:
        self._state = state
        self._writer = writer

    async def remove(self, network: Versioned[Network], caller: Caller, if_version: int | None = None) -> Revision:
        """
        Raises:
            NetworkInUse: endpoints are left; it is active again.
            PreconditionFailed, NotFound, TooMuchContention, StoreError
        """
        network_id, has_marked = network.value.id, False
        turns = self._writer.turns(f"network {network.value.name!r} could not be deleted")
        while True:
            found = network if await turns.next() == 0 else await self._stored(network_id)
            if found is None:
                if has_marked:  # finished by somebody else, or by a commit whose answer was lost
                    return self._state.networks.mirror.revision
                raise NotFound(f"network {network.value.name!r} was deleted meanwhile")
            if if_version is not None and not has_marked:
                found = await self._required(found, if_version)
            try:
                marked = await self._marked(found, caller)
                has_marked = True
                return await self.finish(marked, caller)
            except (Conflict, Unknown) as error:
                turns.failed(error)

    async def finish(self, marked: Versioned[Network], caller: Caller) -> Revision:
        """Remove a marked network, or make it active again if there are endpoints.

        Raises:
            NetworkInUse, StoreError
        """
        network = marked.value
        left = await self._writer.store.list(keys.endpoints(network.id))
        if left.entries:
            await self._put(marked, NetworkState.ACTIVE, "network.kept", caller)
            raise self._in_use(network, [codec.decode(Endpoint, entry.value) for entry in left.entries])
        mark = Unchanged(keys.network(network.id), marked.version)
        addresses = await self._writer.store.list(keys.addresses(network.id))
        blocks = await self._writer.store.list(keys.blocks(network.id))
        for part in _parts([Delete(entry.key) for entry in (*addresses.entries, *blocks.entries)]):
            await self._writer.commit([mark], part, caller)
        peers = await self._peers_of(network)
        while len(peers) > PEERS_PER_COMMIT:
            checks, writes = _parted(network, peers[:PEERS_PER_COMMIT])
            await self._writer.commit([mark, *checks], writes, caller)
            peers = peers[PEERS_PER_COMMIT:]
        checks, writes = _parted(network, peers)
        return await self._writer.commit(
            [mark, *checks],
            [*_own_keys(network), *writes],
            caller,
            Changed("network.deleted", keys.network(network.id), codec.encode(network), None),
        )

    async def _marked(self, found: Versioned[Network], caller: Caller) -> Versioned[Network]:
        network = found.value
        if network.state is NetworkState.DELETING:
            return found
        blockers = [endpoint.value for endpoint in self._state.endpoints_of(network.id).values()]
        if blockers and await self._is_stored(blockers[0]):
            raise self._in_use(network, blockers)
        return await self._put(found, NetworkState.DELETING, "network.deleting", caller)

    async def _put(
        self, found: Versioned[Network], state: NetworkState, kind: str, caller: Caller
    ) -> Versioned[Network]:
        after = replace(found.value, state=state)
        key, data = keys.network(after.id), codec.encode(after)
        change = Changed(kind, key, codec.encode(found.value), data)
        revision = await self._writer.commit([Unchanged(key, found.version)], [Put(key, data)], caller, change)
        return Versioned(after, revision)

    async def _required(self, found: Versioned[Network], if_version: int) -> Versioned[Network]:
        """The network in exactly that version: the store decides, the mirror may be a moment old."""
        if found.version != if_version:
            stored = await self._stored(found.value.id)
            if stored is None:
                raise NotFound(f"network {found.value.name!r} was deleted meanwhile")
            found = stored
        if found.version != if_version:
            raise PreconditionFailed(
                f"network {found.value.name!r} has version {found.version}, not {if_version}",
                fix="look at it again and repeat with its version",
                context={"version": found.version},
            )
        return found

    async def _peers_of(self, network: Network) -> list[Versioned[Network]]:
        """Networks that list this one; of those it lists itself, which no new one can join any more."""
        found = [await self._stored(peer) for peer in network.peers]
        return [peer for peer in found if peer is not None and network.id in peer.value.peers]

    async def _stored(self, network_id: str) -> Versioned[Network] | None:
        entry = await self._writer.store.get(keys.network(network_id))
        return None if entry is None else Versioned(codec.decode(Network, entry.value), entry.version)

    async def _is_stored(self, endpoint: Endpoint) -> bool:
        return await self._writer.store.get(keys.endpoint(endpoint.network, endpoint.id)) is not None

    def _in_use(self, network: Network, endpoints: Sequence[Endpoint]) -> NetworkInUse:
        blockers = [self._described(e) for e in sorted(endpoints, key=lambda e: (e.host, e.name))]
        named = ", ".join(
            f"{b['name']} on {b['host']} (last seen {b['last_seen'] or 'never'})" for b in blockers[:MAX_NAMED_BLOCKERS]
        )
        more = f" and {len(blockers) - MAX_NAMED_BLOCKERS} more" if len(blockers) > MAX_NAMED_BLOCKERS else ""
        return NetworkInUse(
            f"network {network.name!r} has {len(blockers)} endpoint{'s' * (len(blockers) != 1)}: {named}{more}",
            fix="detach them; those of a host that is gone leave with 'kvnet endpoint rm' or 'kvnet host rm --force'",
            context={
                "network": network.id,
                "name": network.name,
                "endpoints": blockers[:MAX_BLOCKERS_AS_DATA],
                "total": len(blockers),
            },
        )

    def _described(self, endpoint: Endpoint) -> dict[str, Any]:
        seen = self._state.last_seen(endpoint.host)
        return {
            "id": endpoint.id,
            "name": endpoint.name,
            "host": endpoint.host,
            "alive": self._state.alive.get(endpoint.host) is not None,
            "last_seen": None if seen is None else moment(seen),
        }


def bridge_claims(network: Network) -> list[str]:
    return [keys.bridge(device) for device in network.claimed_links]


def _parted(network: Network, peers: Sequence[Versioned[Network]]) -> tuple[list[Check], list[Write]]:
    """The peers without this network, and that they are still what they were."""
    checks: list[Check] = [Unchanged(keys.network(peer.value.id), peer.version) for peer in peers]
    without = (replace(p.value, peers=tuple(one for one in p.value.peers if one != network.id)) for p in peers)
    return checks, [Put(keys.network(one.id), codec.encode(one)) for one in without]


def _own_keys(network: Network) -> list[Write]:
    vnis = [] if network.vni is None else [keys.vni(network.vni)]
    subnets = [keys.subnet(subnet.cidr) for subnet in network.subnets]
    own = [keys.name(network.name), *vnis, *subnets, *bridge_claims(network), keys.network(network.id)]
    return [Delete(key) for key in own]


def _parts(writes: Sequence[Delete]) -> list[Sequence[Delete]]:
    return [writes[i : i + REMOVALS_PER_COMMIT] for i in range(0, len(writes), REMOVALS_PER_COMMIT)]
