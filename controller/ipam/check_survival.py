"""I5: what was acknowledged survives. Every value can be read, and what the journal says was made is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from backends.store import Entry, Put, Unchanged
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from kvnet import codec, keys, places
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import StoreBroken
from kvnet.model import Endpoint

JOURNALED = (keys.NETWORKS, keys.ENDPOINTS)


class _Last(NamedTuple):
    """The newest journal entry about a key. `after`: what the object was made to be, None: it was removed."""

    journal_key: str
    kind: str
    after: Any
    request_id: str


def survival(dump: Dump) -> Iterator[Finding]:
    last: dict[str, _Last] = {}
    # The version orders commits; the time in the key is some replica's clock.
    for entry in sorted(dump.journal, key=lambda e: e.version):
        if entry.key == keys.JOURNAL_FLOOR:
            continue
        try:
            for key, change in _changes(entry).items():
                last[key] = _without_nonsense(change, last.get(key))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield _damaged(entry.key, repr(error), None)
    for key, reason in dump.unreadable.items():
        yield _damaged(key, reason, _brought_back(dump, key, last.get(key)))
    if not dump.has_sentinel and not dump.is_empty and keys.CLUSTER not in dump.unreadable:
        yield Finding(
            Invariant.ACKNOWLEDGED_SURVIVES,
            f"{keys.CLUSTER} is missing, so no worker dares to remove anything",
            (keys.CLUSTER,),
            "restore the store from its backup, or restart the controllers if this is really the whole store",
        )
    yield from _vanished(dump, last)


def _without_nonsense(change: _Last, before: _Last | None) -> _Last:
    """Who writes nonsense through the controller is in the journal, too; what it was before counts."""
    if before is None or change.after is None or (isinstance(change.after, dict) and "v" in change.after):
        return change
    return change._replace(after=before.after)


def _damaged(key: str, reason: str, repair: Repair | None) -> Finding:
    return Finding(
        Invariant.ACKNOWLEDGED_SURVIVES,
        f"{key} cannot be read: {reason}",
        (key,),
        "write what it was" if repair else "restore this key from a backup, or remove it with your store's own tool",
        repair,
    )


def _brought_back(dump: Dump, key: str, last: _Last | None) -> Repair | None:
    """What the journal says that it was made to be, or what follows from the object that it is there for.

    Never in place of what a newer kvnet wrote: that is not damaged.
    """
    there = dump.damaged[key]
    if codec.schema_of(there.value) > codec.SCHEMA:
        return None
    value = _from_endpoint(dump, key) or _from_journal(key, last)
    return Repair((Unchanged(key, there.version),), (Put(key, value),)) if value is not None else None


def _from_journal(key: str, last: _Last | None) -> bytes | None:
    model = places.model_of(key)
    if last is None or model is None or not isinstance(last.after, dict) or key.startswith(keys.META):
        return None
    value = json.dumps(last.after, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    try:
        places.require_place(key, codec.decode(model, value))
    except StoreBroken:
        return None
    return value


def _from_endpoint(dump: Dump, key: str) -> bytes | None:
    """Of an address and of a host's list: both follow from the endpoint."""
    if key.startswith(keys.ADDRESSES):
        holders = (e.value for e in dump.endpoints.values() if key in _claimed_by(e.value))
        one = next(holders, None)
        claim = AddressClaim(ClaimKind.ENDPOINT, one.id, one.created_at, None, one.host) if one is not None else None
        return codec.encode(claim) if claim is not None else None
    if key.startswith(keys.LOCAL):
        there = (e.value for e in dump.endpoints.values() if key == keys.local(e.value.host, e.value.id))
        found = next(there, None)
        return found.network.encode() if found is not None else None
    return None


def _claimed_by(endpoint: Endpoint) -> set[str]:
    return {keys.address(endpoint.network, address) for address in endpoint.addresses}


def _vanished(dump: Dump, last: dict[str, _Last]) -> Iterator[Finding]:
    there = {keys.network(one) for one in dump.networks} | {keys.endpoint(*place) for place in dump.endpoints}
    for key, change in last.items():
        is_kept = change.after is not None and key.startswith(JOURNALED)
        if is_kept and key not in there and key not in dump.unreadable:
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
            if not change["key"].startswith(keys.SECRET):
                found[change["key"]] = _Last(entry.key, str(change["kind"]), change["after"], str(one["request_id"]))
    return found
