"""Brings a backup into a store: all but the sentinel first, the sentinel last, so that nobody believes half of it.

A marker is there from the first write to the last, and every transaction checks it: a restore that was cut short is
refused by everybody as a cluster, and taken up by the same restore again. What hosts say of themselves is newer than
any backup and stays; so do the credentials of the same cluster, if the backup has none. The last transaction also
accepts the store for the whole site, because who restores has decided.
Never touches a store that holds something, unless told; never one that holds somebody else's data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backends.store import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    Absent,
    Check,
    Conflict,
    Delete,
    Entry,
    Put,
    Store,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from controller import journal
from controller.audit.seal import RESTORED, Seal, digest, read, sealed
from controller.bootstrap import not_ours
from controller.requests import Caller
from controller.settings import Clock
from controller.snapshot import Backup
from kvnet import codec, keys, sentinel
from kvnet.errors import AnotherCluster, KvnetError, StoreBroken, StoreForeign, StoreNotEmpty, TooMuchContention
from kvnet.marks import Accepted, Restoring

ATTEMPTS = 5
PAUSE_S = (0.2, 1.0)
OVERHEAD_BYTES = 4096
_OWN = (keys.CLUSTER, keys.ACCEPTED, keys.RESTORING)
_HOSTS_OWN = (keys.HOSTS, keys.INVENTORY)


@dataclass(frozen=True, slots=True)
class Restored:
    """`written` and `removed`: keys, in this run. `resumed`: an earlier run had been cut short."""

    cluster: str
    written: int
    removed: int
    resumed: bool
    revision: int


@dataclass(frozen=True, slots=True)
class _Work:
    writes: tuple[Write, ...]

    @property
    def removed(self) -> int:
        return sum(isinstance(write, Delete) for write in self.writes)


class Restore:
    """`replace`: remove what is there and not in the backup. `other`: also if it is another cluster's."""

    def __init__(
        self,
        store: Store,
        backup: Backup,
        *,
        actor: str,
        replace: bool = False,
        other: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._store = store
        self._backup = backup
        self._actor = actor
        self._replace = replace
        self._other = other
        self._clock = clock or Clock()
        self._rng = rng or random.Random()
        self._progress = progress

    async def run(self) -> Restored:
        """
        Raises:
            StoreForeign, StoreNotEmpty, AnotherCluster: nothing was changed.
            TooMuchContention: somebody else writes there.
            StoreError: repeat it; it goes on where it stopped.
        """
        entries = (await self._store.list("")).entries
        there = {entry.key: entry for entry in entries}
        self._require_may(there)
        resumed = self._is_ours(there)
        written = removed = 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                marker = await self._mark(there)
                work = self._work(there)
                await self._write(work, marker)
                written += len(work.writes) - work.removed
                removed += work.removed
                revision = await self._finish(marker, there.get(keys.ACCEPTED))
            except (Unknown, Unavailable):
                if attempt == ATTEMPTS:
                    raise
            except Conflict:
                pass
            else:
                return Restored(self._backup.header.cluster, written, removed, resumed, revision)
            await self._clock.sleep(self._rng.uniform(*PAUSE_S))
            there = {entry.key: entry for entry in (await self._store.list("")).entries}
            if self._is_done(there):
                return Restored(self._backup.header.cluster, written, removed, resumed, 0)
            self._require_may(there)
        raise TooMuchContention("somebody else writes into the store", fix="stop them, then repeat the restore")

    async def preview(self) -> Restored:
        """What `run` would write and remove now; nothing is changed.

        Raises:
            StoreForeign, StoreNotEmpty, AnotherCluster: as `run` would.
        """
        there = {entry.key: entry for entry in (await self._store.list("")).entries}
        self._require_may(there)
        work = self._work(there)
        written = len(work.writes) - work.removed
        return Restored(self._backup.header.cluster, written, work.removed, self._is_ours(there), 0)

    # may it be done

    def _require_may(self, there: Mapping[str, Entry]) -> None:
        level = there.get(keys.LEVEL)
        sentinel.require_level(level.value if level is not None else None)
        foreign = not_ours(there.values())
        foreign = [key for key in foreign if not key.startswith((*keys.LASTING, *keys.PASSING))]
        if foreign:
            raise StoreForeign(
                f"under the root of the store there are {len(foreign)} keys that are not kvnet's: "
                f"{', '.join(foreign[:3])}",
                fix="restore under another root: nothing is removed that is somebody else's",
            )
        lasting = [key for key in there if key.startswith(keys.LASTING)]
        if not lasting or self._is_ours(there):
            return
        other = self._cluster_there(there)
        if other not in ("", self._backup.header.cluster) and not (self._replace and self._other):
            raise AnotherCluster(
                f"the store holds cluster {other}, and the backup is of cluster {self._backup.header.cluster}",
                fix="name the right store; to remove that cluster for good, say --replace --other-cluster",
            )
        if not self._replace:
            raise StoreNotEmpty(
                f"the store holds {len(lasting)} keys of cluster {other or '(its sentinel is gone)'}",
                fix="name an empty one, or say --replace: what is not in the backup is then removed",
            )

    def _is_ours(self, there: Mapping[str, Entry]) -> bool:
        """This very restore was cut short here."""
        entry = there.get(keys.RESTORING)
        if entry is None or keys.CLUSTER in there:
            return False
        try:
            return codec.decode(Restoring, entry.value).backup == self._backup.digest
        except StoreBroken:
            return False

    def _is_done(self, there: Mapping[str, Entry]) -> bool:
        """The last commit's answer was lost, and it was done."""
        entry = there.get(keys.CLUSTER)
        return keys.RESTORING not in there and entry is not None and entry.value == self._backup.values[keys.CLUSTER]

    def _cluster_there(self, there: Mapping[str, Entry]) -> str:
        for key, find in ((keys.CLUSTER, _cluster_id), (keys.RESTORING, _restoring_id)):
            if key in there:
                try:
                    return find(there[key].value)
                except KvnetError:
                    return "(unreadable)"
        return ""

    def _keeps_secrets(self, there: Mapping[str, Entry]) -> bool:
        """They are of the same cluster, and the backup has none to put in their place."""
        if self._backup.header.secrets:
            return False
        if self._is_ours(there):
            return codec.decode(Restoring, there[keys.RESTORING].value).keeps_secrets
        return self._cluster_there(there) == self._backup.header.cluster

    # how it is done

    async def _mark(self, there: dict[str, Entry]) -> Check:
        """From here on it is no cluster, until the last commit."""
        known, old = there.get(keys.CLUSTER), there.get(keys.RESTORING)
        if old is not None and self._is_ours(there):
            return Unchanged(keys.RESTORING, old.version)
        keeps = self._keeps_secrets(there)
        marker = Restoring(self._backup.digest, self._backup.header.cluster, self._clock.now(), keeps)
        value = codec.encode(marker)
        checks: list[Check] = [Absent(keys.CLUSTER) if known is None else Unchanged(keys.CLUSTER, known.version)]
        checks.append(Absent(keys.RESTORING) if old is None else Unchanged(keys.RESTORING, old.version))
        revision = await self._store.commit(checks, [Delete(keys.CLUSTER), Put(keys.RESTORING, value)])
        there.pop(keys.CLUSTER, None)
        there[keys.RESTORING] = Entry(keys.RESTORING, value, revision)
        return Unchanged(keys.RESTORING, revision)

    def _work(self, there: Mapping[str, Entry]) -> _Work:
        wanted = self._wanted(there)
        stays = (*_OWN, *keys.SECRET, keys.AUTHENTICATION) if self._keeps_secrets(there) else _OWN
        gone = [
            key for key in there if key.startswith(keys.LASTING) and key not in wanted and not key.startswith(stays)
        ]
        puts = [Put(key, value) for key, value in wanted.items() if key not in there or there[key].value != value]
        return _Work((*(Delete(key) for key in sorted(gone)), *puts))

    def _wanted(self, there: Mapping[str, Entry]) -> dict[str, bytes]:
        """All that the store must hold before the sentinel comes. Journal and seals are numbered by their own store."""
        return {
            key: value
            for key, value in sorted(self._backup.values.items())
            if key != keys.CLUSTER
            and not key.startswith((keys.JOURNAL, keys.SEALS))
            and not (key.startswith(_HOSTS_OWN) and key in there)
        }

    async def _write(self, work: _Work, marker: Check) -> None:
        done = 0
        for part in parts(work.writes):
            await self._store.commit([marker], part)
            done += len(part)
            self._progress(done, len(work.writes))

    async def _finish(self, marker: Check, accepted: Entry | None) -> int:
        """Read it back, and only then make it a cluster."""
        snapshot = await self._store.list("")
        there = {entry.key: entry for entry in snapshot.entries}
        if self._work(there).writes:
            raise Conflict([keys.RESTORING])
        now = self._clock.now()
        cluster = self._backup.values[keys.CLUSTER]
        word = Accepted(
            id=f"{self._rng.getrandbits(64):016x}",
            cluster=self._backup.header.cluster,
            accepted_at=max(now, _accepted_at(accepted) + 1e-3),
            actor=self._actor,
            before=0,
            now=snapshot.revision,
        )
        source = f"backup of {self._backup.header.store} at revision {self._backup.header.revision}"
        change = journal.Changed("cluster.restored", keys.CLUSTER, None, cluster)
        seal = journal.sealer(self._clock.now, self._rng)
        writes: list[Write] = [
            Put(keys.CLUSTER, cluster),
            Put(keys.ACCEPTED, codec.encode(word)),
            Delete(keys.RESTORING),
            Put(keys.JOURNAL_FLOOR, journal.floor_value(snapshot.revision)),
            *seal([journal.note(now, Caller(self._actor, "", source), change)]),
            self._first_seal(now, snapshot.revision),
        ]
        return await self._store.commit([marker, Absent(keys.CLUSTER)], writes)

    def _first_seal(self, now: float, revision: int) -> Put:
        """The chain goes on from the head in the backup: what that sealed stayed in the store that it is from."""
        entries = (Entry(key, value, 0) for key, value in self._backup.values.items() if key.startswith(keys.SEALS))
        last = max(filter(None, map(read, entries)), key=lambda one: one.number, default=None)
        number = last.number + 1 if last is not None else 1
        seal = sealed(
            Seal(
                number=number,
                at=now,
                previous=last.hash if last is not None else "",
                revision=revision,
                count=0,
                digest=digest(()),
                trimmed=revision,
                anchor=number,
                replica=self._actor,
                begins=RESTORED,
            )
        )
        return Put(keys.seal(number), codec.encode(seal))


def parts(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    """As few transactions as the floor allows, one check in each."""
    part: list[Write] = []
    size = 0
    for write in writes:
        weight = len(write.key.encode()) + (len(write.value) if isinstance(write, Put) else 0)
        if part and (len(part) + 1 >= MAX_OPERATIONS or size + weight > MAX_TRANSACTION_BYTES - OVERHEAD_BYTES):
            yield part
            part, size = [], 0
        part.append(write)
        size += weight
    if part:
        yield part


def _cluster_id(value: bytes) -> str:
    return sentinel.cluster(value).id


def _restoring_id(value: bytes) -> str:
    return codec.decode(Restoring, value).cluster


def _accepted_at(entry: Entry | None) -> float:
    try:
        return codec.decode(Accepted, entry.value).accepted_at if entry is not None else 0.0
    except StoreBroken:
        return 0.0
