"""Who owned what, and when: no address, subnet, name or VNI may have two owners at one moment.

An owner certainly owns from the moment its creation was acknowledged until its release was asked for. Two such
intervals of one thing must not overlap; nor may those of two subnets that overlap. Whoever got no answer owns nothing
for certain. What is certainly owned when everything is quiet must be there; what was certainly released must be gone.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from tests.torture.findings import Findings

SUBNET = "subnet "


@dataclass(slots=True)
class Held:
    owner: str
    since: int
    op: int


@dataclass(slots=True)
class Ownership:
    """Follows `acquire` and `release` lines of a history in the order of their times; goes on from round to round.

    A thing is a string, like `address 3f.../10.0.0.7`, `name net-1`, `subnet 10.0.0.0/24`.
    """

    held: dict[str, Held] = field(default_factory=dict)
    acquired: int = 0
    _ended: set[str] = field(default_factory=set)  # owners whose release was asked for, perhaps before they knew of it
    _blocks: dict[tuple[int, int, int], int] = field(default_factory=dict)  # every block around a held subnet

    def follow(self, lines: Iterable[dict[str, Any]], findings: Findings) -> None:
        for line in sorted(lines, key=lambda line: line["time"]):
            kind, f, op = line["type"], line["f"], line["op"]
            if f == "acquire" and kind == "ok" and line["owner"] in self._ended:
                continue
            if f == "acquire" and kind == "ok":
                for thing in line["value"]:
                    self._take(thing, line["owner"], line["time"], op, findings)
            elif f == "release" and kind == "invoke":
                self._ended.add(line["owner"])
                for thing in line["value"]:
                    self._let_go(thing, line["owner"])
            elif f == "held":
                self._compare(line, findings)
        findings.judged["acquired"] += self.acquired
        self.acquired = 0

    def _take(self, thing: str, owner: str, time: int, op: int, findings: Findings) -> None:
        self.acquired += 1
        other = self.held.get(thing)
        if other is not None and other.owner != owner:
            findings.blame("double-owner", f"{thing}: {other.owner}, and {owner} too", other.op, op)
        elif thing.startswith(SUBNET) and other is None:
            self._take_block(thing, owner, op, findings)
        self.held[thing] = Held(owner, time, op)

    def _take_block(self, thing: str, owner: str, op: int, findings: Findings) -> None:
        around = _around(thing)
        inner = self._blocks.get(around[0])
        outer = next((place for place in around[1:] if _name(place) in self.held), None)
        if inner or outer:
            findings.blame("double-owner", f"{thing} of {owner} overlaps {_name(outer) if outer else 'a part'}", op)
        for place in around:
            self._blocks[place] = self._blocks.get(place, 0) + 1

    def _let_go(self, thing: str, owner: str) -> None:
        held = self.held.get(thing)
        if held is None or held.owner != owner:
            return
        del self.held[thing]
        if thing.startswith(SUBNET):
            for place in _around(thing):
                self._blocks[place] -= 1
                if not self._blocks[place]:
                    del self._blocks[place]

    def _compare(self, line: Mapping[str, Any], findings: Findings) -> None:
        """With what the store says when all is quiet: thing -> owner."""
        there: dict[str, str] = line["value"]
        for thing, held in self.held.items():
            if there.get(thing) != held.owner:
                said = there.get(thing, "nobody")
                findings.blame("lost-ownership", f"{thing} is {held.owner}'s, the store says {said}", held.op)
        for thing, owner in line.get("gone", {}).items():
            if there.get(thing) == owner:
                findings.blame("not-released", f"{thing} was released by {owner} and is still there", line["op"])


def _around(thing: str) -> list[tuple[int, int, int]]:
    """The block itself and every block that contains it: (IP version, prefix length, first bits)."""
    cidr = ip_network(thing.removeprefix(SUBNET))
    number = int(cidr.network_address)
    bits = cidr.max_prefixlen
    return [(cidr.version, n, number >> (bits - n) if n else 0) for n in range(cidr.prefixlen, -1, -1)]


def _name(place: tuple[int, int, int]) -> str:
    version, length, first = place
    bits = 32 if version == 4 else 128
    return f"{SUBNET}{ip_network((first << (bits - length), length))}"
