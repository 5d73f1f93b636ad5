"""A seal: one link of the chain over the journal, which says what had been written up to a revision.

Each holds the hash of the one before, a digest of the journal's keys that came since, and its own hash, so that whoever
changes, removes, adds or reorders something has to make every later seal anew; a head that was kept elsewhere, or seen
by a controller that still runs, then does not fit. Pure. There is no secret in it: who may write the store may make a
chain, but not that one again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isfinite

from backends.store import Entry
from kvnet import codec, keys
from kvnet.errors import StoreBroken

MOST = 2**63
BEGUN = "begun"  # nothing was sealed before
RESTORED = "restored"  # goes on from the head in the backup; what that sealed stayed where it was


@dataclass(frozen=True, slots=True)
class Seal:
    """
    Attributes:
        at: when, by the clock of the replica that made it.
        previous: the hash of the seal before; "" if there is none.
        revision: everything in the journal from the one before up to here is in `digest`.
        count: how many keys those are.
        trimmed: up to this revision kvnet itself takes entries away.
        anchor: the oldest seal that is kept: the last one whose entries are all trimmed.
        begins: why a chain begins here; "" where it goes on.
        hash: of all the rest.
    """

    number: int
    at: float
    previous: str
    revision: int
    count: int
    digest: str
    trimmed: int
    anchor: int
    replica: str
    begins: str = ""
    hash: str = ""

    @property
    def head(self) -> str:
        """What is kept elsewhere to compare with later."""
        return f"{self.number}:{self.hash}"


def sealed(seal: Seal) -> Seal:
    """With its own hash."""
    return replace(seal, hash=_hash(seal))


def is_intact(seal: Seal, value: bytes) -> bool:
    """Whether a stored seal is byte for byte what was made."""
    return seal.hash == _hash(seal) and codec.encode(seal) == value


def read(entry: Entry) -> Seal | None:
    """None: it is not a seal, or not the one that its key says."""
    try:
        seal = codec.decode(Seal, entry.value)
    except StoreBroken:
        return None
    numbers = (seal.number, seal.revision, seal.count, seal.trimmed, seal.anchor)
    texts = (seal.previous, seal.digest, seal.replica, seal.begins, seal.hash)
    is_sane = all(type(one) is int and 0 <= one < MOST for one in numbers) and all(type(one) is str for one in texts)
    is_sane = is_sane and type(seal.at) in (int, float) and isfinite(seal.at)
    return seal if is_sane and keys.seal(seal.number) == entry.key else None


def digest(entries: Iterable[Entry]) -> str:
    """Of the journal's keys, their revisions and what they hold; in whatever order they are given."""
    found = hashlib.sha256()
    for entry in sorted(entries, key=lambda one: one.key):
        found.update(
            f"{entry.key} {entry.version} {hashlib.sha256(entry.value).hexdigest()}\n".encode("utf-8", "surrogatepass")
        )
    return found.hexdigest()


def journal_in(entries: Iterable[Entry], above: int, up_to: int) -> list[Entry]:
    """Those of these revisions; the floor is not an entry."""
    return [e for e in entries if above < e.version <= up_to and e.key != keys.JOURNAL_FLOOR]


def _hash(seal: Seal) -> str:
    return hashlib.sha256(codec.encode(replace(seal, hash=""))).hexdigest()
