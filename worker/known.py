"""What the reconciler remembers between passes: of every network, of the host as a whole, and of its own doings.

Plain data; who looks when and what is done about it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datapath.objects import HostState, Operation, Scope, Uplink
from kvnet.model import Condition
from worker.ports import Backoff

LONG_AGO = -60.0
PATIENT_REPAIRS = 3
MOST_DOUBLINGS = 16


@dataclass(slots=True)
class Repairs:
    """How often in a row a look for a hint found the same to mend."""

    last: tuple[Operation, ...] = ()
    repeated: int = 0

    def note(self, mended: tuple[Operation, ...]) -> None:
        self.repeated = self.repeated + 1 if mended and mended == self.last else 0
        self.last = mended

    @property
    def doublings(self) -> int:
        return min(max(0, self.repeated - PATIENT_REPAIRS), MOST_DOUBLINGS)


@dataclass(slots=True)
class Known:
    """A network as the last pass left it. `actual`: None = the kernel has to be read before the next plan.

    `scope`: what of the kernel was its, so that it is found again when the network is gone. `uplinks`: as last read.
    `applied_at`: when `version` was reached.
    `look_s`: what the last look at it in the kernel took. `rests_until`: what changes before then is gathered.
    `unknown_since`: since when it lacks a peer that may be told any moment. `is_blocked`: something that is not ours is
    in the way of all of it, so that rules of ours must not name its devices.
    """

    desired: HostState
    backoff: Backoff
    actual: HostState | None = None
    version: int = 0
    applied_at: float = 0.0
    read_at: float = LONG_AGO
    look_s: float = 0.0
    rests_until: float = LONG_AGO
    repairs: Repairs = field(default_factory=Repairs)
    unknown_since: float | None = None
    conditions: tuple[Condition, ...] = ()
    scope: Scope = field(default_factory=Scope)
    uplinks: Mapping[str, Uplink] = field(default_factory=dict)
    is_blocked: bool = False


@dataclass(slots=True)
class HostPart:
    """What concerns the whole host: firewall, gates, settings. `actual`: as of a network's. `wanted`: by the last pass.

    `walls`: what of others stands in our traffic's way, as it was last seen.
    """

    backoff: Backoff
    actual: HostState | None = None
    wanted: HostState | None = None
    read_at: float = LONG_AGO
    look_s: float = 0.0
    repairs: Repairs = field(default_factory=Repairs)
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Statistics:
    passes: int = 0
    operations: int = 0
    failures: int = 0
    last_pass_ms: float = 0.0
    last_full_pass_ms: float = 0.0
    last_full_pass_at: float | None = None  # by the wall clock
