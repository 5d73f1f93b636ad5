"""What rules of other programs make of the pair's packets where these meet them."""

from __future__ import annotations

from collections.abc import Sequence

from datapath.rules import walk
from datapath.rules.ruleset import Chain, Packet
from datapath.trace.seen import Crossing, SeenDrop

LONGEST_TEXT = 300  # of a rule that is told


def drops(crossing: Crossing, chains: Sequence[Chain], mark: int = 0) -> list[SeenDrop]:
    """Of every base chain on the packet's hook: a certain drop, or the first possible one.

    `mark`: what it bears from kvnet's own chain on.
    """
    found = walk.drops(_packet(crossing), crossing.layer, crossing.hook, chains, mark)
    return [
        SeenDrop(
            crossing.name, drop.base.family, _table(drop.base), drop.chain, drop.rule[:LONGEST_TEXT], drop.is_certain
        )
        for drop in found
    ]


def _table(base: Chain) -> str:
    """So that people know where to look."""
    return f"{base.table} (iptables-legacy)" if base.is_legacy else base.table


def _packet(crossing: Crossing) -> Packet:
    return Packet(
        6 if ":" in crossing.destination else 4,
        crossing.protocol,
        crossing.source,
        crossing.destination,
        crossing.port,
        crossing.device_in,
        crossing.device_out,
        crossing.source_mac,
        crossing.destination_mac,
        crossing.mark,
        crossing.state,
    )
