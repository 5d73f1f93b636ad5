"""The one thread of a process that writes to the SQLite file.

Takes all that waits, checks it with one statement, decides in Python, writes it with one statement, and commits once:
many callers share one flush to the disk. A transaction that fails leaves nothing behind, because what is written is
only what the decisions say. Never touches the event loop but through `settle`.
"""

from __future__ import annotations

import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.sqlite_file import (
    BUSY_TIMEOUT_S,
    FIRST_KEY,
    REVISION_KEY,
    Place,
    connect,
    is_unknown_outcome,
    store_error,
)
from backends.sqlite_rows import (
    Row,
    purge,
    read_keys_of_session,
    read_versions,
    session_key,
    write_rows,
)
from backends.store import (
    Absent,
    Broken,
    Change,
    Check,
    Conflict,
    Delete,
    Entry,
    Put,
    Revision,
    SessionLost,
    StoreError,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)

MAX_GROUP = 512
# SQLite's own waiting for a lock sleeps up to 100 ms a time; several controllers on one file need it shorter.
LOCK_RETRY_S = 0.001


@dataclass(slots=True, eq=False)
class Job:
    """One transaction. `ends` names a session whose keys go with it; `purges` forgets deletions up to a revision."""

    checks: Sequence[Check] = ()
    writes: Sequence[Write] = ()
    ends: str | None = None
    purges: Revision | None = None


Outcome = Revision | StoreError
Published = list[tuple[Revision, list[Change]]]


@dataclass(slots=True)
class Group:
    """What came of the jobs that shared one commit: the store was at `base`, and is now at `revision`."""

    jobs: Sequence[Job]
    outcomes: Sequence[Outcome]
    base: Revision = 0
    revision: Revision = 0
    published: Published = field(default_factory=list)


@dataclass(slots=True)
class Decision:
    outcomes: list[Outcome]
    rows: dict[str, Row]
    published: Published
    revision: Revision


def decide(jobs: Sequence[Job], known: Mapping[str, Revision], revision: Revision) -> Decision:
    """What each job comes to when they run one after the other. Pure.

    `known` has the version of every existing key that a check, a deletion or a session is about.
    """
    versions: dict[str, Revision] = dict(known)
    decision = Decision([], {}, [], revision)
    for job in jobs:
        decision.outcomes.append(_failure(job, versions) or _apply(job, versions, decision))
    return decision


def _failure(job: Job, versions: Mapping[str, Revision]) -> StoreError | None:
    failing = set()
    for check in job.checks:
        version = versions.get(check.key)
        if isinstance(check, Absent):
            holds = version is None
        elif isinstance(check, Unchanged):
            holds = version == check.version
        else:
            holds = version is not None
        if not holds:
            failing.add(check.key)
    for write in job.writes:
        if isinstance(write, Put) and write.session is not None and session_key(write.session) not in versions:
            return SessionLost(f"{write.key}: its session is gone")
    return Conflict(sorted(failing)) if failing else None


def _apply(job: Job, versions: dict[str, Revision], decision: Decision) -> Revision:
    if not job.writes:
        return decision.revision
    decision.revision = revision = decision.revision + 1
    changes = []
    for write in job.writes:
        key = write.key
        if isinstance(write, Put):
            decision.rows[key] = (key, write.value, revision, write.session)
            versions[key] = revision
            change = Change(key, Entry(key, write.value, revision))
        elif versions.pop(key, None) is not None:
            decision.rows[key] = (key, None, revision, None)
            change = Change(key, None)
        else:
            continue
        if key >= FIRST_KEY:  # our own rows are nobody's business
            changes.append(change)
    decision.published.append((revision, changes))
    return revision


class Writer:
    """`settle` is called in the thread, once per group, after the commit; then `ring`, if anything was written."""

    def __init__(
        self, path: Path, *, settle: Callable[[Group], None], ring: Callable[[], None], rng: random.Random
    ) -> None:
        self._path = path
        self._settle = settle
        self._ring = ring
        self._rng = rng
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._place: Place | None = None
        self._thread = threading.Thread(target=self._run, name="kvnet-sqlite-writer", daemon=True)
        self._thread.start()

    def trouble(self) -> str:
        """What became of the file under us; "" while it is there."""
        return self._place.trouble() if self._place is not None else ""

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> None:
        """What was submitted before is still written. Blocking."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        running = True
        while running:
            jobs, running = self._take()
            if not jobs:
                continue
            try:
                connection = connection or connect(self._path, busy_timeout_s=0)
                group = self._write(connection, jobs)
            except sqlite3.Error as error:
                group = Group(jobs, [store_error(self._path, error)] * len(jobs))
            self._settle(group)
            if group.published:
                self._ring()
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[Job], bool]:
        """All that waits, at least one; False when there will be no more."""
        jobs: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) >= MAX_GROUP:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _write(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> Group:
        self._lock(connection)
        try:
            self._place = self._place or Place(self._path)
            trouble = self._place.trouble()
            if trouble:
                return Group(jobs, [Broken(trouble)] * len(jobs))
            for job in jobs:
                if job.ends is not None:
                    keys = read_keys_of_session(connection, job.ends)
                    job.writes = [Delete(key) for key in [*keys, session_key(job.ends)]]
            known = read_versions(connection, _keys_to_read(jobs))
            base = known.pop(REVISION_KEY)
            decision = decide(jobs, known, base)
            if decision.revision > base:  # also when nothing changed: a revision that was told is used up
                mark: Row = (REVISION_KEY, b"", decision.revision, None)
                write_rows(connection, [*decision.rows.values(), mark])
            for job in jobs:
                if job.purges is not None:
                    purge(connection, min(job.purges, decision.revision))
            return self._commit(connection, Group(jobs, decision.outcomes, base, decision.revision, decision.published))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _commit(self, connection: sqlite3.Connection, group: Group) -> Group:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if not is_unknown_outcome(error):
                raise
            unknown = Unknown(f"{self._path}: the disk failed while committing ({error})")
            return Group(group.jobs, [unknown] * len(group.jobs))
        trouble = self.trouble()
        if trouble:
            return Group(group.jobs, [Unknown(trouble)] * len(group.jobs))
        return group

    def _lock(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not isinstance(store_error(self._path, error), Unavailable) or time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_RETRY_S * self._rng.uniform(0.2, 1.0))


def _keys_to_read(jobs: Sequence[Job]) -> set[str]:
    keys = {REVISION_KEY}
    for job in jobs:
        for check in job.checks:
            keys.add(check.key)
        for write in job.writes:
            if isinstance(write, Delete):
                keys.add(write.key)
            elif write.session is not None:
                keys.add(session_key(write.session))
    return keys
