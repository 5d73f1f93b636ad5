"""What somebody who is no host writes into the store past the use cases: that, too, is in the journal.

Nobody gets past it: a commit that leaves no room for the entry, or writes into the journal or its seals, is refused.
A restore is left out: it says so itself, and what it writes is a whole cluster. What hosts and sessions put there by
themselves is not a change of the cluster. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.store import MAX_OPERATIONS, Absent, Check, Delete, Put, Refused, TooLarge, Unchanged, Write
from controller import journal
from controller.journal import Changed
from controller.requests import Caller
from kvnet import keys
from kvnet.rules import shown

# A worker takes the mark away that it was gone.
APART = (keys.JOURNAL, keys.SEALS, keys.RECLAIMS)


def with_note(
    checks: Sequence[Check], writes: Sequence[Write], caller: Caller, now: float, unique: Callable[[], str]
) -> Sequence[Write]:
    """The writes, and beside them the entry that tells of them.

    Raises:
        Refused: the journal and its seals are nobody's to write.
        TooLarge: there is no room for the entry.
    """
    changed = [write for write in writes if write.key.startswith(keys.LASTING) and not write.key.startswith(APART)]
    if _is_restore(checks, writes):
        return writes
    own = next((write.key for write in writes if write.key.startswith((keys.JOURNAL, keys.SEALS))), None)
    if own is not None:
        raise Refused(f"{shown(own)} is the controllers' own: who could write it could take back what it did")
    if not changed:
        return writes
    if len(checks) + len(writes) >= MAX_OPERATIONS:
        raise TooLarge(f"{len(checks) + len(writes)} operations; at most {MAX_OPERATIONS - 1}, and what tells of them")
    note = journal.note(now, caller, *map(_change, changed))
    return [*writes, Put(keys.journal(now, unique()), b'{"v":1,"n":1,"entries":[%b]}' % note)]


def _is_restore(checks: Sequence[Check], writes: Sequence[Write]) -> bool:
    """It says so itself: at its begin the cluster ends, until its end there is none. So does what founds one."""
    if any(isinstance(check, Unchanged) and check.key == keys.RESTORING for check in checks):
        return True
    ends = any(isinstance(write, Delete) and write.key == keys.CLUSTER for write in writes)
    begins = any(isinstance(check, Absent) and check.key == keys.CLUSTER for check in checks)
    return ends or (begins and any(write.key in (keys.CLUSTER, keys.RESTORING) for write in writes))


def _change(write: Write) -> Changed:
    if not isinstance(write, Put):
        return Changed("store.deleted", write.key, None, None)
    return Changed("store.written", write.key, None, journal.kept_of(write.value))
