"""I5: what was acknowledged survives. Every value can be read, and what the journal says was made is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from backends.store import Entry
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant
from kvnet import keys

JOURNALED = (keys.NETWORKS, keys.ENDPOINTS)


class _Last(NamedTuple):
    """The newest journal entry about a key."""

    journal_key: str
    kind: str
    is_there: bool
    request_id: str


def survival(dump: Dump) -> Iterator[Finding]:
    for key, reason in dump.unreadable.items():
        yield _damaged(key, reason)
    if not dump.has_sentinel and not dump.is_empty and keys.CLUSTER not in dump.unreadable:
        yield Finding(
            Invariant.ACKNOWLEDGED_SURVIVES,
            f"{keys.CLUSTER} is missing, so no worker dares to remove anything",
            (keys.CLUSTER,),
            "restore the store from its backup, or restart the controllers if this is really the whole store",
        )
    yield from _vanished(dump)


def _damaged(key: str, reason: str) -> Finding:
    return Finding(
        Invariant.ACKNOWLEDGED_SURVIVES,
        f"{key} cannot be read: {reason}",
        (key,),
        "restore this key from a backup, or remove it with your store's own tool",
    )


def _vanished(dump: Dump) -> Iterator[Finding]:
    there = {keys.network(one) for one in dump.networks} | {keys.endpoint(*place) for place in dump.endpoints}
    last: dict[str, _Last] = {}
    # The version orders commits; the time in the key is some replica's clock.
    for entry in sorted(dump.journal, key=lambda e: e.version):
        if entry.key == keys.JOURNAL_FLOOR:
            continue
        try:
            last.update(_changes(entry))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield _damaged(entry.key, repr(error))
    for key, change in last.items():
        if change.is_there and key not in there and key not in dump.unreadable:
            yield Finding(
                Invariant.ACKNOWLEDGED_SURVIVES,
                f"{key} was acknowledged ({change.kind}, request {change.request_id or 'unknown'}) and is gone, "
                "and nobody's deletion of it is in the journal",
                (key, change.journal_key),
                "find out who writes to the store besides kvnet; create it again with the same id",
            )


def _changes(entry: Entry) -> dict[str, _Last]:
    found: dict[str, _Last] = {}
    sealed: dict[str, Any] = json.loads(entry.value)
    for one in sealed["entries"]:
        for change in one["changes"]:
            if change["key"].startswith(JOURNALED):
                found[change["key"]] = _Last(
                    entry.key, str(change["kind"]), change["after"] is not None, str(one["request_id"])
                )
    return found
