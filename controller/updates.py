"""The change of a living network: the one commit that makes it, against everything that it must not collide with.

What it becomes is decided in `changing`. New and grown subnets are claimed as at creation, under the guard. A subnet
that is to go is taken out of the network first, so that no endpoint can get an address of it any more; what the store
shows then is all there is: nothing, and its claim goes too, or endpoints, and it is put back. Never takes an address
from an endpoint. Two patches at once are made one after the other, unless one asked for a version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.store import Absent, Check, Conflict, Delete, Put, Revision, Unchanged, Unknown, Write
from controller.changing import (
    NetworkPatch,
    SubnetPatch,
    added_subnets,
    changed,
    grown_subnets,
    new_reservations,
    removed_subnets,
)
from controller.guards import Guard
from controller.journal import Changed
from controller.network_rules import no_network, require_active
from controller.networks import Networks
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.security.scoping import require_kept
from controller.state import State
from controller.subnet_claims import SubnetClaims
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, SubnetClaim
from kvnet.errors import AddressTaken, Invalid, NetworkInUse, NotFound, PreconditionFailed
from kvnet.model import Address, Cidr, Network, Subnet, Versioned

MAX_NAMED_HOLDERS = 20
MAX_NEW_RESERVATIONS = 20  # each is a check of the one commit
REMOVALS_PER_COMMIT = 50

Claims = dict[Address, Versioned[AddressClaim]]


@dataclass(frozen=True, slots=True)
class _Step:
    """What one attempt is about to write. `forced`: why an overlap of a new subnet with a host was accepted."""

    before: Versioned[Network]
    after: Network
    forced: dict[Cidr, str]


class Updates:
    def __init__(
        self, state: State, writer: Writer, networks: Networks, guard: Guard, subnet_claims: SubnetClaims
    ) -> None:
        self._subnet_claims = subnet_claims
        self._state = state
        self._writer = writer
        self._networks = networks
        self._guard = guard

    async def update(
        self, name_or_id: str, patch: NetworkPatch, caller: Caller, if_version: int | None = None
    ) -> Versioned[Network]:
        """Repeating it changes nothing: the same version is the answer.

        Raises:
            NotFound, PreconditionFailed, NetworkDeleting
            Immutable: names every field that cannot change, and why.
            Invalid, NotSupported: what it would become is no network.
            SubnetTaken, SubnetsExhausted, AddressTaken, NetworkInUse: what others have.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            network_id = (await self._networks.fresh(name_or_id)).value.id
            turns = self._writer.turns(f"network {name_or_id!r} could not be changed")
            while True:
                await turns.next()
                try:
                    async with self._guard.held():
                        made = await self._try(network_id, patch, caller, if_version)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(made.version, self._state.networks, self._state.subnets)
                return made

    async def _try(
        self, network_id: str, patch: NetworkPatch, caller: Caller, if_version: int | None
    ) -> Versioned[Network]:
        found = await self._networks.find(network_id)
        if found is None:
            raise no_network(network_id)
        require_active(found.value)
        _require_version(found, if_version)
        await self._guard.ready()
        after = changed(found.value, self._with_subnets_of_pools(patch))
        require_kept(caller.principal, found.value, after)
        if after is found.value:
            return found
        gone = removed_subnets(found.value, after)
        if gone:
            self._refuse_used(found.value, gone, await self._claims(network_id))
        step = _Step(found, after, self._refuse_overlaps(found.value, after, patch.force))
        made = Versioned(after, await self._commit(step, caller))
        return await self._without(made, found.value, gone, caller) if gone else made

    def _with_subnets_of_pools(self, patch: NetworkPatch) -> NetworkPatch:
        if patch.subnets is None or all(one.cidr is not None for one in patch.subnets):
            return patch
        return replace(patch, subnets=tuple(self._chosen(one, i) for i, one in enumerate(patch.subnets)))

    def _chosen(self, one: SubnetPatch, i: int) -> SubnetPatch:
        if one.cidr is not None or one.pool is None:
            return one
        pool = self._state.pools.get(one.pool)
        if pool is None:
            raise NotFound(f"there is no pool {one.pool!r}", fix="'kvnet pool ls' shows the pools; or give a cidr")
        length, longest = one.prefix_length, pool.value.cidr.max_prefixlen - 2
        if length is not None and not pool.value.cidr.prefixlen <= length <= longest:
            raise Invalid.field(
                f"/subnets/{i}/prefix_length",
                f"subnets of /{length} cannot be cut from pool {one.pool!r} ({pool.value.cidr})",
                f"{pool.value.cidr.prefixlen} to {longest}",
            )
        return replace(one, cidr=str(self._state.blocks.choose([pool.value], length)))

    def _refuse_overlaps(self, before: Network, after: Network, force: bool) -> dict[Cidr, str]:
        grown = grown_subnets(before, after)
        blocks = self._state.blocks
        return {
            cidr: blocks.refuse_overlap(cidr, force=force, uplink=before.uplink, own=grown.get(cidr))
            for cidr in (*added_subnets(before, after), *grown)
        }

    async def _commit(self, step: _Step, caller: Caller) -> Revision:
        before, after = step.before.value, step.after
        key, data = keys.network(after.id), codec.encode(after)
        checks: list[Check] = [Unchanged(key, step.before.version), *await self._free(before, after)]
        writes: list[Write] = [Put(key, data)]
        for cidr, reason in step.forced.items():
            checks.append(Absent(keys.subnet(cidr)))
            writes.append(Put(keys.subnet(cidr), codec.encode(SubnetClaim(after.id, reason))))
        writes += [Delete(keys.subnet(old)) for old in grown_subnets(before, after).values()]
        change = Changed("network.updated", key, codec.encode(before), data)
        if not step.forced:
            return await self._writer.commit(checks, writes, caller, change)
        return await self._subnet_claims.commit(step.forced, after.id, checks, writes, caller, change)

    async def _free(self, before: Network, after: Network) -> list[Check]:
        """Checks that nobody has the addresses which are reserved now.

        Raises:
            AddressTaken
        """
        wanted = new_reservations(before, after)
        if len(wanted) > MAX_NEW_RESERVATIONS:
            detail = f"{len(wanted)} new reservations at once; at most {MAX_NEW_RESERVATIONS}"
            raise Invalid.field("/subnets", detail, "make them in several steps")
        checks: list[Check] = []
        for pointer, (name, address) in wanted.items():
            key = keys.address(after.id, address)
            entry = await self._writer.store.get(key)
            claim = None if entry is None else codec.decode(AddressClaim, entry.value)
            if claim is not None and claim.kind is not ClaimKind.TOMBSTONE and claim.holder != name:
                holder = f"{claim.kind.value} {claim.holder}"
                raise AddressTaken(
                    f"{address} cannot be reserved for {name!r}: it belongs to {holder}",
                    fix="reserve another one, or release that first",
                    context={"address": str(address), "holder": holder, "pointer": pointer},
                )
            checks.append(Absent(key) if entry is None else Unchanged(key, entry.version))
        return checks

    async def _without(
        self, made: Versioned[Network], before: Network, gone: list[Cidr], caller: Caller
    ) -> Versioned[Network]:
        """Let go of the claims of subnets that no endpoint can come into any more.

        Raises:
            NetworkInUse: an endpoint had come into one before; the network has it again.
            StoreError
        """
        claims = await self._claims(made.value.id)
        try:
            self._refuse_used(before, gone, claims)
        except NetworkInUse:
            await self._put_back(made, [s for s in before.subnets if s.cidr in gone], caller)
            raise
        idle = [keys.address(made.value.id, a) for a in claims if _in_any(a, gone)]
        stored = await self._writer.store.list(keys.blocks(made.value.id))
        idle += [e.key for e in stored.entries if _in_any(keys.parse_block(e.key).cidr.network_address, gone)]
        doomed: list[Write] = [Delete(key) for key in (*idle, *(keys.subnet(cidr) for cidr in gone))]
        for start in range(0, len(doomed), REMOVALS_PER_COMMIT):
            made = await self._let_go(made, gone, doomed[start : start + REMOVALS_PER_COMMIT], caller)
        return made

    async def _put_back(self, made: Versioned[Network], back: list[Subnet], caller: Caller) -> None:
        """Whatever else changes meanwhile: their claims stand, and an endpoint has an address of them."""
        turns = self._writer.turns(f"{', '.join(str(s.cidr) for s in back)} could not be put back")
        found: Versioned[Network] | None = made
        while found is not None and (missing := [s for s in back if s not in found.value.subnets]):
            await turns.next()
            subnets = sorted((*found.value.subnets, *missing), key=lambda s: s.cidr.version)
            after = replace(found.value, subnets=tuple(subnets))
            key, data = keys.network(after.id), codec.encode(after)
            change = Changed("network.updated", key, codec.encode(found.value), data)
            try:
                await self._writer.commit([Unchanged(key, found.version)], [Put(key, data)], caller, change)
                return
            except (Conflict, Unknown) as error:
                turns.failed(error)
                found = await self._networks.find(made.value.id)

    async def _let_go(
        self, made: Versioned[Network], gone: list[Cidr], part: list[Write], caller: Caller
    ) -> Versioned[Network]:
        """Whatever else changes meanwhile, as long as the network does not get these subnets again."""
        turns = self._writer.turns(f"what is left of {', '.join(map(str, gone))} could not be removed")
        while True:
            await turns.next()
            try:
                await self._writer.commit([Unchanged(keys.network(made.value.id), made.version)], part, caller)
            except Unknown as error:
                turns.failed(error)
            except Conflict as error:
                turns.failed(error)
                found = await self._networks.find(made.value.id)
                if found is None or any(s.cidr in gone for s in found.value.subnets):
                    return made
                made = found
            else:
                return made

    async def _claims(self, network_id: str) -> Claims:
        found = await self._writer.store.list(keys.addresses(network_id))
        return {
            keys.parse_address(e.key).address: Versioned(codec.decode(AddressClaim, e.value), e.version)
            for e in found.entries
        }

    def _refuse_used(self, network: Network, gone: list[Cidr], claims: Claims) -> None:
        used = [
            (address, claim.value)
            for address, claim in sorted(claims.items(), key=lambda item: (item[0].version, int(item[0])))
            if claim.value.kind is not ClaimKind.TOMBSTONE and _in_any(address, gone)
        ]
        if not used:
            return
        endpoints = self._state.endpoints_of(network.id)
        named = []
        for address, claim in used[:MAX_NAMED_HOLDERS]:
            endpoint = endpoints.get(claim.holder) if claim.kind is ClaimKind.ENDPOINT else None
            where = f"endpoint {endpoint.value.name} on {endpoint.value.host}" if endpoint else claim.holder
            named.append(f"{address} ({where})")
        more = f" and {len(used) - MAX_NAMED_HOLDERS} more" if len(used) > MAX_NAMED_HOLDERS else ""
        subnets = ", ".join(map(str, gone))
        raise NetworkInUse(
            f"subnet {subnets} of network {network.name!r} has addresses in use: {', '.join(named)}{more}",
            fix="detach these endpoints and release these reservations first",
            context={"network": network.id, "subnets": [str(c) for c in gone], "total": len(used)},
        )


def _require_version(found: Versioned[Network], if_version: int | None) -> None:
    if if_version is not None and found.version != if_version:
        raise PreconditionFailed(
            f"network {found.value.name!r} has version {found.version}, not {if_version}",
            fix="look at it again and repeat with its version",
            context={"version": found.version},
        )


def _in_any(address: Address, blocks: list[Cidr]) -> bool:
    return any(address.version == block.version and address in block for block in blocks)
