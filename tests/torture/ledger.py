"""Who owned which address from which revision to which: judges a round of the storm exactly. Pure.

Every acknowledged claim and release has the revision that its commit returned, so per address there is one order they
can have had, and it is replayed: what each one checked must have been there just before it. Then every interval of
ownership ends before the next begins, or it is said where not. A release whose answer was lost, and which was refused
when it was repeated, is done at a revision that nobody knows: it *floats* to wherever the next claim needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from tests.torture.findings import Findings

ABSENT = 0  # as a version: the key does not exist


class Form(IntEnum):
    """What stands under an address."""

    NOTHING = 0
    OWNER = 1
    TOMBSTONE = 2


class Held(NamedTuple):
    """For `NOTHING`, the owner is the last one, and the version the last revision that is known of.

    A negative version says: newer than that, a release floated.
    """

    owner: str
    form: Form
    version: int


class Done(NamedTuple):
    """A claim (`leaves` an owner) or release that certainly took effect. `assumed`: the version that it checked.

    `revision` None: it floats. `site`: the store client that sent it.
    """

    address: str
    owner: str
    leaves: Form
    assumed: int
    called: int
    returned: int
    revision: int | None
    site: int

    @property
    def line(self) -> str:
        return " ".join(map(str, self))


@dataclass(frozen=True, slots=True)
class Standing:
    """What is carried from round to round. `newest`: nothing that was asked for after `since` is as old as that."""

    held: Mapping[str, Held] = field(default_factory=dict)
    since: int = -1
    newest: int = 0


def judge(before: Standing, done: Sequence[Done], final: Mapping[str, Held], now: int) -> tuple[Findings, Standing]:
    """`final`: what a list showed after all of `done`, when nothing was under way; `now`: the time before that list."""
    findings = Findings()
    placed = sorted((one for one in done if one.revision is not None), key=attrgetter("revision"))
    newest = _judge_time(before, placed, findings)
    held, owners = _replay(before.held, done, findings)
    _compare(held, final, owners, findings)
    findings.judged.update(events=len(done), addresses=len(final), rounds=1)
    gone = {address: one for address, one in held.items() if address not in final}
    return findings, Standing({**gone, **final}, now, max(before.newest, newest))


def _judge_time(before: Standing, placed: Sequence[Done], findings: Findings) -> int:
    """Revisions agree with real time: what was answered before another was asked for is older. Returns the newest."""
    latest_call = latest_revision = 0
    for revision, together in groupby(placed, key=attrgetter("revision")):
        batch = list(together)
        latest_revision = revision
        latest_call = max(latest_call, *(one.called for one in batch))
        for one in batch:
            if one.called > before.since and revision <= before.newest:
                findings.blame("real-time-order", f"{one}, but {before.newest} was acknowledged a round before")
            if one.returned < latest_call:
                findings.blame("real-time-order", f"{one} is not older than one that was asked for later")
        if any(one.site != batch[0].site for one in batch):
            findings.blame("revision-reused", f"{revision} was told to two clients: {batch[0]}")
    return latest_revision


def _replay(
    held: Mapping[str, Held], done: Sequence[Done], findings: Findings
) -> tuple[dict[str, Held], dict[str, set[str]]]:
    """The state that the events leave, and who ever owned or left what."""
    state = dict(held)
    floating = {(one.address, one.assumed): one for one in done if one.revision is None}
    owners: dict[str, set[str]] = {}
    placed = sorted((one for one in done if one.revision is not None), key=attrgetter("address", "revision"))
    for one in placed:
        before = state.get(one.address)
        if not _holds(before, one.assumed) and before is not None:
            before = _settle(before, one, floating)
        if not _holds(before, one.assumed):
            _blame(one, before, findings)
        assert one.revision is not None
        if before is not None and one.revision <= before.version:
            findings.blame("revision-not-new", f"{one} after {before}")
        state[one.address] = Held(one.owner, one.leaves, one.revision)
        owners.setdefault(one.address, set()).add(one.owner)
    for one in floating.values():
        last = state.get(one.address)
        if last is not None and last.form is Form.OWNER and last.version == one.assumed:
            version = -one.assumed if one.leaves is Form.TOMBSTONE else one.assumed
            state[one.address] = Held(one.owner, one.leaves, version)
    return state, owners


def _holds(held: Held | None, assumed: int) -> bool:
    if held is None or held.form is Form.NOTHING:
        return assumed == ABSENT
    return held.version == assumed


def _settle(held: Held, claim: Done, floating: dict[tuple[str, int], Done]) -> Held:
    """What stood there once a floating release of the owner was done, if that is what the claim found."""
    release = floating.get((claim.address, held.version))
    if release is None or held.form is not Form.OWNER or release.owner != held.owner or claim.returned < release.called:
        return held
    if release.leaves is Form.NOTHING and claim.assumed == ABSENT:
        return Held(held.owner, Form.NOTHING, held.version)
    if release.leaves is Form.TOMBSTONE and held.version < claim.assumed < (claim.revision or 0):
        return Held(held.owner, Form.TOMBSTONE, claim.assumed)
    return held


def _blame(one: Done, before: Held | None, findings: Findings) -> None:
    if one.leaves is not Form.OWNER:
        findings.blame("lost-claim", f"{one} released what was {before}")
    elif before is not None and before.form is Form.OWNER:
        findings.blame("double-owner", f"{one} claimed what was {before}")
    else:
        findings.blame("check-did-not-hold", f"{one} found {before}")


def _compare(
    held: Mapping[str, Held], final: Mapping[str, Held], owners: Mapping[str, set[str]], findings: Findings
) -> None:
    """What is there against what must be there."""
    for address in {*held, *final}:
        expected, found = held.get(address), final.get(address)
        if found is None:
            if expected is not None and expected.form is not Form.NOTHING:
                rule = "lost-claim" if expected.form is Form.OWNER else "lost-release"
                findings.blame(rule, f"{address}: {expected} was acknowledged and is not there")
        elif expected is None or not _is(expected, found):
            known = owners.get(address, set()) | ({expected.owner} if expected is not None else set())
            if expected is not None and expected.form is Form.OWNER and found.owner != expected.owner:
                findings.blame("lost-claim", f"{address}: {expected} was acknowledged; there is {found}")
            rule = "resurrected-owner" if found.owner in known else "invented-owner"
            findings.blame(rule, f"{address}: there is {found}, but acknowledged was {expected}")


def _is(expected: Held, found: Held) -> bool:
    if expected.version < 0:
        return found[:2] == expected[:2] and found.version > -expected.version
    return expected == found


def lines(done: Iterable[Done]) -> Iterator[str]:
    return (one.line + "\n" for one in done)
