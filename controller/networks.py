"""The use cases of networks: create, find, delete, prune.

A network's name, VNI and subnets are keys; one commit claims them all, ordered by the subnet guard, so that no two
networks can overlap however many controllers try. Deletion is in two steps: marked first, so that no endpoint can come
in any more, and removed when the store shows that none is left. Never removes what somebody still uses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from backends.store import Absent, Conflict, Put, Revision, Unknown
from controller.drafts import POOL_FIELDS, ROUTED_PREFIX_LENGTH, Draft, draft_of
from controller.fitting import require_fitting
from controller.guards import Guard
from controller.ipam.vnis import choose_vni
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.parsing import first_usable
from controller.removal import Removal, bridge_claims
from controller.requests import Caller, NetworkRequest
from controller.state import State
from controller.views import HostCondition, NetworkUse, SubnetUse
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import (
    BridgeTaken,
    IdTaken,
    Invalid,
    NameTaken,
    NetworkDeleting,
    NetworkInUse,
    NotFound,
    SubnetsExhausted,
    SubnetTaken,
)
from kvnet.model import Cidr, Driver, Network, NetworkState, Pool, Subnet, SubnetClaim, Versioned
from kvnet.rules import NAME, shown


@dataclass(frozen=True, slots=True)
class _Choice:
    """What one attempt to create a network is about to claim. `forced`: why an overlap with a host was accepted."""

    network: Network
    forced: dict[Cidr, str]


class Networks:
    def __init__(self, state: State, writer: Writer, guard: Guard, removal: Removal, rng: random.Random) -> None:
        self._state = state
        self._writer = writer
        self._guard = guard
        self._removal = removal
        self._rng = rng

    def get(self, name_or_id: str) -> Versioned[Network]:
        """Raises: NotFound."""
        found = self._state.network_named(name_or_id)
        if found is None:
            raise no_network(name_or_id)
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
        if found is None:
            raise no_network(name_or_id)
        return found

    async def create(self, request: NetworkRequest, caller: Caller) -> Versioned[Network]:
        """Claim a name, a VNI and subnets, all or nothing. With a client's id, repeating it is harmless.

        Raises:
            Invalid, NotSupported: the request itself.
            NameTaken, IdTaken, SubnetTaken, SubnetsExhausted, VniTaken: the state of the world.
            NotFound: a pool.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        draft = draft_of(request)
        network_id = draft.id or f"{self._rng.getrandbits(48):012x}"
        with store_errors_told():
            created = await self._create(draft, network_id, caller)
            await self._state.reached(created.version, self._state.networks, self._state.subnets)
        return created

    async def _create(self, draft: Draft, network_id: str, caller: Caller) -> Versioned[Network]:
        turns = self._writer.turns(f"network {draft.name!r} could not be created")
        while True:
            await turns.next()
            try:
                async with self._guard.held():
                    return await self._try_to_create(draft, network_id, caller)
            except Conflict as conflict:
                created = await self._after_conflict(draft, network_id, conflict)
            except Unknown as error:
                created = await self.find(network_id)
                if created is None:
                    turns.failed(error)
            except (SubnetTaken, SubnetsExhausted):
                existing = await self.find(network_id)  # a repeated request may be in its own way
                if existing is None:
                    raise
                created = _answer(draft, existing)
            if created is not None:
                return created

    async def _try_to_create(self, draft: Draft, network_id: str, caller: Caller) -> Versioned[Network]:
        await self._guard.ready()
        await self._refuse_taken(draft, network_id)
        choice = self._choose(draft, network_id)
        network = choice.network
        for subnet in network.subnets:
            self._state.blocks.hold(subnet.cidr, network_id)
        revision = None
        try:
            with self._guard.deciding():
                revision = await self._commit(choice, caller)
        finally:
            if revision is None:
                for subnet in network.subnets:  # a claim that was made is let go when the mirror shows it
                    self._state.blocks.let_go(subnet.cidr)
        self._guard.won(revision)
        return Versioned(network, revision)

    async def _refuse_taken(self, draft: Draft, network_id: str) -> None:
        """A good answer before the race is run; the commit's checks are what counts."""
        holder = self._state.network_named(draft.name)
        if holder is not None and holder.value.name == draft.name and holder.value.id != network_id:
            await self._raise_if_taken(draft.name, network_id)

    async def _raise_if_taken(self, name: str, network_id: str) -> None:
        entry = await self._writer.store.get(keys.name(name))
        holder = entry.value.decode() if entry else network_id
        if holder != network_id:
            raise NameTaken(
                f"network {holder} has the name {name!r}",
                fix=f"choose another name, or look at it with 'kvnet network inspect {name}'",
                context={"name": name, "network": holder},
            )

    async def _after_conflict(self, draft: Draft, network_id: str, conflict: Conflict) -> Versioned[Network] | None:
        if keys.network(network_id) in conflict.keys:
            existing = await self.find(network_id)
            if existing is not None:
                return _answer(draft, existing)
        if keys.name(draft.name) in conflict.keys:
            await self._raise_if_taken(draft.name, network_id)
        for key in conflict.keys:
            if key.startswith(keys.BRIDGES):
                await self._raise_if_bridge_taken(key, network_id)
        return None

    async def _raise_if_bridge_taken(self, key: str, network_id: str) -> None:
        entry = await self._writer.store.get(key)
        holder = entry.value.decode() if entry else network_id
        if holder != network_id:
            device, name = key.removeprefix(keys.BRIDGES), self._state.networks.get(holder)
            raise BridgeTaken(
                f"{device} is used by network {name.value.name if name else holder} already",
                fix="choose another name, or another uplink; 'kvnet network inspect' shows who has it",
                context={"device": device, "network": holder},
            )

    def _choose(self, draft: Draft, network_id: str) -> _Choice:
        blocks = self._state.blocks
        uplink = draft.features.get("uplink", "")
        forced = {s.cidr: blocks.refuse_overlap(s.cidr, force=draft.force, uplink=uplink) for s in draft.subnets}
        subnets = list(draft.subnets)
        for family, pool_name in draft.pools.items():
            pool = self._pool(pool_name, family)
            length = draft.prefix_length if family == 4 else None
            _require_length(pool, length)
            if length is None and draft.driver is Driver.ROUTED:
                length = _with_room_for_blocks(pool)
            cidr = blocks.choose([pool], length)
            subnets.append(Subnet(cidr, None if draft.driver is Driver.ROUTED else first_usable(cidr, {})))
        vni = None
        if draft.has_vni:
            vni = choose_vni(self._state.vnis, self._rng.getrandbits(24))
        subnets.sort(key=lambda s: s.cidr.version)
        network = draft.network(network_id, tuple(subnets), vni, self._writer.now())
        require_fitting(network)
        return _Choice(network, forced)

    def _pool(self, name: str, family: int) -> Pool:
        found = self._state.pools.get(name)
        if found is None:
            raise NotFound(
                f"there is no pool {name!r}", fix="'kvnet pool ls' shows the pools; or give subnets yourself"
            )
        if found.value.cidr.version != family:
            raise Invalid.field(f"/{POOL_FIELDS[family]}", f"pool {name!r} has no IPv{family} addresses")
        return found.value

    async def _commit(self, choice: _Choice, caller: Caller) -> Revision:
        network = choice.network
        owner = network.id.encode()
        key, data = keys.network(network.id), codec.encode(network)
        claims: list[Put] = [Put(keys.name(network.name), owner), Put(key, data)]
        if network.vni is not None:
            claims.append(Put(keys.vni(network.vni), owner))
        claims += [Put(key, owner) for key in bridge_claims(network)]
        for subnet in network.subnets:
            claim = SubnetClaim(network.id, choice.forced.get(subnet.cidr, ""))
            claims.append(Put(keys.subnet(subnet.cidr), codec.encode(claim)))
        self._state.networks.expect(key, data, network)
        return await self._writer.commit(
            [self._guard.check, *(Absent(put.key) for put in claims)],
            [self._guard.write, *claims],
            caller,
            Changed("network.created", key, None, data),
        )

    async def find(self, network_id: str) -> Versioned[Network] | None:
        """What the store has now."""
        entry = await self._writer.store.get(keys.network(network_id))
        return None if entry is None else Versioned(codec.decode(Network, entry.value), entry.version)

    def use(self, network_id: str) -> NetworkUse:
        """How full a network is, where it is, and what its hosts have to say about it.

        Raises:
            NotFound
        """
        network = self.get(network_id).value
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
            conditions=tuple(self._conditions(network.id)),
            peers=tuple((id_, found.value.name) for id_ in network.peers if (found := self._state.networks.get(id_))),
        )

    def _conditions(self, network_id: str) -> Iterator[HostCondition]:
        for name, observed in sorted(self._state.observed.items.items()):
            seen = observed.value.networks.get(network_id)
            for condition in seen.conditions if seen else ():
                yield HostCondition(name, condition.code, condition.detail, condition.since)

    async def delete(self, name_or_id: str, caller: Caller, if_version: int | None = None) -> None:
        """Remove a network that nobody uses, with its reservations.

        Raises:
            NotFound, PreconditionFailed
            NetworkInUse: names each endpoint, its host, and when that was last seen; the network stays as it was.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found = await self.fresh(name_or_id)
            revision = await self._removal.remove(found, caller, if_version)
            await self._state.reached(revision, self._state.networks, self._state.subnets, self._state.addresses)

    async def prune(self, caller: Caller, dry_run: bool = False) -> tuple[Versioned[Network], ...]:
        """Remove every network without endpoints; the answer tells which. Networks that just got one stay."""
        unused = [n for n in self.list() if not self._state.endpoints_of(n.value.id)]
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
        return tuple(sorted(self._state.networks.items.values(), key=lambda n: n.value.name))


def _with_room_for_blocks(pool: Pool) -> int | None:
    """A subnet that is cut into blocks is larger than the pool's usual ones, where the pool has that much."""
    length = ROUTED_PREFIX_LENGTH
    return length if pool.cidr.version == 4 and pool.cidr.prefixlen <= length < pool.prefix_length else None


def require_active(network: Network) -> None:
    """Raises: NetworkDeleting."""
    if network.state is not NetworkState.ACTIVE:
        raise NetworkDeleting(
            f"network {network.name!r} is being deleted", fix="use another network, or create it again when it is gone"
        )


def _answer(draft: Draft, existing: Versioned[Network]) -> Versioned[Network]:
    require_active(existing.value)
    if draft.is_answered_by(existing.value):
        return existing
    raise IdTaken(
        f"network {existing.value.id} exists and is another one: {existing.value.name!r}",
        fix="leave the id out, or repeat exactly the request that created it",
        context={"id": existing.value.id, "name": existing.value.name},
    )


def _require_length(pool: Pool, length: int | None) -> None:
    longest = pool.cidr.max_prefixlen - 2
    if length is not None and not pool.cidr.prefixlen <= length <= longest:
        raise Invalid.field(
            "/prefix_length",
            f"subnets of /{length} cannot be cut from pool {pool.name!r} ({pool.cidr})",
            f"{pool.cidr.prefixlen} to {longest}",
        )


def no_network(name_or_id: str) -> NotFound:
    return NotFound(f"there is no network {shown(name_or_id)}", fix="'kvnet network ls' shows the networks")
