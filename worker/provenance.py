"""Whose changes of a network wait to be in the kernel: by the stamps of what the mirrors heard (`kvnet.codec.Stamp`).

Bounded, for it is only there to be told: of very many changes the newest are known, and how many there were. A removal
leaves nothing that could bear a stamp; then the key is known, and the controller's journal knows the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from backends.store import Change, Revision
from kvnet import codec
from kvnet.codec import Stamp

K = TypeVar("K")
MOST = 64


@dataclass(frozen=True, slots=True)
class Brought:
    """`stamps`: of the requests, oldest first, each once. `removed`: names of what went. `more`: how many others there
    were of both. `revision`: of the newest change."""

    stamps: tuple[Stamp, ...] = ()
    removed: tuple[str, ...] = ()
    more: int = 0
    revision: Revision = 0

    @property
    def request_ids(self) -> list[str]:
        return list(dict.fromkeys(stamp.request_id for stamp in self.stamps))


NOTHING = Brought()


class Waiting(NamedTuple):
    """From the first change of a request's that is not in the kernel to its last: a long list takes several commits."""

    first: int
    last: int
    revision: Revision


class Origins:
    """What has changed of one network and is not in the kernel yet. `mark`: how much of it there was at a moment."""

    def __init__(self) -> None:
        self.mark = 0
        self._stamps: dict[Stamp, Waiting] = {}
        self._removed: dict[str, Waiting] = {}
        self._more = 0

    def note(self, changes: Iterable[Change], revision: Revision) -> None:
        """`revision`: up to which the mirror that heard them is."""
        for change in changes:
            if change.entry is None:
                self.removed(change.key.rsplit("/", 1)[-1], revision)
                continue
            stamp = codec.stamp_of(change.entry.value)
            if stamp is not None:
                self.mark += 1
                self._more += _put(self._stamps, stamp, self.mark, change.entry.version)

    def removed(self, name: str, revision: Revision) -> None:
        self.mark += 1
        self._more += _put(self._removed, name, self.mark, revision)

    def take(self, mark: int) -> Brought:
        """What was there at that moment is in the kernel now, and no longer waits."""
        if not self._stamps and not self._removed:
            return NOTHING
        stamps, of_stamps = _taken(self._stamps, mark)
        removed, of_removed = _taken(self._removed, mark)
        more, self._more = self._more, 0
        return Brought(stamps, removed, more, max(of_stamps, of_removed))


def _put(known: dict[K, Waiting], key: K, mark: int, revision: Revision) -> int:
    """Returns how many were given up for it."""
    before = known.pop(key, None)
    known[key] = Waiting(mark if before is None else before.first, mark, revision)
    if len(known) <= MOST:
        return 0
    del known[next(iter(known))]
    return 1


def _taken(known: dict[K, Waiting], mark: int) -> tuple[tuple[K, ...], Revision]:
    """Those of which anything is there with `mark`; what has changed more since then goes on waiting."""
    found = {key: waiting for key, waiting in known.items() if waiting.first <= mark}
    for key, waiting in found.items():
        if waiting.last <= mark:
            del known[key]
        else:
            known[key] = waiting._replace(first=mark + 1)
    newest = max((waiting.revision for waiting in found.values() if waiting.last <= mark), default=0)
    return tuple(sorted(found, key=lambda key: found[key].revision)), newest
