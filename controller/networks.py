"""The use cases of networks: create, find, delete, prune.

A network's name, VNI and subnets are keys; one commit claims them all, ordered by the subnet guard, so that no two
networks can overlap however many controllers try. Deletion is in two steps: marked first, so that no endpoint can come
in any more, and removed when the store shows that none is left. Never removes what somebody still uses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backends.store import Absent, Check, Conflict, Put, Revision, Unchanged, Unknown
from controller.drafts import POOL_FIELDS, ROUTED_PREFIX_LENGTH, Draft, draft_of, identified
from controller.fitting import require_fitting
from controller.guards import Guard
from controller.holds import Held, Holds
from controller.ipam.vnis import choose_vni
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.parsing import first_usable
from controller.pools import pool_named, require_length
from controller.removal import Removal, bridge_claims
from controller.requests import Caller, NetworkRequest, SubnetRequest
from controller.state import State
from controller.subnet_claims import SubnetClaims
from controller.views import HostCondition, NetworkUse, SubnetUse
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import (
    BridgeTaken,
    HoldGone,
    HoldMismatch,
    IdTaken,
    NameTaken,
    NetworkDeleting,
    NetworkInUse,
    NetworkNaming,
    NotFound,
    SubnetsExhausted,
    SubnetTaken,
)
from kvnet.model import Cidr, Driver, Network, NetworkState, Pool, Subnet, SubnetClaim, Versioned
from kvnet.rules import NAME, shown


@dataclass(frozen=True, slots=True)
class _Choice:
    """What one attempt to create a network is about to claim.

    `forced`: why an overlap with a host was accepted. `held`: the claims that it takes over from its holds.
    """

    network: Network
    forced: dict[Cidr, str]
    held: Held


class Networks:
    def __init__(
        self,
        state: State,
        writer: Writer,
        guard: Guard,
        subnet_claims: SubnetClaims,
        holds: Holds,
        removal: Removal,
        rng: random.Random,
    ) -> None:
        self._subnet_claims = subnet_claims
        self._holds = holds
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
        """Claim a name, a VNI and subnets, all or nothing. With a client's id or holds, repeating it is harmless.

        Raises:
            Invalid, NotSupported: the request itself.
            NameTaken, IdTaken, SubnetTaken, SubnetsExhausted, VniTaken: the state of the world.
            HoldGone, HoldMismatch: a hold that it names.
            NotFound: a pool.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        request = identified(request, f"{self._rng.getrandbits(48):012x}")
        network_id = str(request.id)
        with store_errors_told():
            if request.holds and not request.subnets:
                request = replace(request, subnets=await self._subnets_of(request.holds))
            created = await self._create(draft_of(request), network_id, caller)
            await self._state.reached(created.version, self._state.networks, self._state.subnets)
        return created

    async def _subnets_of(self, holds: tuple[str, ...]) -> tuple[SubnetRequest, ...]:
        """What these holds have; or had, if their network is there already."""
        try:
            async with self._guard.held():
                await self._guard.ready()
                cidrs = list(await self._holds.claims(holds))
        except HoldGone:
            existing = await self.find(holds[0])
            if existing is None:
                raise
            cidrs = [subnet.cidr for subnet in existing.value.subnets][: len(holds)]
        return tuple(SubnetRequest(str(cidr)) for cidr in cidrs)

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
            except (SubnetTaken, SubnetsExhausted, HoldGone):
                existing = await self.find(network_id)  # a repeated request may be in its own way
                if existing is None:
                    raise
                created = _answer(draft, existing)
            if created is not None:
                return created

    async def _try_to_create(self, draft: Draft, network_id: str, caller: Caller) -> Versioned[Network]:
        await self._guard.ready()
        await self._refuse_taken(draft, network_id)
        held = await self._holds.claims(draft.holds)
        _require_fit(draft, held)
        choice = self._choose(draft, network_id, held)
        return Versioned(choice.network, await self._commit(choice, caller))

    async def _refuse_taken(self, draft: Draft, network_id: str) -> None:
        """A good answer before the race is run; the commit's checks are what counts."""
        holder = self._state.network_named(draft.name)
        if holder is not None and holder.value.name == draft.name and holder.value.id != network_id:
            await self.raise_if_taken(draft.name, network_id)

    async def raise_if_taken(self, name: str, network_id: str) -> None:
        """Raises: NameTaken: another network has it, says the store."""
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
            await self.raise_if_taken(draft.name, network_id)
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

    def _choose(self, draft: Draft, network_id: str, held: Held) -> _Choice:
        blocks = self._state.blocks
        uplink = draft.features.get("uplink", "")
        forced = {
            s.cidr: blocks.refuse_overlap(
                s.cidr, force=draft.force, uplink=uplink, own=s.cidr if s.cidr in held else None
            )
            for s in draft.subnets
        }
        subnets = list(draft.subnets)
        for family, pool_name in draft.pools.items():
            pool = pool_named(self._state, pool_name, family, f"/{POOL_FIELDS[family]}")
            length = draft.prefix_length if family == 4 else None
            require_length(pool, length)
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
        return _Choice(network, forced, held)

    async def _commit(self, choice: _Choice, caller: Caller) -> Revision:
        network = choice.network
        owner = network.id.encode()
        key, data = keys.network(network.id), codec.encode(network)
        claims: list[Put] = [Put(keys.name(network.name), owner), Put(key, data)]
        if network.vni is not None:
            claims.append(Put(keys.vni(network.vni), owner))
        claims += [Put(key, owner) for key in bridge_claims(network)]
        checks: list[Check] = [Absent(put.key) for put in claims]
        for subnet in network.subnets:
            put = Put(
                keys.subnet(subnet.cidr),
                codec.encode(SubnetClaim(network.id, choice.forced.get(subnet.cidr, ""))),
            )
            hold = choice.held.get(subnet.cidr)
            checks.append(Absent(put.key) if hold is None else Unchanged(put.key, hold.version))
            claims.append(put)
        self._state.networks.expect(key, data, network)
        cidrs = [subnet.cidr for subnet in network.subnets]
        change = Changed("network.created", key, None, data)
        return await self._subnet_claims.commit(cidrs, network.id, checks, claims, caller, change)

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
        """Remove every network without endpoints; the answer tells which.

        Networks that just got one stay, and those that get their name just now.
        """
        settled = (n for n in self.list() if n.value.state is not NetworkState.NAMING)
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
        return tuple(sorted(self._state.networks.items.values(), key=lambda n: n.value.name))


def _with_room_for_blocks(pool: Pool) -> int | None:
    """A subnet that is cut into blocks is larger than the pool's usual ones, where the pool has that much."""
    length = ROUTED_PREFIX_LENGTH
    return length if pool.cidr.version == 4 and pool.cidr.prefixlen <= length < pool.prefix_length else None


def require_active(network: Network) -> None:
    """Raises: NetworkDeleting, NetworkNaming."""
    require_not_going(network)
    if network.state is NetworkState.NAMING:
        raise NetworkNaming(
            f"network {network.name} is being made through Docker and has no name yet",
            fix="repeat in a second; if it gets no name within a minute, it is removed",
            context={"network": network.id},
        )


def require_not_going(network: Network) -> None:
    """Raises: NetworkDeleting."""
    if network.state is NetworkState.DELETING:
        raise NetworkDeleting(
            f"network {network.name!r} is being deleted", fix="use another network, or create it again when it is gone"
        )


def _answer(draft: Draft, existing: Versioned[Network]) -> Versioned[Network]:
    require_not_going(existing.value)
    if draft.is_answered_by(existing.value):
        return existing
    raise IdTaken(
        f"network {existing.value.id} exists and is another one: {existing.value.name!r}",
        fix="leave the id out, or repeat exactly the request that created it",
        context={"id": existing.value.id, "name": existing.value.name},
    )


def _require_fit(draft: Draft, held: Held) -> None:
    """Raises: HoldMismatch: a hold is not for a subnet of this network, or not for the host that makes it."""
    wanted = {subnet.cidr for subnet in draft.subnets}
    host = draft.docker.host if draft.docker is not None else ""
    for cidr, claim in held.items():
        hold = claim.value.hold
        made_for = hold.host if hold is not None else ""
        if cidr not in wanted or host not in ("", made_for):
            asked = f"host {host} makes it" if cidr in wanted else f"it has {', '.join(map(str, wanted))}"
            raise HoldMismatch(
                f"hold {claim.value.network} is for {cidr} and host {made_for}, and this is another network: {asked}",
                fix="name the holds of this network's own subnets, or none",
                context={"hold": claim.value.network, "cidr": str(cidr), "host": made_for},
            )


def no_network(name_or_id: str) -> NotFound:
    return NotFound(f"there is no network {shown(name_or_id)}", fix="'kvnet network ls' shows the networks")
