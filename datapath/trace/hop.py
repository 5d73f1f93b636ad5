"""A hop of the way, and what is different there. Plain data, and how a hop is put together from comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from datapath.objects import HostState
from datapath.trace.case import Case
from datapath.trace.seen import SeenRepair, Sight


class Verdict(StrEnum):
    OK = "ok"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


class Weight(StrEnum):
    """BREAKS: packets are lost by it. SYMPTOM: so, but for something that is elsewhere. NOTE: not lost by it alone."""

    BREAKS = "breaks"
    SYMPTOM = "symptom"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Difference:
    """`code` is stable, kebab-case. `reason`: why that matters, and what may have done it. `fix`: what to do."""

    code: str
    what: str
    wanted: str
    found: str
    reason: str
    fix: str
    weight: Weight = Weight.BREAKS


@dataclass(frozen=True, slots=True)
class Hop:
    """`kind`: of thing; `name`: which one. `direction`: "there" or "back": where the way meets it first.

    `wanted`, `found`: in words; `found` is "" where nobody could look. `network`: whose it is, "" for the host's.
    """

    host: str
    kind: str
    name: str
    direction: str
    wanted: str
    found: str
    is_known: bool
    differences: tuple[Difference, ...] = ()
    network: str = ""
    repairs: tuple[SeenRepair, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.differences:
            return Verdict.DIFFERS
        return Verdict.OK if self.is_known else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class Side:
    """One host of the case: what it should have, and what it told. `sight` None: nobody could look."""

    case: Case
    host: str
    wanted: HostState
    sight: Sight | None
    direction: str = "there"


@dataclass(slots=True)
class Draft:
    """A hop while its comparisons are made."""

    side: Side
    kind: str
    name: str
    network: str = ""
    wanted: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    is_known: bool = True

    def expect(self, text: str) -> None:
        self.wanted.append(text)

    def see(self, text: str) -> None:
        self.found.append(text)

    def compare(
        self, code: str, what: str, wanted: object, found: object, reason: str, fix: str, weight: Weight = Weight.BREAKS
    ) -> None:
        """Both are told; a difference where they differ."""
        self.expect(f"{what} {wanted}".strip())
        self.see(f"{what} {found}".strip())
        if wanted != found:
            self.differ(code, what, wanted, found, reason, fix, weight)

    def differ(
        self, code: str, what: str, wanted: object, found: object, reason: str, fix: str, weight: Weight = Weight.BREAKS
    ) -> None:
        self.differences.append(Difference(code, what, str(wanted), str(found), reason, fix, weight))

    def hop(self, repairs: tuple[SeenRepair, ...] = ()) -> Hop:
        side = self.side
        is_known = self.is_known and (side.sight is not None or bool(self.differences))
        return Hop(
            side.host,
            self.kind,
            self.name,
            side.direction,
            ", ".join(self.wanted),
            ", ".join(self.found) if is_known else "",
            is_known,
            tuple(self.differences),
            self.network,
            repairs,
        )


def mended(side: Side) -> str:
    """What to do about something of ours that is not as it should be."""
    sight = side.sight
    if sight is None or sight.mode == "here":
        return f"start the worker of {side.host}: it puts this right at once"
    if sight.paused_s:
        return f"repairs are paused for {sight.paused_s:.0f} s more: 'kvnet host resume {side.host}' puts this right"
    if sight.mode != "live" or sight.doubt:
        return f"the worker of {side.host} does not believe the store ({sight.doubt or sight.mode}): see 'kvnet store'"
    return f"the worker of {side.host} puts this right by itself; if it comes again, something else there undoes it"


def updown(is_up: bool) -> str:
    return "up" if is_up else "down"
