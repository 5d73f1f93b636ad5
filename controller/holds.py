"""The use cases of holds: a subnet that is kept, for a minute, for a network that a host is about to make.

Docker asks for a network's subnets one by one, before it says anything else about the network. A hold stands where a
network's claim would, so nothing else can get the subnet; a network that names the hold takes its place in the commit
that creates it. Nobody has to let go of one: upkeep does when it is over. Whether one is good is decided by its key
alone, never by a clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from backends.store import Absent, Conflict, Delete, Put, Unchanged, Unknown
from controller.drafts import DEFAULT_POOLS
from controller.guards import Guard
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.parsing import parse_cidr
from controller.pools import pool_named, require_length
from controller.requests import Caller, HoldRequest
from controller.security.host_calls import require_no_force, require_own_places
from controller.security.hosts import of_host
from controller.security.principal import Principal
from controller.state import State
from controller.subnet_claims import SubnetClaims
from controller.views import Hold
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import SubnetClaim, SubnetHold
from kvnet.errors import HoldGone, Invalid, NotFound
from kvnet.model import Cidr, Subnet, Versioned
from kvnet.rules import NETWORK_ID, require_name, shown

HOLD_S = 60.0
Held = dict[Cidr, Versioned[SubnetClaim]]


class Holds:
    def __init__(
        self, state: State, writer: Writer, guard: Guard, subnet_claims: SubnetClaims, rng: random.Random
    ) -> None:
        self._state = state
        self._writer = writer
        self._guard = guard
        self._claims = subnet_claims
        self._rng = rng

    def list(self, host: str = "") -> tuple[Hold, ...]:
        """Of one host or all, in the order of their ids."""
        found = (_view(keys.parse_subnet(keys.SUBNETS + key), one) for key, one in self._state.subnets.items.items())
        return tuple(sorted((h for h in found if h is not None and host in ("", h.host)), key=lambda h: h.id))

    def get(self, hold: str) -> Hold:
        """Raises: NotFound."""
        cidr = self._state.blocks.held_by(hold)
        claim = None if cidr is None else self._known(cidr)
        found = None if cidr is None or claim is None else _view(cidr, claim)
        if found is None:
            raise NotFound(f"there is no hold {shown(hold)}", fix="it ran out, or a network has its subnet by now")
        return found

    async def create(self, request: HoldRequest, caller: Caller) -> Hold:
        """Keep a subnet from everybody else.

        Raises:
            Invalid: the request itself.
            Forbidden: a host asks for another, or uses force.
            NotFound: the host or the pool.
            SubnetTaken, SubnetsExhausted: others have it.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        require_own_places(caller.principal, [request.host])
        require_no_force(caller.principal, force=request.force)
        cidr = _cidr(request)
        with store_errors_told():
            await self._require_host(request.host)
            turns = self._writer.turns("no subnet could be held")
            while True:
                await turns.next()
                try:
                    async with self._guard.held():
                        made = await self._try(request, cidr, caller)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(made.version, self._state.subnets)
                return made

    async def release(self, hold: str, caller: Caller) -> None:
        """Let others have it. No error if there is no such hold, or a network has the subnet by now; nor, and nothing
        happens, if a host asks and it is another's.

        Raises:
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            turns = self._writer.turns(f"hold {hold!r} could not be released")
            while True:
                await turns.next()
                found = await self._stored(hold)
                if found is None or not _may_release(caller.principal, found[1].value):
                    return
                key, claim = found
                change = Changed("hold.released", key, codec.encode(claim.value), None)
                try:
                    revision = await self._writer.commit([Unchanged(key, claim.version)], [Delete(key)], caller, change)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(revision, self._state.subnets)
                return

    async def claims(self, holds: Iterable[str]) -> Held:
        """What these holds have, for a commit that checks the versions. Call with the guard held and ready.

        Raises:
            HoldGone
        """
        wanted = tuple(holds)
        if any(self._state.blocks.held_by(one) is None for one in wanted):
            self._guard.forget()  # another replica may have made it a moment ago
            await self._guard.ready()
        found: Held = {}
        for one in wanted:
            cidr = self._state.blocks.held_by(one)
            claim = None if cidr is None else self._known(cidr)
            if cidr is None or claim is None:
                raise HoldGone(
                    f"hold {one} was released, ran out, or was never there",
                    fix="hold a subnet again, and create the network within a minute",
                    context={"hold": one},
                )
            found[cidr] = claim
        return found

    async def _try(self, request: HoldRequest, cidr: Cidr | None, caller: Caller) -> Hold:
        await self._guard.ready()
        if cidr is None:
            cidr, forced = self._chosen(request), ""
        else:
            forced = self._state.blocks.refuse_overlap(cidr, force=request.force)
        now = self._writer.now()
        # One id an attempt: an attempt whose answer was lost may come about after all.
        claim = SubnetClaim(f"{self._rng.getrandbits(48):012x}", forced, SubnetHold(request.host, now, now + HOLD_S))
        key, data = keys.subnet(cidr), codec.encode(claim)
        change = Changed("hold.created", key, None, data)
        try:
            revision = await self._claims.commit([cidr], claim.network, [Absent(key)], [Put(key, data)], caller, change)
        except Unknown:
            entry = await self._writer.store.get(key)
            if entry is None or codec.decode(SubnetClaim, entry.value) != claim:
                raise
            revision = entry.version
        made = _view(cidr, Versioned(claim, revision))
        assert made is not None
        return made

    def _chosen(self, request: HoldRequest) -> Cidr:
        version = request.version or 4
        pool = pool_named(self._state, request.pool or DEFAULT_POOLS[version], version, "/pool")
        require_length(pool, request.prefix_length)
        return self._state.blocks.choose([pool], request.prefix_length)

    async def _require_host(self, name: str) -> None:
        if self._state.hosts.get(name) is None and await self._writer.store.get(keys.host(name)) is None:
            raise NotFound(
                f"there is no host {shown(name)}", fix="start 'kvnet worker' there; 'kvnet host ls' shows the hosts"
            )

    async def _stored(self, hold: str) -> tuple[str, Versioned[SubnetClaim]] | None:
        if not NETWORK_ID.match(hold):
            return None
        if self._state.blocks.held_by(hold) is None:
            async with self._guard.held():
                self._guard.forget()
                await self._guard.ready()
        cidr = self._state.blocks.held_by(hold)
        entry = None if cidr is None else await self._writer.store.get(keys.subnet(cidr))
        if entry is None:
            return None
        claim = codec.decode(SubnetClaim, entry.value)
        is_it = claim.hold is not None and claim.network == hold
        return (entry.key, Versioned(claim, entry.version)) if is_it else None

    def _known(self, cidr: Cidr) -> Versioned[SubnetClaim] | None:
        return self._state.subnets.get(keys.subnet(cidr).removeprefix(keys.SUBNETS))


def _may_release(principal: Principal | None, claim: SubnetClaim) -> bool:
    asking = of_host(principal)
    return asking is None or (claim.hold is not None and claim.hold.host == asking.host)


def _cidr(request: HoldRequest) -> Cidr | None:
    """The subnet that is asked for; None if it is to be chosen."""
    require_name(request.host, "/host")
    if request.version not in (None, *DEFAULT_POOLS):
        raise Invalid.field("/version", f"{request.version} is not a version of IP", "4 or 6")
    if request.cidr is None:
        return None
    for name, value in (("pool", request.pool), ("prefix_length", request.prefix_length)):
        if value is not None:
            raise Invalid.field(f"/{name}", "there is nothing to choose: a subnet is given", "leave one of them out")
    cidr = parse_cidr(request.cidr, "/cidr")
    Subnet(cidr)  # what no network could have cannot be held
    if request.version not in (None, cidr.version):
        raise Invalid.field("/cidr", f"{cidr} is not an IPv{request.version} subnet", "correct the one or the other")
    return cidr


def _view(cidr: Cidr, claim: Versioned[SubnetClaim]) -> Hold | None:
    """None: it is a network's."""
    one, hold = claim.value, claim.value.hold
    if hold is None:
        return None
    return Hold(one.network, cidr, hold.host, hold.since, hold.until, one.forced, claim.version)
