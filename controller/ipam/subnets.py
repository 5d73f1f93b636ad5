"""Chooses subnets for new networks, and says what stands in the way of one.

Pure: fed from the mirrors of `subnets/`, `inventory/` and `pools/`, it returns a choice or the reasons against every
candidate. The claim itself is made by the transaction of the use case, ordered by the guard; a choice that lost the
race is simply made again. Never looks at the store or the clock, and never gives a subnet that overlaps anything known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from controller.ipam.blocks import Blocks, FreeTree, cidr_of, node_of
from controller.ipam.explain import PoolState, subnets_exhausted
from controller.ipam.holders import Holder, HolderKind
from kvnet.claims import SubnetClaim
from kvnet.errors import SubnetsExhausted, SubnetTaken
from kvnet.model import Cidr, Inventory, Pool, Versioned

MAX_EXAMPLES = 5
# VPN clients split the default route in halves (IPv4) or down to 2000::/3 (IPv6): still a default route.
DEFAULT_ROUTE_LENGTHS = {4: 1, 6: 3}


def counts_as_used(cidr: Cidr) -> bool:
    """Whether a range that a host reports may keep a network away: default routes and link-local may not."""
    if cidr.prefixlen <= DEFAULT_ROUTE_LENGTHS[cidr.version]:
        return False
    return not (cidr.is_link_local or cidr.is_loopback or cidr.is_multicast)


class _Family:
    """Everything known of IPv4, or of IPv6."""

    def __init__(self, width: int) -> None:
        self.tree = FreeTree(width)
        self.blocks: Blocks[Holder] = Blocks(width)

    def add(self, holder: Holder) -> None:
        self.blocks.add(holder.cidr, holder)
        self.tree.cover(node_of(holder.cidr))

    def remove(self, holder: Holder) -> None:
        self.blocks.remove(holder.cidr, holder)
        self.tree.uncover(node_of(holder.cidr))


class SubnetSpace:
    """All claims on address blocks, kept in step by the `put_` and `drop_` methods, which may be called twice.

    `name_of` tells a network's name from its id ("" when unknown); only used in messages.
    """

    def __init__(self, name_of: Callable[[str], str] = lambda network_id: "") -> None:
        self._name_of = name_of
        self._families = {4: _Family(32), 6: _Family(128)}
        self._claims: dict[Cidr, Holder] = {}
        self._hold_of: dict[str, Cidr] = {}
        self._in_flight: dict[Cidr, Holder] = {}
        self._hosts: dict[str, frozenset[Holder]] = {}
        self._pools: dict[str, Pool] = {}
        self._cursors: dict[str, tuple[Cidr, int]] = {}

    @property
    def pools(self) -> Mapping[str, Pool]:
        return self._pools

    @property
    def claims(self) -> Mapping[Cidr, Holder]:
        """The subnets of networks and holds, as far as the mirror has told."""
        return self._claims

    def held_by(self, hold: str) -> Cidr | None:
        """The subnet of that hold."""
        return self._hold_of.get(hold)

    def put_claim(self, cidr: Cidr, claim: SubnetClaim) -> None:
        """From `subnets/`."""
        self.drop_claim(cidr)
        if claim.hold is None:
            self._keep(Holder(HolderKind.NETWORK, cidr, claim.network))
        else:
            self._keep(Holder(HolderKind.HOLD, cidr, claim.network, claim.hold.host))

    def drop_claim(self, cidr: Cidr) -> None:
        if holder := self._claims.pop(cidr, None):
            self._remove(holder)
            if self._hold_of.get(holder.name) == cidr:
                del self._hold_of[holder.name]

    def put_inventory(self, inventory: Inventory) -> None:
        """From `inventory/`."""
        new = frozenset(
            Holder(HolderKind.HOST, used.cidr, inventory.host, used.source)
            for used in inventory.used
            if counts_as_used(used.cidr)
        )
        self._exchange(self._hosts.get(inventory.host, frozenset()), new)
        self._hosts[inventory.host] = new

    def drop_inventory(self, host: str) -> None:
        self._exchange(self._hosts.pop(host, frozenset()), frozenset())

    def put_pool(self, pool: Pool) -> None:
        """From `pools/`. What any pool reserves is kept away from all."""
        old = self._pools.get(pool.name)
        self._exchange(_reservations(old), _reservations(pool))
        self._pools[pool.name] = pool

    def drop_pool(self, name: str) -> None:
        self._exchange(_reservations(self._pools.pop(name, None)), frozenset())
        self._cursors.pop(name, None)

    def aside(
        self,
        inventories: Mapping[str, Versioned[Inventory]],
        pools: Mapping[str, Versioned[Pool]],
    ) -> SubnetSpace:
        """Another one of the same, from the same mirrors: what is chosen there is not kept from anybody here."""
        other = SubnetSpace(self._name_of)
        for holder in self._claims.values():
            other._keep(holder)
        for inventory in inventories.values():
            other.put_inventory(inventory.value)
        for pool in pools.values():
            other.put_pool(pool.value)
        other._cursors = dict(self._cursors)
        return other

    def take(self, cidr: Cidr, owner: str) -> None:
        """Keep others away while the claim is on its way. Always followed by `let_go`, whatever came of it.

        `owner`: id of the network or hold.
        """
        if cidr not in self._in_flight:
            self._in_flight[cidr] = self._add(Holder(HolderKind.IN_FLIGHT, cidr, owner))

    def let_go(self, cidr: Cidr) -> None:
        """The claim is in the mirror, or did not come about. Calling it twice is no error."""
        if holder := self._in_flight.pop(cidr, None):
            self._remove(holder)

    def choose(self, pools: Sequence[Pool], prefix_length: int | None = None) -> Cidr:
        """The next free block of the first pool that has one; `prefix_length` defaults to each pool's own.

        Next-fit: it continues after the last choice and wraps, so that what was just freed rests for a while.

        Raises:
            SubnetsExhausted: no pool has room; says what blocks each and what to do.
        """
        for pool in pools:
            length = pool.prefix_length if prefix_length is None else prefix_length
            family = self._families[pool.cidr.version]
            if not pool.cidr.prefixlen <= length <= pool.cidr.max_prefixlen - 2:
                continue
            node = self._next_fit(family, pool, length)
            if node is not None:
                found = cidr_of(node, family.tree.width)
                self._cursors[pool.name] = (pool.cidr, int(found.broadcast_address) + 1)
                return found
        raise self._exhausted(pools, prefix_length)

    def refuse_overlap(self, cidr: Cidr, *, force: bool = False, uplink: str = "", own: Cidr | None = None) -> str:
        """Make sure that an explicit subnet overlaps nothing; "" if so.

        With `force`, overlaps with what hosts use are accepted: the returned text is the reason to record. `uplink`:
        of a transparent network, whose subnet is the one that hosts have there. `own`: a subnet that is to grow, or
        is held for this.

        Raises:
            SubnetTaken: names the holder: a network, a reservation, or (without `force`) a host and its route.
        """
        found = (holder for holder in self.holders_of(cidr) if holder.kind is HolderKind.HOST or holder.cidr != own)
        in_the_way = [holder for holder in found if not (uplink and _is_on(holder, uplink))]
        hard = [h for h in in_the_way if h.kind is not HolderKind.HOST]
        if hard or (in_the_way and not force):
            raise self._taken(cidr, hard or in_the_way, in_the_way)
        return "; ".join(f"overlaps {self.describe(h)}" for h in in_the_way[:MAX_EXAMPLES])

    def holders_of(self, cidr: Cidr) -> Iterator[Holder]:
        """Everything that overlaps `cidr`, the widest first."""
        return self._families[cidr.version].blocks.overlapping(cidr)

    def largest_free(self, within: Cidr) -> Cidr | None:
        """The largest free block inside `within` (the first of that size)."""
        tree = self._families[within.version].tree
        length = tree.largest_free(node_of(within))
        node = None if length is None else tree.first_free(node_of(within), length)
        return None if node is None else cidr_of(node, tree.width)

    def count_free(self, within: Cidr, prefix_length: int) -> int:
        """How many subnets of that length could still be cut from `within`."""
        return self._families[within.version].tree.count_free(node_of(within), prefix_length)

    def describe(self, holder: Holder) -> str:
        return holder.describe(self._name_of(holder.name))

    def _keep(self, holder: Holder) -> None:
        self._claims[holder.cidr] = self._add(holder)
        if holder.kind is HolderKind.HOLD:
            self._hold_of[holder.name] = holder.cidr

    def _add(self, holder: Holder) -> Holder:
        self._families[holder.cidr.version].add(holder)
        return holder

    def _remove(self, holder: Holder) -> None:
        self._families[holder.cidr.version].remove(holder)

    def _exchange(self, old: frozenset[Holder], new: frozenset[Holder]) -> None:
        for holder in old - new:
            self._remove(holder)
        for holder in new - old:
            self._add(holder)

    def _next_fit(self, family: _Family, pool: Pool, length: int) -> int | None:
        within = node_of(pool.cidr)
        cut_from, cursor = self._cursors.get(pool.name, (None, 0))
        if cut_from != pool.cidr:  # a new process, or a pool that was made anew: go on after the last subnet there
            cursor = self._end_of_last_claim(pool.cidr)
        found = family.tree.first_free(within, length, cursor)
        return family.tree.first_free(within, length) if found is None else found

    def _end_of_last_claim(self, within: Cidr) -> int:
        start, end = int(within.network_address), int(within.broadcast_address)
        ends = (int(c.broadcast_address) + 1 for c in self._claims if c.version == within.version)
        return max((e for e in ends if start < e <= end), default=start)

    def _taken(self, wanted: Cidr, named: Sequence[Holder], all_of_them: Sequence[Holder]) -> SubnetTaken:
        more = f" (and {len(all_of_them) - 1} more)" if len(all_of_them) > 1 else ""
        only_hosts = all(h.kind is HolderKind.HOST for h in all_of_them)
        force = ", or accept the overlap with --force" if only_hosts else ""
        wait = ", or wait a minute: a hold ends then" if named[0].kind is HolderKind.HOLD else ""
        return SubnetTaken(
            f"{wanted} overlaps {self.describe(named[0])}{more}",
            fix=f"choose another subnet, or give none and kvnet picks a free one{force}{wait}; "
            f"'kvnet ipam show {wanted}' lists what is there",
            context={
                **self._owner(named[0]),
                "wanted": str(wanted),
                "holders": [h.facts(self._name_of(h.name)) for h in all_of_them[:MAX_EXAMPLES]],
                "can_be_forced": only_hosts,
            },
        )

    def _owner(self, holder: Holder) -> dict[str, object]:
        """Whose it is, so that a program can follow it: `network` is "" where none has it (yet)."""
        is_held = holder.kind in (HolderKind.HOLD, HolderKind.IN_FLIGHT)
        network = holder.name if holder.kind is HolderKind.NETWORK else ""
        host = {HolderKind.HOST: holder.name, HolderKind.HOLD: holder.source}.get(holder.kind, "")
        return {
            "network": network,
            "name": self._name_of(network) if network else "",
            "hold": is_held,
            "host": host,
            "cidr": str(holder.cidr),
        }

    def _exhausted(self, pools: Sequence[Pool], prefix_length: int | None) -> SubnetsExhausted:
        return subnets_exhausted([self._state(pool, prefix_length) for pool in pools], self._name_of)

    def _state(self, pool: Pool, prefix_length: int | None) -> PoolState:
        return PoolState(
            pool,
            pool.prefix_length if prefix_length is None else prefix_length,
            tuple(self.holders_of(pool.cidr)),
            self.largest_free(pool.cidr),
        )


def _is_on(holder: Holder, uplink: str) -> bool:
    """Whether a host has it on that link. Resolvers and gateways of the physical network are expected in it."""
    return holder.kind is HolderKind.HOST and (holder.source.endswith(f" dev {uplink}") or holder.source == "resolver")


def _reservations(pool: Pool | None) -> frozenset[Holder]:
    if pool is None:
        return frozenset()
    return frozenset(Holder(HolderKind.RESERVATION, part, pool.name) for part in pool.reserved)
