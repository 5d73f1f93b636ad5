"""The use cases of pools: the blocks that automatic subnets are cut from.

Pools may not overlap each other: of a free block it must be clear whose it is. Ordered by the subnet guard, as the
networks that are cut from them, so that a pool never vanishes under a choice.
"""

from __future__ import annotations

from backends.store import Absent, Check, Conflict, Delete, Put, Revision, Unchanged, Unknown
from controller.guards import Guard
from controller.journal import Changed
from controller.meant import meant
from controller.outcomes import store_errors_told
from controller.parsing import parse_cidr
from controller.requests import Caller, PoolRequest
from controller.state import State
from controller.views import PoolStatus
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import Invalid, NameTaken, NotFound, PoolInUse, PreconditionFailed, SubnetTaken
from kvnet.model import Pool, Versioned
from kvnet.rules import require_unicast, shown

MAX_RESERVED = 256
MAX_NAMED = 20
SHORTEST_PREFIX = 8


class Pools:
    def __init__(self, state: State, writer: Writer, guard: Guard) -> None:
        self._state = state
        self._writer = writer
        self._guard = guard

    def get(self, name: str) -> PoolStatus:
        """Raises: NotFound."""
        return self._status(self._found(name))

    async def create(self, request: PoolRequest, caller: Caller) -> PoolStatus:
        """
        Raises:
            Invalid: the request itself.
            NameTaken, SubnetTaken: the name or a part of the block is another pool's.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        pool = pool_of(request)
        with store_errors_told():
            created = Versioned(pool, await self._create(pool, caller))
            await self._state.reached(created.version, self._state.pools)
        return self._status(created)

    async def delete(self, name: str, caller: Caller, if_version: int | None = None) -> None:
        """
        Raises:
            NotFound, PreconditionFailed
            PoolInUse: names the networks whose subnets lie in it.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            turns = self._writer.turns(f"pool {shown(name)} could not be deleted")
            while True:
                await turns.next()
                try:
                    async with self._guard.held():
                        revision = await self._try_to_delete(name, caller, if_version)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(revision, self._state.pools)
                return

    async def _create(self, pool: Pool, caller: Caller) -> Revision:
        key, data = keys.pool(pool.name), codec.encode(pool)
        turns = self._writer.turns(f"pool {pool.name!r} could not be created")
        while True:
            await turns.next()
            async with self._guard.held():
                await self._guard.ready()
                known = self._state.pools.get(pool.name)
                if known is not None and known.value == pool:
                    return known.version
                self._refuse_clash(pool, known)
                checks: list[Check] = [self._guard.check, Absent(key)]
                change = Changed("pool.created", key, None, data)
                try:
                    with self._guard.deciding():
                        revision = await self._writer.commit(
                            checks, [self._guard.write, Put(key, data)], caller, change
                        )
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                self._guard.won(revision)
                return revision

    def _refuse_clash(self, pool: Pool, known: Versioned[Pool] | None) -> None:
        if known is not None:
            raise NameTaken(
                f"there is a pool {pool.name!r} already: {known.value.cidr}",
                fix="choose another name, or delete that one first",
                context={"name": pool.name},
            )
        for other in self._state.pools.items.values():
            if other.value.cidr.version == pool.cidr.version and other.value.cidr.overlaps(pool.cidr):
                raise SubnetTaken(
                    f"{pool.cidr} overlaps pool {other.value.name!r} ({other.value.cidr})",
                    fix="choose a block outside it",
                    context={"wanted": str(pool.cidr), "pool": other.value.name},
                )

    async def _try_to_delete(self, name: str, caller: Caller, if_version: int | None) -> Revision:
        await self._guard.ready()
        found = self._found(name)
        pool = found.value
        if if_version is not None and found.version != if_version:
            raise PreconditionFailed(
                f"pool {name!r} has version {found.version}, not {if_version}",
                fix="look at it again and repeat with its version",
                context={"version": found.version},
            )
        users = self._users(pool)
        if users:
            raise PoolInUse(
                f"{len(users)} subnets lie in pool {name!r}: {', '.join(users[:MAX_NAMED])}",
                fix="delete those networks first; 'kvnet network ls' shows them",
                context={"pool": name, "subnets": users[:MAX_NAMED], "total": len(users)},
            )
        key = keys.pool(name)
        with self._guard.deciding():
            revision = await self._writer.commit(
                [self._guard.check, Unchanged(key, found.version)],
                [self._guard.write, Delete(key)],
                caller,
                Changed("pool.deleted", key, codec.encode(pool), None),
            )
        self._guard.won(revision)
        return revision

    def _users(self, pool: Pool) -> list[str]:
        inside = (c for c in self._state.blocks.claims if c.version == pool.cidr.version and c.overlaps(pool.cidr))
        return [str(cidr) for cidr in sorted(inside, key=lambda c: int(c.network_address))]

    def _found(self, name: str) -> Versioned[Pool]:
        found = self._state.pools.get(name)
        if found is None:
            fix = meant(name, self._state.pools.items, "'kvnet pool ls' shows the pools")
            raise NotFound(f"there is no pool {shown(name)}", fix=fix)
        return found

    def _status(self, pool: Versioned[Pool]) -> PoolStatus:
        one = pool.value
        return PoolStatus(
            pool=one,
            version=pool.version,
            subnets_used=len(self._users(one)),
            subnets_total=1 << (one.prefix_length - one.cidr.prefixlen),
            largest_free=self._state.blocks.largest_free(one.cidr),
        )

    def list(self) -> tuple[PoolStatus, ...]:
        """All of them, by name."""
        return tuple(self._status(pool) for _, pool in sorted(self._state.pools.items.items()))


def pool_named(state: State, name: str, family: int, pointer: str) -> Pool:
    """The pool that subnets of that family are cut from. `pointer`: where it was asked for.

    Raises:
        NotFound, Invalid
    """
    found = state.pools.get(name)
    if found is None:
        raise NotFound(f"there is no pool {name!r}", fix="'kvnet pool ls' shows the pools; or give subnets yourself")
    if found.value.cidr.version != family:
        raise Invalid.field(pointer, f"pool {name!r} has no IPv{family} addresses")
    return found.value


def require_length(pool: Pool, length: int | None) -> None:
    """Raises: Invalid."""
    longest = pool.cidr.max_prefixlen - 2
    if length is not None and not pool.cidr.prefixlen <= length <= longest:
        raise Invalid.field(
            "/prefix_length",
            f"subnets of /{length} cannot be cut from pool {pool.name!r} ({pool.cidr})",
            f"{pool.cidr.prefixlen} to {longest}",
        )


def pool_of(request: PoolRequest) -> Pool:
    """
    Raises:
        Invalid
    """
    if len(request.reserved) > MAX_RESERVED:
        raise Invalid.field("/reserved", f"{len(request.reserved)} reserved parts; at most {MAX_RESERVED}")
    cidr = parse_cidr(request.cidr, "/cidr")
    if cidr.prefixlen < SHORTEST_PREFIX:
        raise Invalid.field("/cidr", f"{cidr} is too wide for a pool", f"choose /{SHORTEST_PREFIX} or smaller")
    require_unicast(cidr, "/cidr")
    reserved = tuple(parse_cidr(text, f"/reserved/{i}") for i, text in enumerate(request.reserved))
    return Pool(request.name, cidr, request.prefix_length, reserved)
