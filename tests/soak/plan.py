"""What goes wrong, and when: decided from the seed before a soak begins. Pure.

Two lanes at the same time: what happens to processes, and what happens to the network between them. Within a lane
each fault is over before the next begins, so that its recovery can be measured; across lanes they meet as they
will. Whom a fault hits is a number here, of whoever there is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvnet.errors import Invalid

PROCESSES, NETWORK = "processes", "network"
SESSION_S = 15.0  # a worker's: what is frozen longer has lost it
LOSS = (0.05, 0.30)
DELAY_S = 0.2
JUMPS_S = (-86400.0, -3600.0, -61.0, -5.0, 5.0, 61.0, 3600.0, 86400.0, 366 * 86400.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """`weight`: how often, among those of its lane. `longest_s`: for most; one in eight outlasts a session.

    `needs`: what the site must have for it: "servers" (a store of servers), "disk" (an embedded store on a small disk).
    """

    name: str
    lane: str
    weight: int
    longest_s: float
    needs: str = ""


KINDS = (
    Kind("kill-worker", PROCESSES, 5, 6.0),
    Kind("freeze-worker", PROCESSES, 4, 6.0),
    Kind("kill-controller", PROCESSES, 4, 6.0),
    Kind("freeze-controller", PROCESSES, 3, 6.0),
    Kind("kill-member", PROCESSES, 3, 6.0, "servers"),
    Kind("kill-leader", PROCESSES, 3, 6.0, "servers"),
    Kind("freeze-leader", PROCESSES, 3, 6.0, "servers"),
    Kind("freeze-member", PROCESSES, 2, 6.0, "servers"),
    Kind("kill-all-members", PROCESSES, 1, 3.0, "servers"),
    Kind("clock-of-worker", PROCESSES, 2, 6.0),
    Kind("clock-of-controller", PROCESSES, 2, 6.0),
    Kind("full-store-disk", PROCESSES, 5, 6.0, "disk"),
    Kind("full-state-disk", PROCESSES, 2, 6.0),
    Kind("bad-wire-of-host", NETWORK, 6, 8.0),
    Kind("bad-wire-of-controller", NETWORK, 2, 8.0),
    Kind("bad-wire-of-member", NETWORK, 2, 8.0, "servers"),
    Kind("cut-host-controllers", NETWORK, 4, 8.0),
    Kind("cut-host-controller", NETWORK, 2, 8.0),
    Kind("cut-host-store", NETWORK, 2, 8.0, "servers"),
    Kind("cut-controller-store", NETWORK, 4, 8.0, "servers"),
    Kind("cut-member-members", NETWORK, 3, 8.0, "servers"),
    Kind("cut-leader-members", NETWORK, 3, 8.0, "servers"),
    Kind("cut-leader-clients", NETWORK, 2, 8.0, "servers"),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Fault:
    """Planned: `at` seconds after the beginning, for `seconds`. `more`: the loss, the delay, the jump."""

    number: int
    at: float
    kind: str
    lane: str
    target: int
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        return {"number": self.number, "kind": self.kind, "target": self.target, "seconds": self.seconds, **self.more}


def plan(
    seed: int, seconds: float, abilities: Sequence[str], *, pause: tuple[float, float], kinds: Sequence[str] = ()
) -> list[Fault]:
    """Both lanes, in the order of their beginnings; the same for the same arguments, whatever the machine does.

    Every kind comes once before chance decides, so that a short soak has most of them. `kinds`: only these.
    """
    faults: list[Fault] = []
    for lane in (PROCESSES, NETWORK):
        rng = random.Random(f"{seed} {lane}")
        possible = [k for k in only(kinds) if k.lane == lane and (not k.needs or k.needs in abilities)]
        if possible:
            faults += _lane(rng, seconds, possible, pause)
    faults.sort(key=lambda fault: (fault.at, fault.lane))
    return [_numbered(fault, number) for number, fault in enumerate(faults, 1)]


def _lane(rng: random.Random, seconds: float, kinds: Sequence[Kind], pause: tuple[float, float]) -> list[Fault]:
    first = rng.sample(kinds, len(kinds))
    weights = [kind.weight for kind in kinds]
    faults: list[Fault] = []
    at = rng.uniform(*pause) / 2
    while True:
        kind = first.pop() if first else rng.choices(kinds, weights)[0]
        lasting = rng.uniform(0.3, kind.longest_s)
        if not first and rng.random() < 1 / 8:
            lasting = rng.uniform(SESSION_S, 1.6 * SESSION_S)
        if at + lasting > seconds:
            return faults
        faults.append(
            Fault(0, round(at, 2), kind.name, kind.lane, rng.randrange(1 << 16), round(lasting, 2), _more(rng, kind))
        )
        at += lasting + rng.uniform(*pause)


def _more(rng: random.Random, kind: Kind) -> dict[str, float]:
    if kind.name.startswith("bad-wire"):
        # Both, or one of them: a wire that only loses is another trouble than one that is only slow.
        loses, delays = rng.choice(((True, True), (True, False), (False, True)))
        return {"loss": round(rng.uniform(*LOSS), 3) if loses else 0.0, "delay_s": DELAY_S if delays else 0.0}
    if kind.name.startswith("clock"):
        return {"jump_s": rng.choice(JUMPS_S)}
    return {}


def _numbered(fault: Fault, number: int) -> Fault:
    return Fault(number, fault.at, fault.kind, fault.lane, fault.target, fault.seconds, fault.more)


def only(names: Sequence[str]) -> Sequence[Kind]:
    """Those of these names; all, if none is named.

    Raises:
        Invalid: there is no such kind.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise Invalid(f"there is no fault {unknown[0]!r}", fix=f"one of {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] or KINDS
