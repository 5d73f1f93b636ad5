"""The journal's bytes: what a change leaves behind, spliced from JSON that is stored anyway and never encoded twice.

One key per committed batch: `{"v":1,"n":2,"entries":[<JournalEntry>,...]}`; `n` stands before the entries so that who
bounds the journal need not parse it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from backends.store import Put, Write
from controller.requests import Caller
from kvnet import codec, keys
from kvnet.model import JournalEntry

MAX_ID = 64
MAX_KEPT = 16_384  # bytes of a value that did not come from a use case
_quoted = json.encoder.encode_basestring
_FLOOR = re.compile(rb'\{"v":1,"trimmed":(\d+)\}')
_MOMENT = re.compile(rb'\{"v":1,"n":\d+,"entries":\[\{"at":(\d+(?:\.\d+)?(?:e[+-]?\d+)?),')
_COUNTED = re.compile(rb'\{"v":1,"n":(\d+),')


class Changed(NamedTuple):
    """One object's change; `before` and `after` are its stored bytes."""

    kind: str
    key: str
    before: bytes | None
    after: bytes | None


def note(at: float, caller: Caller, *changes: Changed) -> bytes:
    """A JournalEntry as the committer takes it along."""
    parts = b",".join(
        b'{"kind":"%b","key":"%b","before":%b,"after":%b}'
        % (c.kind.encode(), c.key.encode(), c.before or b"null", c.after or b"null")
        for c in changes
    )
    return b'%b,"changes":[%b]}' % (_head(at, caller), parts)


def kept_of(value: bytes) -> bytes:
    """A stored value that may be anything, as JSON that may stand in an entry: itself, or how long it was."""
    try:
        if len(value) <= MAX_KEPT:
            # In UTF-8 alone, and written anew: readers differ in what else they take for JSON.
            return json.dumps(json.loads(value.decode()), separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        if value.isascii() and len(value) <= MAX_ID:  # what indexes hold: a bare id
            return json.dumps(value.decode()).encode()
    return b'"(%d bytes)"' % len(value)


@lru_cache(maxsize=64)
def _head(at: float, caller: Caller) -> bytes:
    """The same for every endpoint of a list."""
    who = f'"actor":{_quoted(caller.actor)},"request_id":{_quoted(caller.request_id)},"source":{_quoted(caller.source)}'
    claimed = f',"claimed":{_quoted(caller.claimed)}' if caller.claimed else ""
    return f'{{"at":{at!r},{who}{claimed}'.encode()


def sealer(now: Callable[[], float], rng: random.Random) -> Callable[[Sequence[bytes]], Sequence[Write]]:
    """What the committer calls with the notes of a batch: the one key that keeps them."""

    def seal(notes: Sequence[bytes]) -> Sequence[Write]:
        if not notes:
            return ()
        value = b'{"v":1,"n":%d,"entries":[%b]}' % (len(notes), b",".join(notes))
        return (Put(keys.journal(now(), f"{rng.getrandbits(48):012x}"), value),)

    return seal


def count(value: bytes) -> int:
    """How many entries a journal key holds; 1 for one that is not ours."""
    head = _COUNTED.match(value)
    return int(head[1]) if head else 1


def moment(value: bytes) -> float | None:
    """When the first of its entries was made; None for one that is not ours. Costs no parsing."""
    found = _MOMENT.match(value)
    return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class _Sealed:
    entries: tuple[JournalEntry, ...]


def entries(value: bytes) -> tuple[JournalEntry, ...]:
    """Raises: StoreBroken if it cannot be read."""
    return codec.decode(_Sealed, value).entries


def floor_value(revision: int) -> bytes:
    return b'{"v":1,"trimmed":%d}' % revision


def floor(value: bytes) -> int:
    """The revision in a floor key; 0 for one that is not ours."""
    found = _FLOOR.match(value)
    return int(found[1]) if found else 0
