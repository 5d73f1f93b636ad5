"""What the gateway tells many hosts is put into JSON once.

By the identity of what is told: the watches of one prefix get the same change objects, lists that were read together
the same snapshot. Kept for a moment only, so that a large list does not stay in memory. Never changes what is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from backends import gateway_wire as wire
from backends.store import Batch, Change, Snapshot

CHANGES = 2048
KEPT_S = 1.0

Later = Callable[[float, Callable[[], None]], object]


class Encodings:
    """`later`: calls after so many seconds."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._is_clearing = False
        self._changes: dict[int, tuple[Change, bytes]] = {}
        self._snapshots: dict[int, tuple[Snapshot, bytes]] = {}

    def snapshot(self, snapshot: Snapshot) -> bytes:
        known = self._snapshots.get(id(snapshot))
        if known is None:
            known = self._snapshots[id(snapshot)] = snapshot, encode(wire.snapshot_to_json(snapshot))
            self._forget_soon()
        return known[1]

    def line(self, batch: Batch) -> bytes:
        changes = b",".join(map(self._change, batch.changes))
        return b'{"revision":%d,"changes":[%s]}\n' % (batch.revision, changes)

    def _change(self, change: Change) -> bytes:
        # What is kept is alive, so no other object has its id.
        known = self._changes.get(id(change))
        if known is None:
            if len(self._changes) >= CHANGES:
                self._changes.clear()
            known = self._changes[id(change)] = change, encode(wire.change_to_json(change))
            self._forget_soon()
        return known[1]

    def _forget_soon(self) -> None:
        if not self._is_clearing:
            self._is_clearing = True
            self._later(KEPT_S, self._forget)

    def _forget(self) -> None:
        self._is_clearing = False
        self._changes.clear()
        self._snapshots.clear()


def encode(plain: Any) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode()
