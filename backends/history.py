"""What changed lately, so that a watch can resume without a trip to the server.

Keeps the latest change of each key, in the order of revisions: what a watch that resumes is told is the net difference.
Bounded in keys and in bytes: a key whose state was not fetched, or is long, is kept as "changed at this revision" and
read again when somebody asks. Pure: never does I/O, and never guesses what it has forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from backends.store import Change, Compacted, Revision

MAX_KEYS = 50_000
# Longer values are not kept: 50,000 keys must stay below a few hundred megabytes.
MAX_KEPT_BYTES = 4096
# The part of a full history that makes room: looking for the first key passes every one that was taken before it, so
# that one at a time costs ever more.
FORGOTTEN_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Last:
    """The latest change of a key. `change` is None where its state must be read."""

    key: str
    revision: Revision
    change: Change | None


class History:
    """`start`: the revision from which on every change is known."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self.start: Revision = 0
        self._max_keys = max_keys
        # When, and how it is since. Re-inserted last at each change: in the order of revisions.
        self._last: dict[str, tuple[Revision, Change | None]] = {}

    def __len__(self) -> int:
        return len(self._last)

    def begin(self, revision: Revision) -> None:
        """Forget everything up to `revision`."""
        self.start = revision
        self._last.clear()

    def add(self, revision: Revision, changes: Iterable[Change], unread: Iterable[str]) -> None:
        """What was committed up to `revision`, which is not below that of the addition before."""
        last = self._last
        for key in unread:
            last.pop(key, None)
            last[key] = revision, None
        for change in changes:
            is_long = change.entry is not None and len(change.entry.value) > MAX_KEPT_BYTES
            last.pop(change.key, None)
            last[change.key] = revision, None if is_long else change
        if len(last) > self._max_keys:
            too_many = len(last) - self._max_keys
            for key in list(islice(last, too_many + self._max_keys // FORGOTTEN_AT_ONCE)):
                self.start, _ = last.pop(key)

    def after(self, prefix: str, revision: Revision) -> list[Last]:
        """
        Raises:
            Compacted: that far back.
        """
        if revision < self.start:
            raise Compacted(f"revision {revision}; what changed is known from {self.start} on")
        found = []
        for key, (changed_at, change) in reversed(self._last.items()):
            if changed_at <= revision:
                break
            if key.startswith(prefix):
                found.append(Last(key, changed_at, change))
        found.reverse()
        return found
