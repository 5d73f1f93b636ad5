"""Where an attachment's interface stands in its namespace: its name, and its rank among the others there.

Pure. Whoever keeps the record must not await between the look at the others and that.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.attachments import Phase, Record
from worker.ports import Namespace
from worker.runtimes.netns import choose_interface

MOST_ORDERS = 64  # ranks that routes can tell apart


def interface_for(record: Record, wanted: str, prefix: str, namespace: Namespace, records: Collection[Record]) -> str:
    """
    Raises:
        Conflicting: the wanted name is taken.
    """
    others = {r.interface for r in _beside(record, records)}
    return choose_interface(wanted, namespace, others, prefix)


def order_for(identity: str, records: Collection[Record]) -> int:
    """After all that are there, so that who comes later takes nothing over from who was there before."""
    taken = {record.order for record in records if record.identity == identity}
    highest = max(taken, default=-1)
    if highest + 1 < MOST_ORDERS:
        return highest + 1
    return next((order for order in range(MOST_ORDERS) if order not in taken), MOST_ORDERS - 1)


def _beside(record: Record, records: Collection[Record]) -> list[Record]:
    """Those on their way out promise nothing: an interface that is still there is seen in the namespace."""
    there = (r for r in records if r.phase is not Phase.DETACHING)
    return [r for r in there if r.identity == record.identity and r.endpoint != record.endpoint]
