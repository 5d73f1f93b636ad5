"""Whether the store may be believed enough to remove something from this host.

The sentinel `meta/cluster` has to be there and to name the cluster that this host remembers, and the store must never
have gone back in time, nor been written anew; all of it is remembered on disk. In doubt everything stays as it is,
until an operator decides: for the whole site, which `meta/accepted` tells (each of these is taken once, and only if it
is newer than the last), or for this host with --accept-store.
Never doubts because the store is merely away: then nothing new is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from backends.store import Entry, Revision, Store, StoreError
from kvnet import codec, keys, sentinel
from kvnet.errors import AnotherCluster, KvnetError, StateUnusable, StoreBroken, StoreTooNew, StoreWentBack
from kvnet.marks import Accepted, Cluster
from kvnet.model import Versioned
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time
from worker.view import View

FILE = "store.json"
ADVICE = (
    "if the store is meant to be as it is now, restart the worker with --accept-store; if not, bring the right one back"
)
ACCEPT = "if the store is meant to be as it is now, say 'kvnet store accept'; if not, bring the right one back"
RESTORE = "wait for a controller, or bring the cluster back with 'kvnet restore FILE'"


@dataclass(frozen=True, slots=True)
class Remembered:
    """`fell`: what was seen when the store went back in time; "" if it never did since it was last accepted.

    `sentinel`: the version of `meta/cluster`, 0 if it was not noted yet. `accepted`: the id of the last acceptance.
    """

    cluster: str = ""
    revision: Revision = 0
    fell: str = ""
    sentinel: Revision = 0
    accepted: str = ""
    accepted_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Doubt:
    code: str
    detail: str
    advice: str = ADVICE

    def error(self) -> KvnetError:
        return _ERRORS.get(self.code, StoreBroken)(self.detail, fix=self.advice)


WENT_BACK = StoreWentBack.code
_ERRORS: Mapping[str, type[KvnetError]] = {
    WENT_BACK: StoreWentBack,
    AnotherCluster.code: AnotherCluster,
    StoreTooNew.code: StoreTooNew,
}
NO_CLUSTER = Doubt("cluster-missing", "the store has no meta/cluster: it is empty, or not a kvnet store", RESTORE)


class Trust:
    """Asked before every pass. `accept`: begin anew with whatever store there is. `expected`: the only cluster that
    is believed, "" for the one that was seen first. `on_accepted`: the store is taken as it is, and read anew."""

    def __init__(
        self,
        state: StateDir,
        view: View,
        *,
        time: Time,
        doubt_s: float,
        log: Log,
        accept: bool,
        expected: str = "",
        on_accepted: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._view = view
        self._time = time
        self._doubt_s = doubt_s
        self._log = log
        self._expected = expected
        self._on_accepted = on_accepted
        self._behind_since: float | None = None
        self._reported: Revision = 0
        self._remembered = Remembered() if accept else _load(state)
        if accept:
            self._save()

    @property
    def cluster(self) -> str:
        return self._remembered.cluster

    @property
    def reported(self) -> Revision:
        """The version of this host's last report, as far as it is known; 0 if it is not."""
        return self._reported

    def note_report(self, version: Revision) -> None:
        self._reported = version

    def compare_report(self, entry: Entry | None, known: Revision) -> None:
        """What the store holds as this host's report; `known`: which one it must hold at least, as of before the read.

        None is no evidence: who removes a host removes that too.
        """
        if entry is not None and entry.version < known and not self._remembered.fell:
            self._fall(
                f"the store went back in time: it holds this host's report of revision {entry.version}, "
                f"and acknowledged a later one at revision {known}"
            )

    def doubt(self) -> Doubt | None:
        """Why nothing may be removed now; None = the store may be believed. Only asked once the view is ready."""
        level = sentinel.level_of(self._view.meta.mirror.entries)
        if level > codec.SCHEMA:
            error = sentinel.too_new(level)
            return Doubt(error.code, error.detail, "upgrade this worker; what it has built stays as it is")
        known = self._view.cluster
        if known is None:
            return NO_CLUSTER
        wanted = self._wanted
        if wanted and known.value.id != wanted:
            return _other_cluster(known.value.id, wanted)
        if not self._remembered.cluster:
            self._meet(known)
        self._take_acceptance(known)
        if self._view.is_starting_over:
            return Doubt(WENT_BACK, "the store was accepted as it is now, and is being read anew", "wait a moment")
        return self._fallen(known) or self._compared_with_disk()

    def objection(self, entry: Entry | None) -> Doubt | None:
        """Why this host claims nothing in a store with this sentinel.

        Raises:
            StoreBroken, StoreTooNew: it is none that can be read.
        """
        wanted = self._wanted
        if entry is None:
            return NO_CLUSTER if wanted else None  # workers may come before the first controller
        found = sentinel.cluster(entry.value).id
        return _other_cluster(found, wanted) if wanted and found != wanted else None

    @property
    def _wanted(self) -> str:
        return self._expected or self._remembered.cluster

    def _meet(self, known: Versioned[Cluster]) -> None:
        """The first cluster that this host sees. What was accepted before is none of its business."""
        accepted = self._view.acceptance
        self._remembered = Remembered(known.value.id, self._view.revision, sentinel=known.version)
        if accepted is not None:
            self._note_acceptance(accepted.value)
        self._save()

    def _take_acceptance(self, known: Versioned[Cluster]) -> None:
        accepted, last = self._view.acceptance, self._remembered
        if accepted is None or accepted.value.cluster != last.cluster:
            return
        if accepted.value.id == last.accepted or accepted.value.accepted_at <= last.accepted_at:
            return  # taken already, or an older one that came back with an older store
        self._log.warning("store-accepted", by=accepted.value.actor, revision=accepted.version, was=last.revision)
        self._behind_since = None
        self._reported = 0
        self._remembered = Remembered(last.cluster, accepted.version, sentinel=known.version)
        self._note_acceptance(accepted.value)
        self._save()
        self._view.start_over()
        self._on_accepted()

    def _note_acceptance(self, accepted: Accepted) -> None:
        self._remembered = replace(self._remembered, accepted=accepted.id, accepted_at=accepted.accepted_at)

    def _fallen(self, known: Versioned[Cluster]) -> Doubt | None:
        fell = self._view.fell_back()
        if not self._remembered.sentinel:
            self._remembered = replace(self._remembered, sentinel=known.version)
            self._save()
        if fell is not None and not self._remembered.fell:
            self._fall(_fall_text(*fell))
        if known.version != self._remembered.sentinel and not self._remembered.fell:
            self._fall(f"meta/cluster was written anew, at revision {known.version}: something restored the store")
        return Doubt(WENT_BACK, self._remembered.fell, ACCEPT) if self._remembered.fell else None

    def remember(self) -> None:
        """Note on disk how far the store has come."""
        if self._remembered.cluster and self._view.revision > self._remembered.revision and self.doubt() is None:
            self._remembered = replace(self._remembered, revision=self._view.revision)
            self._save()

    async def confirm(self, store: Store) -> Doubt | None:
        """The same asked of the store itself, not of a mirror that may lag behind its neighbours.

        For what cannot be undone: when a store is emptied, the sentinel's end may be told after the networks'.
        """
        known = self._reported
        try:
            entry = await store.get(keys.CLUSTER)
            doubt = self.objection(entry)
            # All that this host applied, it reported after; so a store with the last report has all of that, too.
            self.compare_report(await store.get(keys.observed(self._view.host)), known)
        except (StoreError, StoreBroken, StoreTooNew) as error:
            return Doubt("store-unavailable", f"the store cannot confirm that it is the right one: {error}")
        if entry is None or doubt is not None:
            return doubt or NO_CLUSTER
        if self._remembered.sentinel and entry.version != self._remembered.sentinel:
            return Doubt(WENT_BACK, f"meta/cluster was written anew, at revision {entry.version}", ACCEPT)
        return Doubt(WENT_BACK, self._remembered.fell, ACCEPT) if self._remembered.fell else None

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
            self._fall(_fall_text(remembered, reached))
        return Doubt(WENT_BACK, _fall_text(remembered, reached), ACCEPT)

    def _fall(self, detail: str) -> None:
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
