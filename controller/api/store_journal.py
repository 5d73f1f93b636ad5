"""What somebody who is no host writes into the store past the use cases: that, too, is in the journal.

A restore is left out: it says so itself, and what it writes is a whole cluster. What hosts and sessions put there by
themselves is not a change of the cluster. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.store import MAX_OPERATIONS, Check, Put, Unchanged, Write
from controller import journal
from controller.journal import Changed
from controller.requests import Caller
from kvnet import keys

# Of the journal's own keys the seals tell; a worker takes the mark away that it was gone.
APART = (keys.JOURNAL, keys.SEALS, keys.RECLAIMS)


def with_note(
    checks: Sequence[Check], writes: Sequence[Write], caller: Caller, now: float, unique: Callable[[], str]
) -> Sequence[Write]:
    """The writes, and beside them the entry that tells of them; where there is no room for it, of fewer things."""
    changed = [write for write in writes if write.key.startswith(keys.LASTING) and not write.key.startswith(APART)]
    is_restore = any(isinstance(check, Unchanged) and check.key == keys.RESTORING for check in checks)
    # What makes or ends the cluster itself leaves nothing behind that would look like a part of one.
    is_restore = is_restore or any(write.key in (keys.RESTORING, keys.CLUSTER) for write in writes)
    if not changed or is_restore or len(checks) + len(writes) >= MAX_OPERATIONS:
        return writes
    note = journal.note(now, caller, *map(_change, changed))
    return [*writes, Put(keys.journal(now, unique()), b'{"v":1,"n":1,"entries":[%b]}' % note)]


def _change(write: Write) -> Changed:
    if not isinstance(write, Put):
        return Changed("store.deleted", write.key, None, None)
    return Changed("store.written", write.key, None, journal.kept_of(write.value))
