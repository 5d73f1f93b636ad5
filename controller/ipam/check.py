"""Verifies invariants I1 to I6 (docs/ipam.md) over everything in the store, as of one revision.

Pure: takes the listing of the whole root, returns what is wrong. A finding that can be put right without a decision
that only a person may take carries the writes for it, checked against everything the finding rests on. Never proposes
to remove a network, or an endpoint whose network is there.
"""

from __future__ import annotations

from collections.abc import Iterable

from backends.store import Entry
from controller.ipam.check_blocks import blocks
from controller.ipam.check_endpoints import claims, endpoints, places, shared_addresses
from controller.ipam.check_networks import holds, indexes, overlaps
from controller.ipam.check_peers import peers
from controller.ipam.check_ports import ports
from controller.ipam.check_survival import survival
from controller.ipam.dump import read
from controller.ipam.findings import Finding

DEFAULT_COOL_DOWN_S = 60.0


def check(entries: Iterable[Entry], now: float, *, cool_down_s: float = DEFAULT_COOL_DOWN_S) -> list[Finding]:
    """All violations, in the order of the invariants; empty for a healthy store.

    `entries` is one listing of the whole root: listings of different moments show violations that never were.
    `cool_down_s`: how long an address rests that a repair releases.
    """
    dump = read(entries)
    found = [
        *overlaps(dump),
        *shared_addresses(dump),
        *indexes(dump),
        *holds(dump, now),
        *endpoints(dump),
        *claims(dump, now, cool_down_s),
        *places(dump),
        *blocks(dump),
        *ports(dump),
        *peers(dump),
        *survival(dump),
    ]
    return sorted(found, key=lambda finding: (finding.invariant, finding.keys))
