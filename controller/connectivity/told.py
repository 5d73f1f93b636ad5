"""What workers tell of a test, read with care: a worker may be of another version, or wrong.

Pure. What is missing counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Introduction:
    """Of a host that listens. `vnis`: of the segments that its tunnels have; `attached`: ids of endpoints."""

    vnis: tuple[int, ...] = ()
    attached: frozenset[str] = frozenset()

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Introduction:
        return cls(tuple(told.get("vnis", ())), frozenset(told.get("attached", ())))


@dataclass(slots=True)
class Sent:
    """What a host sent to another, over all rounds. `silent_hop`: the next machine there, if it does not answer."""

    small: int = 0
    sized: dict[int, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    echoes: int = 0
    rtt_ms: list[float] = field(default_factory=list)
    silent_hop: str = ""

    def add(self, told: Mapping[str, Any]) -> None:
        self.small += told.get("small", 0)
        for one in told.get("sized", ()):
            self.sized[one["size"]] = self.sized.get(one["size"], 0) + one["sent"]
        self.errors |= {one["code"]: one["detail"] for one in told.get("errors", ())}
        self.echoes += told.get("echoes", 0)
        self.rtt_ms += told.get("rtt_ms", ())
        self.silent_hop = told.get("silent_hop", "") or self.silent_hop


@dataclass(frozen=True, slots=True)
class Refused:
    """`by`: who says that packets to `target` go no further. `mtu`: what would; 0 = another reason."""

    target: str
    by: str
    mtu: int
    is_port: bool


@dataclass(frozen=True, slots=True)
class Place:
    device: str
    is_out: bool
    is_reply: bool
    is_full: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What a host's tap counted; by the other host's number, and for endpoints by pair."""

    arrived: Mapping[int, int] = field(default_factory=dict)
    through: Mapping[int, int] = field(default_factory=dict)
    left: Mapping[int, int] = field(default_factory=dict)
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    pairs: Mapping[int, frozenset[Place]] = field(default_factory=dict)
    refusals: tuple[Refused, ...] = ()
    missed: int = 0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Watched:
        tunnels = told.get("tunnels", ())
        return cls(
            arrived={one["from"]: one["arrived"] for one in tunnels},
            through={one["from"]: one["through"] for one in tunnels},
            left={one["to"]: one["count"] for one in told.get("left", ())},
            sizes={(one["from"], one["size"]): one["arrived"] for one in told.get("sizes", ())},
            pairs={one["pair"]: frozenset(map(_place, one["places"])) for one in told.get("pairs", ())},
            refusals=tuple(_refused(told.get("refusals", ()))),
            missed=told.get("missed", 0),
        )

    def refusals_of(self, address: str) -> tuple[Refused, ...]:
        return tuple(refused for refused in self.refusals if refused.target == address)

    def sizes_from(self, number: int) -> set[int]:
        return {size for (source, size), count in self.sizes.items() if source == number and count}


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking one endpoint from another; see `worker.probing.inside`."""

    sent: int = 0
    rtt_ms: tuple[float, ...] = ()
    full_sent: int = 0
    full_answered: int = 0
    full: int = 0
    neighbour: bool | None = None
    error: str = ""
    detail: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Asked:
        return cls(
            told.get("sent", 0),
            tuple(told.get("rtt_ms", ())),
            told.get("full_sent", 0),
            told.get("full_answered", 0),
            told.get("full", 0),
            told.get("neighbour"),
            told.get("error", ""),
            told.get("detail", ""),
        )


def _place(told: Mapping[str, Any]) -> Place:
    return Place(told["device"], told["direction"] == "out", told["reply"], told["full"])


def _refused(told: Iterable[Mapping[str, Any]]) -> list[Refused]:
    return [Refused(one["to"], one["by"], one["mtu"], one["port"]) for one in told]
