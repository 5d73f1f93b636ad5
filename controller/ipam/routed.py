"""Addresses of a routed network: cut into blocks, each of one host, so that one route leads to all of a host's.

Pure, like `addresses`: fed from the mirrors of addresses and blocks, it returns a candidate and the block it needs:
one that the host has, one of its that was about to be given back, or one that nobody has and that the endpoint's own
commit claims (its key must be absent, which is what makes two owners impossible). A block's first address, its gateway
and (IPv4) its last are nobody's. Blocks are equal parts of a subnet, so that they cannot overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from controller.ipam.addresses import AddressHolder, AddressSpace, Candidate
from controller.ipam.grid import Grid
from controller.ipam.window import Fixed, Window
from kvnet import keys
from kvnet.claims import AddressClaim
from kvnet.errors import AddressTaken, BlocksExhausted, BlockTaken, Invalid
from kvnet.model import Address, Block, BlockState, Cidr, Network, Subnet, Versioned

# How many blocks without a free address (reserved, cooling down) are looked at before there is said to be none.
MAX_LOOKED_AT = 64
MAX_NAMED_HOSTS = 8


@dataclass(frozen=True, slots=True)
class BlockUse:
    """The block of an address, as it is when the endpoint is there. `version` None: it is claimed by its commit."""

    block: Block
    version: int | None
    is_written: bool

    @property
    def key(self) -> str:
        return keys.block(self.block.network, self.block.cidr)


class Placed(NamedTuple):
    candidate: Candidate
    use: BlockUse


class NoBlock(Exception):
    """The host's blocks are full, and it is not the caller's turn to claim another."""


class BlockSpace:
    """The addresses and blocks of one routed network, kept in step by `put`, `drop`, `put_block` and `drop_block`."""

    def __init__(self, network: Network, endpoint_name: Callable[[str], str] = lambda endpoint_id: "") -> None:
        self.network = network
        self.plain = AddressSpace(network, endpoint_name)
        self.families, self.windows = self.plain.families, self.plain.windows
        self._grids = {v: [Grid(network, s) for s in network.subnets if s.cidr.version == v] for v in (4, 6)}
        self._blocks: dict[Cidr, Versioned[Block]] = {}
        self._strange: set[Cidr] = set()  # of another size than the grid's: the subnet grew since
        self._windows: dict[Cidr, Window] = {}
        self._claiming: set[Cidr] = set()
        self._cursor: dict[Cidr, int] = {}
        self._newest = float("-inf")
        self._latest = 0.0

    def call_it(self, network: Network) -> None:
        """As `AddressSpace.call_it`."""
        self.network = network
        self.plain.call_it(network)

    @property
    def used(self) -> int:
        return self.plain.used

    @property
    def blocks(self) -> Mapping[Cidr, Versioned[Block]]:
        return self._blocks

    def total(self, family: int) -> int:
        """How many blocks hosts can have."""
        return sum(grid.count for grid in self._grids[family])

    def put(self, address: Address, claim: AddressClaim, version: int) -> None:
        self._latest = max(self._latest, claim.since)
        self.plain.put(address, claim, version)
        if (window := self._window_at(address)) is not None:
            window.put(int(address), claim, version)

    def drop(self, address: Address) -> None:
        self.plain.drop(address)
        if (window := self._window_at(address)) is not None:
            window.drop(int(address), self._latest)

    def put_block(self, block: Block, version: int) -> None:
        known = self._blocks.get(block.cidr)
        if known is not None and known.version >= version:
            return
        self._blocks[block.cidr] = Versioned(block, version)
        self._claiming.discard(block.cidr)
        grid = self._grid_of(block.cidr.network_address)
        if grid is None or grid.length != block.cidr.prefixlen:
            self._strange.add(block.cidr)
        elif block.since >= self._newest:  # the next search goes on from here, so that what was given back rests
            self._newest = block.since
            self._cursor[grid.subnet.cidr] = grid.number_of(block.cidr) + 1

    def drop_block(self, cidr: Cidr) -> None:
        self._blocks.pop(cidr, None)
        self._strange.discard(cidr)

    def choose_for(self, host: str, family: int, now: float, *, skip: int = 0, may_claim: bool = True) -> Placed:
        """Take a free address of a block of this host, or of a new one.

        Raises:
            NoBlock: a block is needed, and `may_claim` is not given.
            BlocksExhausted: a block is needed, and there is none.
        """
        self._latest = max(self._latest, now)
        own = sorted(
            (b for b in self._blocks.values() if b.value.host == host and b.value.cidr.version == family),
            key=lambda b: (b.value.state is not BlockState.ACTIVE, b.value.since, b.value.cidr.network_address),
        )
        for known in own:
            if known.value.state is not BlockState.ACTIVE and not may_claim:
                continue
            placed = self._place(_use(known), now, skip)
            if placed is not None:
                return placed
        if not may_claim:
            raise NoBlock
        for cidr in self._free_blocks(family, skip):
            placed = self._place(BlockUse(Block(self.network.id, cidr, host, now), None, is_written=True), now, skip)
            if placed is not None:
                self._claiming.add(cidr)
                return placed
        raise self._exhausted(family, host)

    def claim_for(
        self, host: str, address: Address, now: float, *, pointer: str, may_claim: bool = True, reuse: bool = False
    ) -> Placed:
        """Take an address that somebody asked for, with its block.

        Raises:
            NoBlock: its block would have to be claimed, and `may_claim` is not given.
            BlockTaken: names the host that has the block.
            AddressTaken, Invalid: as `AddressSpace.claim`.
        """
        self._latest = max(self._latest, now)
        cidr = self._require_inside(address, pointer)
        window = self._window(cidr)
        self._require_usable(window, cidr, address)
        known = self._blocks.get(cidr)
        if known is not None and known.value.host != host:
            raise self._taken(address, known.value)
        use = BlockUse(Block(self.network.id, cidr, host, now), None, is_written=True) if known is None else _use(known)
        if use.is_written and (not may_claim or cidr in self._claiming):
            raise NoBlock
        self.plain.require_free(window, int(address), now, reuse=reuse)
        window.take(int(address))
        if known is None:
            self._claiming.add(cidr)
        return Placed(Candidate(address, window.versions.get(int(address))), use)

    def let_go(self, address: Address) -> None:
        if (window := self._window_at(address)) is not None:
            window.let_go(int(address))

    def let_go_block(self, cidr: Cidr) -> None:
        """The claim was made, or did not come about."""
        self._claiming.discard(cidr)

    def choose(self, family: int, now: float, *, skip: int = 0) -> Candidate:
        """Take a free address of any block."""
        self._latest = max(self._latest, now)
        for cidr in (*(c for c in self._blocks if c.version == family), *self._free_blocks(family, skip)):
            window = self._window(cidr)
            value = window.choose(now, skip)
            if value is not None:
                return Candidate(window.address_class(value), window.versions.get(value))
        return self.plain.choose(family, now, skip=skip)  # refuses, with what is to be said

    def claim(self, address: Address, now: float, *, pointer: str = "/address") -> Candidate:
        """Take this address, whosever block it is in: it is passed over there."""
        cidr = self._require_inside(address, pointer)
        window = self._window(cidr)
        self._require_usable(window, cidr, address)
        self.plain.require_free(window, int(address), now)
        window.take(int(address))
        return Candidate(address, window.versions.get(int(address)))

    def holder_of(self, address: Address, now: float) -> AddressHolder | None:
        cidr = self.block_around(address)
        return None if cidr is None else self.fixed_in(cidr, address) or self.plain.holder_of(address, now)

    def block_around(self, address: Address) -> Cidr | None:
        """The block that an address is in, whether a host has it or not; None outside of the subnets."""
        for cidr in self._strange:
            if cidr.version == address.version and address in cidr:
                return cidr
        grid = self._grid_of(address)
        return None if grid is None else grid.around(address)

    def fixed_in(self, cidr: Cidr, address: Address) -> AddressHolder | None:
        """Why nobody ever gets this address of a block; None if somebody may."""
        reason, _ = self._window(cidr).fixed.get(int(address), (None, ""))
        if reason is None or reason is Fixed.RESERVED:
            return None
        known = self._blocks.get(cidr)
        whose = f", which host {known.value.host} has" if known is not None else ""
        return AddressHolder(f"{_WORDS[reason]} of block {cidr}{whose}", {"kind": reason.name.lower()})

    def _place(self, use: BlockUse, now: float, skip: int) -> Placed | None:
        window = self._window(use.block.cidr)
        value = window.choose(now, skip)
        if value is None:
            return None
        return Placed(Candidate(window.address_class(value), window.versions.get(value)), use)

    def _free_blocks(self, family: int, skip: int) -> Iterator[Cidr]:
        """Those nobody has, going on after the newest."""
        for grid in self._grids[family]:
            start = self._cursor.get(grid.subnet.cidr, 0) + skip
            found = 0
            for offset in range(min(grid.count, len(self._blocks) + len(self._claiming) + MAX_LOOKED_AT)):
                cidr = grid.at((start + offset) % grid.count)
                if cidr not in self._blocks and cidr not in self._claiming and not self._is_strange(cidr):
                    yield cidr
                    found += 1
                    if found >= MAX_LOOKED_AT:
                        break

    def _is_strange(self, cidr: Cidr) -> bool:
        return any(other.version == cidr.version and other.overlaps(cidr) for other in self._strange)

    def _grid_of(self, address: Address) -> Grid | None:
        return next((g for g in self._grids[address.version] if address in g.subnet.cidr), None)

    def _window_at(self, address: Address) -> Window | None:
        cidr = self.block_around(address)
        return None if cidr is None else self._window(cidr)

    def _window(self, cidr: Cidr) -> Window:
        window = self._windows.get(cidr)
        if window is None:
            grid = self._grid_of(cidr.network_address)
            window = self._windows[cidr] = Window(_as_subnet(cidr, grid.subnet if grid is not None else Subnet(cidr)))
        return window

    def _require_inside(self, address: Address, pointer: str) -> Cidr:
        cidr = self.block_around(address)
        if cidr is None:
            subnets = ", ".join(str(s.cidr) for s in self.network.subnets)
            detail = f"{address} is in no subnet of network {self.network.name}"
            raise Invalid.field(pointer, detail, f"choose one in {subnets}")
        return cidr

    def _require_usable(self, window: Window, cidr: Cidr, address: Address) -> None:
        holder = self.fixed_in(cidr, address)
        if holder is not None:
            raise AddressTaken(
                f"{address} of network {self.network.name} is {holder.text}",
                fix="give no address and kvnet picks a free one, or choose another",
                context={"address": str(address), "network": self.network.id, "holder": holder.facts},
            )

    def _taken(self, address: Address, block: Block) -> BlockTaken:
        return BlockTaken(
            f"{address} of network {self.network.name} is in block {block.cidr}, which host {block.host} has",
            fix=f"create the endpoint on {block.host}, or give no address and kvnet picks one of the host's own block",
            context={
                "address": str(address),
                "block": str(block.cidr),
                "host": block.host,
                "network": self.network.id,
            },
        )

    def _exhausted(self, family: int, host: str) -> BlocksExhausted:
        counts = Counter(b.value.host for c, b in self._blocks.items() if c.version == family)
        shown = ", ".join(f"{name} has {n}" for name, n in counts.most_common(MAX_NAMED_HOSTS))
        more = f" and {len(counts) - MAX_NAMED_HOSTS} more hosts" if len(counts) > MAX_NAMED_HOSTS else ""
        total = self.total(family)
        sizes = ", ".join(f"{grid.count} of /{grid.length} in {grid.subnet.cidr}" for grid in self._grids[family])
        return BlocksExhausted(
            f"network {self.network.name} has no free IPv{family} block for host {host}: of {total} ({sizes}) "
            f"all are taken: {shown or 'by nobody, but none has a free address'}{more}",
            fix="remove endpoints there (an empty block is given back after a while), add a subnet to the network, "
            "or create one with smaller blocks (block_prefix_length)",
            context={"network": self.network.id, "family": family, "total": total, "hosts": dict(counts)},
        )


_WORDS = {
    Fixed.NETWORK: "the first address",
    Fixed.BROADCAST: "the last address",
    Fixed.GATEWAY: "the gateway",
    Fixed.RESERVED: "reserved",
}


def _use(known: Versioned[Block]) -> BlockUse:
    """Of a block that the host has; one that is about to be given back is taken back."""
    if known.value.state is BlockState.ACTIVE:
        return BlockUse(known.value, known.version, is_written=False)
    return BlockUse(replace(known.value, state=BlockState.ACTIVE), known.version, is_written=True)


def _as_subnet(cidr: Cidr, subnet: Subnet) -> Subnet:
    """A block as a window understands it: with the host's gateway, and what is reserved in it."""
    first, last = cidr.network_address, cidr.broadcast_address
    fixed = {first, first + 1, *((last,) if cidr.version == 4 else ())}
    reserved = {n: a for n, a in subnet.reserved.items() if a in cidr and a not in fixed}
    span = subnet.range
    if span is not None and (span.prefixlen <= cidr.prefixlen or not span.overlaps(cidr)):
        span = None
    try:
        return Subnet(cidr, first + 1, span, reserved)
    except Invalid:  # the part of the range that is in here has nothing but the gateway
        return Subnet(cidr, first + 1, None, reserved)
