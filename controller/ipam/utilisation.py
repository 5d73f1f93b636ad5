"""How full subnets, networks and pools are, for who looks closely; the spaces keep the cheap figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from controller.ipam.addresses import AddressSpace
from controller.ipam.holders import HolderKind
from controller.ipam.subnets import SubnetSpace
from controller.ipam.window import Window
from kvnet.claims import ClaimKind
from kvnet.model import Cidr, Pool


@dataclass(frozen=True, slots=True)
class SubnetFigures:
    """`size` leaves out network address, broadcast address and gateway. `reserved`: by specification or by claim."""

    cidr: Cidr
    size: int
    used: int
    reserved: int
    cooling_down: int
    largest_free: Cidr | None

    @property
    def free(self) -> int:
        return self.size - self.used - self.reserved - self.cooling_down


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """`subnets_used`: subnets of networks inside the pool. `subnets_free`: how many of the pool's length still fit."""

    pool: Pool
    subnets_used: int
    subnets_free: int
    subnets_total: int
    largest_free: Cidr | None


def of_network(space: AddressSpace, now: float) -> tuple[SubnetFigures, ...]:
    """One per subnet, in the network's order."""
    return tuple(_of_window(window, now) for window in space.windows)


def of_pool(space: SubnetSpace, pool: Pool) -> PoolFigures:
    inside = [
        h for h in space.holders_of(pool.cidr) if h.kind in (HolderKind.NETWORK, HolderKind.HOLD, HolderKind.IN_FLIGHT)
    ]
    return PoolFigures(
        pool,
        subnets_used=len({h.cidr for h in inside}),
        subnets_free=space.count_free(pool.cidr, pool.prefix_length),
        subnets_total=1 << (pool.prefix_length - pool.cidr.prefixlen),
        largest_free=space.largest_free(pool.cidr),
    )


def largest_free_block(cidr: Cidr, taken: Iterable[int]) -> Cidr | None:
    """The largest block of `cidr` (the first of that size) without any of the `taken` addresses."""
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    best: tuple[int, int] | None = None  # host bits, start
    gap_start = first
    for address in (*sorted(taken), last + 1):
        found = _largest_aligned(gap_start, address - 1)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
        gap_start = max(gap_start, address + 1)
    if best is None:
        return None
    bits, start = best
    return IPv4Network((start, 32 - bits)) if cidr.version == 4 else IPv6Network((start, 128 - bits))


def _largest_aligned(low: int, high: int) -> tuple[int, int] | None:
    """(host bits, start) of the largest aligned block between two addresses, both included."""
    for bits in range((high - low + 1).bit_length() - 1, -1, -1) if high >= low else ():
        start = -(-low >> bits) << bits
        if start + (1 << bits) - 1 <= high:
            return bits, start
    return None


def _of_window(window: Window, now: float) -> SubnetFigures:
    taken = {a for a, claim in window.claims.items() if not _is_over(claim.kind, claim.until, now)}
    kinds = [window.claims[a].kind for a in taken if a not in window.fixed]
    reserved_by_spec = len(window.subnet.reserved)
    return SubnetFigures(
        window.subnet.cidr,
        window.subnet.size,
        used=kinds.count(ClaimKind.ENDPOINT),
        reserved=kinds.count(ClaimKind.RESERVATION) + reserved_by_spec,
        cooling_down=kinds.count(ClaimKind.TOMBSTONE),
        largest_free=largest_free_block(window.subnet.cidr, taken | window.in_flight.keys() | window.fixed.keys()),
    )


def _is_over(kind: ClaimKind, until: float | None, now: float) -> bool:
    return kind is ClaimKind.TOMBSTONE and (until is None or until <= now)
