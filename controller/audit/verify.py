"""Does the journal fit its seals? Looks at all of it and names everything that does not, the first thing first.

Pure. Says nothing false about what is still to come: entries younger than the last seal are counted, and seals of
revisions that the journal as given does not reach yet are taken for what they are. Order of reading: the journal first,
then the seals, so that what was trimmed in between is explained.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backends.store import Entry
from controller import journal
from controller.audit.seal import Seal, digest, is_intact, journal_in, read
from kvnet import keys

MISDATED_S = 300.0  # more than clocks of controllers that are looked after differ
MAX_TOLD = 20
_HEAD = re.compile(r"(?:(\d{1,12}):)?([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class Misfit:
    """`seal`: the number of the seal that it was found at; 0 if at none."""

    seal: int
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    Attributes:
        misfits: the first at most MAX_TOLD, in the order of the chain.
        checked: seals whose entries were compared; the others' entries are trimmed, or not here yet.
        entries: journal keys that are under a seal that was compared.
        unsealed: those that are younger than the last seal; `unsealed_since`: when the oldest of them was made.
        trimmed: up to which revision nothing is kept.
        begins: why the chain begins where it does; "" if it began with what is trimmed.
        doubtful: entries whose time is long before the seal that they came after.
    """

    misfits: tuple[Misfit, ...]
    first: Seal | None
    last: Seal | None
    checked: int
    entries: int
    unsealed: int
    unsealed_since: float | None
    trimmed: int
    begins: str
    doubtful: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.misfits


def verify(
    sealed: Sequence[Entry],
    written: Sequence[Entry],
    revision: int,
    *,
    head: str = "",
    seen: Mapping[int, str] | None = None,
) -> Verdict:
    """`written`: the journal as of `revision`, its floor included. `head`: "NUMBER:HASH" or a hash that was kept.

    `seen`: hashes by number as a controller saw them when they were made.
    """
    seals = {seal.number: seal for seal in map(read, sealed) if seal is not None}
    chain = [seals[number] for number in sorted(seals)]
    values = {entry.key: entry.value for entry in sealed}
    floor = next((journal.floor(e.value) for e in written if e.key == keys.JOURNAL_FLOOR), 0)
    last = chain[-1] if chain else None
    trimmed = max((seal.trimmed for seal in chain), default=floor)
    found = [Misfit(_number(e.key), f"{e.key} is no seal that can be read") for e in sealed if read(e) is None]
    found += _links(chain, values)
    if last is not None:
        found += _contents(chain, written, revision, trimmed)
        found += _trimming(last, written, floor, trimmed)
    found += _compared(chain, head, seen or {})
    found.sort(key=lambda one: one.seal)
    young = journal_in(written, max(last.revision if last else 0, floor), revision)
    compared = [s for s in chain if trimmed < s.revision <= revision]
    return Verdict(
        misfits=tuple(found[:MAX_TOLD]),
        first=chain[0] if chain else None,
        last=last,
        checked=len(compared),
        entries=sum(seal.count for seal in compared),
        unsealed=len(young),
        unsealed_since=min(filter(None, (journal.moment(e.value) for e in young)), default=None),
        trimmed=max(trimmed, floor),
        begins=next((seal.begins for seal in reversed(chain) if seal.begins), ""),
        doubtful=tuple(_misdated(chain, written))[:MAX_TOLD],
    )


def _number(key: str) -> int:
    text = key.removeprefix(keys.SEALS)
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0


def _links(chain: Sequence[Seal], values: Mapping[str, bytes]) -> Iterator[Misfit]:
    before: Seal | None = None
    for seal in chain:
        if not is_intact(seal, values[keys.seal(seal.number)]):
            yield Misfit(seal.number, f"seal {seal.number} is not as it was made: its own hash does not fit")
        if before is None:
            if not seal.begins and seal.number > chain[-1].anchor:
                yield Misfit(seal.number, f"seals before {seal.number} are missing: {chain[-1].anchor} was to be kept")
        elif seal.number != before.number + 1:
            yield Misfit(seal.number, f"{_range(before.number + 1, seal.number - 1)} missing")
        elif seal.previous != before.hash:
            yield Misfit(seal.number, f"seal {seal.number} does not follow seal {before.number} that is there")
        elif not (before.revision <= seal.revision and before.trimmed <= seal.trimmed and before.anchor <= seal.anchor):
            yield Misfit(seal.number, f"seal {seal.number} goes back behind seal {before.number}")
        elif seal.begins:
            yield Misfit(seal.number, f"seal {seal.number} says that the chain begins there, and seals are before it")
        before = seal


def _range(first: int, last: int) -> str:
    return f"seal {first} is" if first == last else f"seals {first} to {last} are"


def _contents(chain: Sequence[Seal], written: Sequence[Entry], revision: int, trimmed: int) -> Iterator[Misfit]:
    by_revision = sorted((e for e in written if e.key != keys.JOURNAL_FLOOR), key=lambda one: one.version)
    at = 0
    below: Seal | None = None
    for seal in chain:
        above = max(below.revision, trimmed) if below is not None else max(trimmed, seal.trimmed)
        is_whole = bool(seal.begins) if below is None else below.number == seal.number - 1
        below = seal
        while at < len(by_revision) and by_revision[at].version <= above:
            at += 1
        if seal.revision > revision:
            return
        start = at
        while at < len(by_revision) and by_revision[at].version <= seal.revision:
            at += 1
        if seal.revision <= trimmed or not is_whole:
            continue
        there = by_revision[start:at]
        if len(there) != seal.count:
            more = f"{len(there)} entries where {seal.count} were sealed"
            yield Misfit(seal.number, f"the journal has {more}, {_between(above, seal)}: {_told(there)}")
        elif digest(there) != seal.digest:
            yield Misfit(seal.number, f"an entry {_between(above, seal)} is not what was sealed: {_told(there)}")


def _between(above: int, seal: Seal) -> str:
    return f"in the revisions {above + 1} to {seal.revision} of seal {seal.number}"


def _told(entries: Sequence[Entry]) -> str:
    names = ", ".join(entry.key for entry in entries[:3])
    return (names or "none") + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")


def _trimming(last: Seal, written: Sequence[Entry], floor: int, trimmed: int) -> Iterator[Misfit]:
    if floor > trimmed:
        yield Misfit(
            last.number, f"the journal was trimmed up to revision {floor}, and the seals know of {trimmed} only"
        )
    if floor == trimmed and floor:  # else the trimming is under way
        for entry in journal_in(written, 0, floor):
            yield Misfit(0, f"{entry.key} of revision {entry.version} came to what was trimmed before")


def _compared(chain: Sequence[Seal], head: str, seen: Mapping[int, str]) -> Iterator[Misfit]:
    known = {seal.number: seal.hash for seal in chain}
    lowest = chain[-1].anchor if chain else 0
    for number, wanted in sorted(seen.items()):
        if number >= lowest and known.get(number) != wanted:
            what = "is another one than this controller saw" if number in known else "that this controller saw is gone"
            yield Misfit(number, f"seal {number} {what}: the chain was made anew")
    if not head:
        return
    match = _HEAD.match(head)
    number = int(match[1]) if match and match[1] else 0
    if match is None:
        yield Misfit(0, f"{head[:80]!r} is no head: it is NUMBER:HASH, as 'kvnet audit verify' tells it")
    elif number and chain and number < chain[0].number:
        yield Misfit(0, f"the head of seal {number} cannot be compared: kept are those from {chain[0].number} on")
    elif known.get(number) != match[2] if number else match[2] not in known.values():
        yield Misfit(number, "the head that was kept is not in this chain: it was made anew, or the store went back")


def _misdated(chain: Sequence[Seal], written: Sequence[Entry]) -> Iterator[str]:
    """Who has the store may add an entry; it cannot come before the seals that were there."""
    reached = [seal.revision for seal in chain]
    for entry in written:
        made, after = journal.moment(entry.value), bisect_left(reached, entry.version)
        if made is not None and after and made < chain[after - 1].at - MISDATED_S:
            yield entry.key
