"""Why a pool has no room: what blocks it, what is left, and what to do. Looks at everything; called only to refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controller.ipam.holders import Holder, HolderKind
from kvnet.errors import SubnetsExhausted
from kvnet.model import Cidr, Pool

MAX_EXAMPLES = 5
PLURALS = {
    HolderKind.NETWORK: ("network", "networks"),
    HolderKind.HOLD: ("held subnet", "held subnets"),
    HolderKind.IN_FLIGHT: ("network in creation", "networks in creation"),
    HolderKind.HOST: ("range that hosts use", "ranges that hosts use"),
    HolderKind.RESERVATION: ("reservation", "reservations"),
}


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool that was tried: everything that overlaps it (widest first), and the largest free block."""

    pool: Pool
    prefix_length: int
    blockers: tuple[Holder, ...]
    largest_free: Cidr | None

    @property
    def total(self) -> int:
        return 1 << max(0, self.prefix_length - self.pool.cidr.prefixlen)

    @property
    def is_too_small(self) -> bool:
        return self.prefix_length < self.pool.cidr.prefixlen

    @property
    def is_too_fine(self) -> bool:
        return self.prefix_length > self.pool.cidr.max_prefixlen - 2

    @property
    def cover(self) -> Holder | None:
        """What contains the entire pool, if anything does."""
        return next((h for h in self.blockers if h.cidr.prefixlen <= self.pool.cidr.prefixlen), None)

    @property
    def examples(self) -> tuple[Holder, ...]:
        """The first of every kind, then the next ones: sixteen thousand networks must not hide the one VPN."""
        first: dict[HolderKind, Holder] = {}
        for holder in self.blockers:
            first.setdefault(holder.kind, holder)
        return tuple(dict.fromkeys((*first.values(), *self.blockers[:MAX_EXAMPLES])))[:MAX_EXAMPLES]


def subnets_exhausted(states: Sequence[PoolState], name_of: Callable[[str], str]) -> SubnetsExhausted:
    """The error that names every pool tried, what is in the way in each, and the cheapest ways out."""
    if not states:
        return SubnetsExhausted(
            "there is no pool to cut a subnet from",
            fix="give the network a subnet with --subnet, or make a pool: 'kvnet pool create NAME CIDR'",
            context={"pools": []},
        )
    return SubnetsExhausted(
        "; ".join(_sentence(state, name_of) for state in states),
        fix="; or ".join(_fixes(states)[:3]),
        context={"pools": [_facts(state, name_of) for state in states]},
    )


def _sentence(state: PoolState, name_of: Callable[[str], str]) -> str:
    pool = state.pool
    if state.is_too_small:
        return f"pool {pool.name} ({pool.cidr}) is smaller than a /{state.prefix_length}"
    if state.is_too_fine:
        return f"pool {pool.name} ({pool.cidr}): a /{state.prefix_length} has no room for a gateway and an endpoint"
    if state.cover is not None:
        return f"pool {pool.name} ({pool.cidr}) lies entirely within {state.cover.describe(name_of(state.cover.name))}"
    counts = Counter(h.kind for h in state.blockers)
    parts = ", ".join(f"{n} {PLURALS[kind][n > 1]}" for kind, n in counts.items())
    shown = ", ".join(h.describe(name_of(h.name)) for h in state.examples)
    more = f" and {len(state.blockers) - MAX_EXAMPLES} more" if len(state.blockers) > MAX_EXAMPLES else ""
    left = f"the largest free block is {state.largest_free}" if state.largest_free else "nothing is free"
    return (
        f"pool {pool.name} ({pool.cidr}) has no free /{state.prefix_length}: all {state.total} are blocked "
        f"by {parts} ({shown}{more}); {left}"
    )


def _facts(state: PoolState, name_of: Callable[[str], str]) -> dict[str, Any]:
    named = [(holder, name_of(holder.name)) for holder in state.examples]
    return {
        "pool": state.pool.name,
        "cidr": str(state.pool.cidr),
        "prefix_length": state.prefix_length,
        "total": state.total,
        "used": 0 if state.is_too_small or state.is_too_fine else state.total,
        "blockers": {kind.value: n for kind, n in Counter(h.kind for h in state.blockers).items()},
        "examples": [{**h.facts(name), "detail": h.describe(name)} for h, name in named],
        "largest_free": str(state.largest_free) if state.largest_free else None,
    }


def _fixes(states: Sequence[PoolState]) -> list[str]:
    """Cheapest first: a flag, then cleaning up, then a new pool."""
    fixes: list[str] = []
    free = [s.largest_free for s in states if s.largest_free is not None and s.pool.cidr.version == 4]
    if free:  # the size of an IPv6 subnet is its pool's
        widest = min(free, key=lambda c: c.prefixlen)
        fixes.append(f"ask for a smaller subnet: 'kvnet network create --prefix-length {widest.prefixlen}'")
    if any(h.kind is HolderKind.NETWORK for s in states for h in s.blockers):
        fixes.append("remove networks without endpoints: 'kvnet network prune'")
    hosts = sorted({h.name for s in states for h in s.blockers if h.kind is HolderKind.HOST})
    fixes.append("make a pool elsewhere: 'kvnet pool create NAME CIDR', and create with '--pool NAME'")
    if hosts:
        fixes.append(f"remove the routes on {', '.join(hosts[:3])} if they are stale ('kvnet host inspect {hosts[0]}')")
    fixes.append(
        "give a subnet yourself: 'kvnet network create --subnet CIDR' (--force accepts an overlap with a host)"
    )
    return fixes
