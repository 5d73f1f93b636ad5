"""The creation of a network: one commit that claims its name, its VNI, its bridge and its subnets, all or nothing.

Ordered by the subnet guard, so that no two networks can overlap however many controllers try. A subnet that was held
for it is taken over in the same commit, which checks that the hold is still the one that was seen. A request that was
repeated is answered with the network that it made.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from backends.store import Absent, Check, Conflict, Put, Revision, Unchanged, Unknown
from controller.drafts import POOL_FIELDS, ROUTED_PREFIX_LENGTH, Draft, draft_of, identified
from controller.fitting import require_fitting
from controller.guards import Guard
from controller.holds import Held, Holds
from controller.ipam.vnis import choose_vni
from controller.journal import Changed
from controller.network_rules import require_name_free, require_not_going, stored_network
from controller.outcomes import store_errors_told
from controller.parsing import first_usable
from controller.pools import pool_named, require_length
from controller.removal import bridge_claims
from controller.requests import Caller, NetworkRequest, SubnetRequest
from controller.security.host_calls import require_own_holds, require_own_making
from controller.security.scoping import owner_of, require_kept, within_scope
from controller.state import State
from controller.subnet_claims import SubnetClaims
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.errors import BridgeTaken, HoldGone, HoldMismatch, IdTaken, SubnetsExhausted, SubnetTaken
from kvnet.model import Cidr, Driver, Network, Pool, Subnet, Versioned


@dataclass(frozen=True, slots=True)
class _Choice:
    """What one attempt to create a network is about to claim.

    `forced`: why an overlap with a host was accepted. `held`: the claims that it takes over from its holds.
    """

    network: Network
    forced: dict[Cidr, str]
    held: Held


class NetworkCreation:
    def __init__(
        self,
        state: State,
        writer: Writer,
        guard: Guard,
        subnet_claims: SubnetClaims,
        holds: Holds,
        rng: random.Random,
    ) -> None:
        self._state = state
        self._writer = writer
        self._guard = guard
        self._subnet_claims = subnet_claims
        self._holds = holds
        self._rng = rng

    async def create(self, request: NetworkRequest, caller: Caller) -> Versioned[Network]:
        """Claim a name, a VNI and subnets, all or nothing. With a client's id or holds, repeating it is harmless.

        Raises:
            Invalid, NotSupported: the request itself.
            NameTaken, IdTaken, SubnetTaken, SubnetsExhausted, VniTaken: the state of the world.
            HoldGone, HoldMismatch: a hold that it names.
            NotFound: a pool.
            Forbidden: a host asks for another, or uses force.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        made_on = request.docker.host if request.docker is not None else None
        require_own_making(caller.principal, made_on, force=request.force)
        request = within_scope(caller.principal, request)
        request = identified(request, f"{self._rng.getrandbits(48):012x}")
        network_id = str(request.id)
        with store_errors_told():
            if request.holds and not request.subnets:
                request = replace(request, subnets=await self._subnets_of(request.holds))
            created = await self._within_quota(draft_of(request), network_id, caller)
            await self._state.reached(created.version, self._state.networks, self._state.subnets)
        return created

    async def _within_quota(self, draft: Draft, network_id: str, caller: Caller) -> Versioned[Network]:
        who, quota = caller.principal, self._state.quotas.networks
        most = None if who is None else who.limits.networks
        is_new = self._state.networks.get(network_id) is None
        with quota.coming(owner_of(who), 1, most if is_new else None) as room:
            if not room:
                raise quota.exceeded(who, most)
            return await self._create(draft, network_id, caller)

    async def _subnets_of(self, holds: tuple[str, ...]) -> tuple[SubnetRequest, ...]:
        """What these holds have; or had, if their network is there already."""
        try:
            async with self._guard.held():
                await self._guard.ready()
                cidrs = list(await self._holds.claims(holds))
        except HoldGone:
            existing = await self._find(holds[0])
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
                created = await self._find(network_id)
                if created is None:
                    turns.failed(error)
            except (SubnetTaken, SubnetsExhausted, HoldGone):
                existing = await self._find(network_id)  # a repeated request may be in its own way
                if existing is None:
                    raise
                created = _answer(draft, existing)
            if created is not None:
                return created

    async def _try_to_create(self, draft: Draft, network_id: str, caller: Caller) -> Versioned[Network]:
        await self._guard.ready()
        await self._refuse_taken(draft, network_id)
        held = await self._holds.claims(draft.holds)
        require_own_holds(
            caller.principal, (one.value.hold.host for one in held.values() if one.value.hold is not None)
        )
        _require_fit(draft, held)
        choice = self._choose(draft, network_id, held, owner_of(caller.principal))
        require_kept(caller.principal, None, choice.network)
        return Versioned(choice.network, await self._commit(choice, caller))

    async def _refuse_taken(self, draft: Draft, network_id: str) -> None:
        """A good answer before the race is run; the commit's checks are what counts."""
        holder = self._state.network_named(draft.name)
        if holder is not None and holder.value.name == draft.name and holder.value.id != network_id:
            await require_name_free(self._writer.store, draft.name, network_id)

    async def _after_conflict(self, draft: Draft, network_id: str, conflict: Conflict) -> Versioned[Network] | None:
        if keys.network(network_id) in conflict.keys:
            existing = await self._find(network_id)
            if existing is not None:
                return _answer(draft, existing)
        if keys.name(draft.name) in conflict.keys:
            await require_name_free(self._writer.store, draft.name, network_id)
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

    def _choose(self, draft: Draft, network_id: str, held: Held, owner: str) -> _Choice:
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
        network = replace(draft.network(network_id, tuple(subnets), vni, self._writer.now()), owner=owner)
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

    async def _find(self, network_id: str) -> Versioned[Network] | None:
        return await stored_network(self._writer.store, network_id)


def _with_room_for_blocks(pool: Pool) -> int | None:
    """A subnet that is cut into blocks is larger than the pool's usual ones, where the pool has that much."""
    length = ROUTED_PREFIX_LENGTH
    return length if pool.cidr.version == 4 and pool.cidr.prefixlen <= length < pool.prefix_length else None


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
