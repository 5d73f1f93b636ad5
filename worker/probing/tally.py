"""Counts the probes of one test that a host's tap saw, and where: pure, and bounded by what the test may send.

Counts sequence numbers, not packets: a packet that goes through a bond or a bridge is seen on each device of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datapath.objects import VXLAN_PREFIX
from worker.probing.frames import Kind
from worker.probing.sight import PACKET_OUTGOING, Refusal, Seen

MAX_SEQUENCE = 4096
MAX_REFUSALS = 1024


class Place(NamedTuple):
    """Where on this host a probe between endpoints was seen. `is_full`: of the largest size."""

    device: str
    is_out: bool
    is_reply: bool
    is_full: bool


@dataclass(slots=True)
class Tally:
    """`own`: this host's number in the test. `hosts`, `pairs`: how many there are; what claims more is not counted."""

    session: bytes
    own: int
    hosts: int
    pairs: int
    arrived: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    through: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    left: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    sizes: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    seen: dict[int, dict[Place, set[int]]] = field(default_factory=dict)
    refusals: set[Refusal] = field(default_factory=set)

    def add(self, found: Seen | Refusal, device: str, packet_type: int) -> None:
        if isinstance(found, Refusal):
            if len(self.refusals) < MAX_REFUSALS:
                self.refusals.add(found)
            return
        mark = found.mark
        if mark.session != self.session or mark.source >= self.hosts or mark.sequence >= MAX_SEQUENCE:
            return
        is_out = packet_type == PACKET_OUTGOING
        if mark.kind in (Kind.ECHO, Kind.ECHO_FULL):
            if mark.pair < self.pairs:
                place = Place(device, is_out, found.is_reply, mark.kind is Kind.ECHO_FULL)
                self.seen.setdefault(mark.pair, {}).setdefault(place, set()).add(mark.sequence)
        elif mark.pair < self.hosts:
            self._add_tunnelled(found, device, is_out)

    def _add_tunnelled(self, found: Seen, device: str, is_out: bool) -> None:
        """Between hosts; `pair` is the number of the one that it goes to."""
        mark = found.mark
        if mark.source == self.own:
            if is_out and found.is_outer and mark.kind is Kind.TUNNEL:
                self.left[mark.pair].add(mark.sequence)
        elif mark.pair == self.own and not is_out:
            if not found.is_outer:
                if device.startswith(VXLAN_PREFIX):
                    self.through[mark.source].add(mark.sequence)
            elif mark.kind is Kind.TUNNEL:
                self.arrived[mark.source].add(mark.sequence)
            else:
                self.sizes[mark.source, mark.size].add(mark.sequence)

    def as_json(self) -> dict[str, Any]:
        return {
            "tunnels": [
                {"from": n, "arrived": len(self.arrived[n]), "through": len(self.through[n])}
                for n in sorted({*self.arrived, *self.through})
            ],
            "left": [{"to": n, "count": len(seen)} for n, seen in sorted(self.left.items())],
            "sizes": [
                {"from": n, "size": size, "arrived": len(seen)} for (n, size), seen in sorted(self.sizes.items())
            ],
            "pairs": [
                {"pair": pair, "places": [_place(place, len(seen)) for place, seen in places.items()]}
                for pair, places in sorted(self.seen.items())
            ],
            "refusals": [
                {"to": str(r.target), "by": str(r.by), "mtu": r.mtu, "port": r.is_port}
                for r in sorted(self.refusals, key=str)
            ],
        }


def _place(place: Place, count: int) -> dict[str, Any]:
    return {
        "device": place.device,
        "direction": "out" if place.is_out else "in",
        "reply": place.is_reply,
        "full": place.is_full,
        "count": count,
    }
