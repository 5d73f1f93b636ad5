"""What a check of the invariants finds, and the compare-and-swap writes that put it right where that is safe."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backends.store import Check, Write


class Invariant(StrEnum):
    """What always holds in a healthy store (docs/ipam.md)."""

    NO_OVERLAP = "I1"
    ONE_OWNER_OF_AN_ADDRESS = "I2"
    ONE_OWNER_OF_A_NAME = "I3"
    ENDPOINTS_AND_ADDRESSES_AGREE = "I4"
    ACKNOWLEDGED_SURVIVES = "I5"
    NOTHING_OUTLIVES_ITS_NETWORK = "I6"


class Kind(StrEnum):
    """What an operator calls it (docs/upkeep.md)."""

    DOUBLE = "double"  # something with two owners
    LEAK = "leak"  # something held for nobody, or not held for whom it belongs to
    ORPHAN = "orphan"  # something that outlived its network
    DAMAGE = "damage"  # something lost or unreadable


KINDS = {
    Invariant.NO_OVERLAP: Kind.DOUBLE,
    Invariant.ONE_OWNER_OF_AN_ADDRESS: Kind.DOUBLE,
    Invariant.ONE_OWNER_OF_A_NAME: Kind.DOUBLE,
    Invariant.ENDPOINTS_AND_ADDRESSES_AGREE: Kind.LEAK,
    Invariant.ACKNOWLEDGED_SURVIVES: Kind.DAMAGE,
    Invariant.NOTHING_OUTLIVES_ITS_NETWORK: Kind.ORPHAN,
}


@dataclass(frozen=True, slots=True)
class Repair:
    """One transaction. Its checks name every version that the finding rests on, so it never undoes anything new."""

    checks: tuple[Check, ...]
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation. `fix` is what the repair would do, or, without a repair, what a person can do."""

    invariant: Invariant
    detail: str
    keys: tuple[str, ...]
    fix: str
    repair: Repair | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.invariant]

    @property
    def is_repairable(self) -> bool:
        return self.repair is not None
