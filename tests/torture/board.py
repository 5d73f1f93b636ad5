"""What the claimants of a storm believe and what they did: a board past the store, and the books of a round.

The board says which addresses are free at which version, as far as anybody was told: a guess, which the store decides
about. The books have what certainly took effect, and the claims of which nobody knows. Never asks the store anything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol

from backends.store import Entry
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from tests.torture.findings import Findings
from tests.torture.ledger import ABSENT, Done, Form, Held

NETWORK = "5a1ad0000001"
FIRST_ADDRESS = IPv4Address("10.64.0.0")
TAKEN, PUZZLING = -1, -2  # instead of a version
RALLIES = 64


class Owner(Protocol):
    """A claimant. `site`: the store client that its commits go through; `mine`: what it owns, and how it lets go."""

    site: int
    mine: list[Release]

    def leaving(self) -> Form: ...


@dataclass(slots=True, eq=False)
class Attempt:
    """One claim of one address. `assumed`: the version that it checks."""

    place: int
    owner: str
    claimant: Owner
    assumed: int
    called: int
    is_contended: bool = False


@dataclass(slots=True, eq=False)
class Release:
    claim: Attempt
    version: int
    leaves: Form
    called: int = 0
    is_doubtful: bool = False  # an answer was lost


@dataclass(slots=True)
class Board:
    """What all claimants believe: per address its version while it is free, or `TAKEN`. And what the round came to."""

    places: int
    clock: Callable[[], int]
    versions: list[int] = field(init=False)
    keys: list[str] = field(init=False)
    wanting: dict[int, list[Attempt]] = field(default_factory=dict)
    rallies: deque[tuple[int, list[int]]] = field(default_factory=lambda: deque(maxlen=RALLIES))
    open: dict[str, Attempt] = field(default_factory=dict)  # owner -> the claim of which nobody knows
    done: list[Done] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.versions = [ABSENT] * self.places
        self.keys = [keys.address(NETWORK, FIRST_ADDRESS + place) for place in range(self.places)]

    def want(self, attempt: Attempt) -> None:
        others = self.wanting.setdefault(attempt.place, [])
        if others:
            attempt.is_contended = True
            for other in others:
                other.is_contended = True
        others.append(attempt)

    def rally(self, site: int) -> list[int]:
        """What a claimant of another site went for just now; each is joined once."""
        for one in reversed(self.rallies):
            if one[0] != site:
                self.rallies.remove(one)
                return one[1]
        return []

    def leave(self, attempt: Attempt) -> bool:
        """Whether nobody else wants the address now."""
        others = self.wanting[attempt.place]
        others.remove(attempt)
        if not others:
            del self.wanting[attempt.place]
        return not others

    def owned(self, attempt: Attempt, revision: int, returned: int) -> None:
        self.versions[attempt.place] = TAKEN
        self.counts["allocations"] += 1
        self.counts["contended"] += attempt.is_contended
        self.done.append(
            Done(
                self.keys[attempt.place],
                attempt.owner,
                Form.OWNER,
                attempt.assumed,
                attempt.called,
                returned,
                revision,
                attempt.claimant.site,
            )
        )
        attempt.claimant.mine.append(Release(attempt, revision, attempt.claimant.leaving()))

    def released(self, one: Release, revision: int | None, returned: int) -> None:
        claim, is_gone = one.claim, one.leaves is Form.NOTHING
        # Where it floats, nobody knows the version of the tombstone; where it is gone, nobody needs to.
        self.versions[claim.place] = ABSENT if is_gone else PUZZLING if revision is None else revision
        self.counts["releases"] += 1
        self.done.append(
            Done(
                self.keys[claim.place],
                claim.owner,
                one.leaves,
                one.version,
                one.called,
                returned,
                revision,
                claim.claimant.site,
            )
        )

    def learn(self, place: int, entry: Entry | None) -> None:
        """What a read showed, which may be old: then somebody is refused and looks again."""
        held = held_of(entry)
        if held.form is not Form.OWNER:
            self.versions[place] = held.version
            return
        self.versions[place] = TAKEN
        if (attempt := self.open.pop(held.owner, None)) is not None:
            self.counts["unknown claims that were made"] += 1
            self.owned(attempt, held.version, self.clock())


def held_of(entry: Entry | None) -> Held:
    if entry is None:
        return Held("", Form.NOTHING, ABSENT)
    claim = codec.decode(AddressClaim, entry.value)
    return Held(claim.holder, Form.OWNER if claim.kind is ClaimKind.ENDPOINT else Form.TOMBSTONE, entry.version)
