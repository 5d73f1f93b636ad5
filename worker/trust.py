"""Whether the store may be believed enough to remove something from this host.

The sentinel `meta/cluster` has to be there and to name the cluster that this host remembers, and the store must never
have gone back in time; both are remembered on disk. In doubt everything stays as it is, until an operator decides.
Never doubts because the store is merely away: then nothing new is said.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from backends.store import Revision, Store, StoreError
from kvnet import codec, keys
from kvnet.errors import KvnetError, StateUnusable, StoreBroken
from kvnet.model import Cluster
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time
from worker.view import View

FILE = "store.json"
ADVICE = (
    "if the store is meant to be as it is now, restart the worker with --accept-store; if not, bring the right one back"
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """`fell`: what was seen when the store went back in time; "" if it never did."""

    cluster: str = ""
    revision: Revision = 0
    fell: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    code: str
    detail: str
    advice: str = ADVICE

    def error(self) -> KvnetError:
        return StoreBroken(self.detail, fix=self.advice)


NO_CLUSTER = Doubt("cluster-missing", "the store has no meta/cluster: it is empty, or not a kvnet store")


class Trust:
    """Asked before every pass. `accept`: begin anew with whatever store there is."""

    def __init__(self, state: StateDir, view: View, *, time: Time, doubt_s: float, log: Log, accept: bool) -> None:
        self._state = state
        self._view = view
        self._time = time
        self._doubt_s = doubt_s
        self._log = log
        self._behind_since: float | None = None
        self._remembered = Remembered() if accept else _load(state)
        if accept:
            self._save()

    @property
    def cluster(self) -> str:
        return self._remembered.cluster

    def doubt(self) -> Doubt | None:
        """Why nothing may be removed now; None = the store may be believed. Only asked once the view is ready."""
        known = self._view.cluster
        if known is None:
            return NO_CLUSTER
        if not self._remembered.cluster:
            self._remembered = Remembered(known.id, self._view.revision)
            self._save()
        if known.id != self._remembered.cluster:
            return _other_cluster(known.id, self._remembered.cluster)
        fell = self._view.fell_back()
        if fell is not None and not self._remembered.fell:
            self._fall(*fell)
        if self._remembered.fell:
            return Doubt("store-went-back", self._remembered.fell)
        return self._compared_with_disk()

    def remember(self) -> None:
        """Note on disk how far the store has come."""
        if self._remembered.cluster and self._view.revision > self._remembered.revision and self.doubt() is None:
            self._remembered = replace(self._remembered, revision=self._view.revision)
            self._save()

    async def confirm(self, store: Store) -> Doubt | None:
        """The same asked of the store itself, not of a mirror that may lag behind its neighbours.

        For what cannot be undone: when a store is emptied, the sentinel's end may be told after the networks'.
        """
        try:
            entry = await store.get(keys.CLUSTER)
            known = codec.decode(Cluster, entry.value) if entry is not None else None
        except (StoreError, StoreBroken) as error:
            return Doubt("store-unavailable", f"the store cannot confirm that it is the right one: {error}")
        if known is None:
            return NO_CLUSTER
        return None if known.id == self._remembered.cluster else _other_cluster(known.id, self._remembered.cluster)

    def _compared_with_disk(self) -> Doubt | None:
        """A replica may lag behind what this host has seen, but not for long."""
        reached, remembered = self._view.revision, self._remembered.revision
        if reached >= remembered:
            self._behind_since = None
            return None
        now = self._time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        if now - self._behind_since >= self._doubt_s:
            self._fall(remembered, reached)
        return Doubt("store-went-back", _fall_text(remembered, reached))

    def _fall(self, reached: Revision, now_at: Revision) -> None:
        detail = _fall_text(reached, now_at)
        self._log.error("store-went-back", detail=detail)
        self._remembered = replace(self._remembered, fell=detail)
        self._save()

    def _save(self) -> None:
        try:
            self._state.write(FILE, json.dumps(asdict(self._remembered)).encode(), durable=False)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)  # remembered in memory at least


def _load(state: StateDir) -> Remembered:
    data = state.read(FILE)
    if data is None:
        return Remembered()
    try:
        return Remembered(**json.loads(data))
    except (ValueError, TypeError):
        return Remembered()


def _other_cluster(found: str, remembered: str) -> Doubt:
    return Doubt("another-cluster", f"the store belongs to cluster {found}, but this host is in cluster {remembered}")


def _fall_text(reached: Revision, now_at: Revision) -> str:
    return f"the store went back in time: it had reached revision {reached} and was then at {now_at}"
