"""The embedded store: one SQLite file, any number of processes on one machine.

Reads and writes happen in two threads of their own, never on the loop. Commits of this process reach its watches
directly; those of others by a doorbell, and should that fail, by a look at the file every second. Never acknowledges
what is not flushed to the disk. Guarantees and limits: docs/stores.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from backends.feed import Feed, Subscription
from backends.lease import Clock, HeldSession, LeaseWatch, Sleep, require_ttl
from backends.sqlite_bell import Bell
from backends.sqlite_file import SESSIONS, connect, prepare, store_error
from backends.sqlite_rows import (
    LogPart,
    read_data_version,
    read_entry,
    read_log,
    read_marks,
    read_prefix,
    session_key,
)
from backends.sqlite_writer import Group, Job, Writer
from backends.store import (
    Batch,
    Broken,
    Change,
    Check,
    Compacted,
    Conflict,
    Entry,
    Present,
    Put,
    Revision,
    Session,
    SessionLost,
    Snapshot,
    StoreError,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
    require_floor,
)

T = TypeVar("T")

HISTORY = 50_000  # revisions for which a watch may resume
PURGE_EVERY = 10_000  # revisions between two purges
LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 1.0
# A disk that does not answer for so long is told to the caller as such.
STALL_S = 10.0
CLOSE_S = 5.0


class SqliteStore:
    """Made by `open`. Lives on the event loop that opened it."""

    def __init__(self, path: Path, *, clock: Clock, sleep: Sleep, rng: random.Random) -> None:
        self._path = path
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="kvnet-sqlite-reader")
        self._connection: sqlite3.Connection | None = None
        self._bell: Bell | None = None
        self._writer = Writer(path, settle=self._settle_from_thread, ring=self._ring, rng=rng)
        self._waiting: dict[Job, tuple[float, asyncio.Future[Revision]]] = {}
        self._feed = Feed()
        self._compacted: Revision = 0
        self._look = asyncio.Event()
        self._data_version = -1
        self._inode: tuple[int, int] | None = None
        self._sessions: list[HeldSession] = []
        self._leases = LeaseWatch()
        self._tasks: list[asyncio.Task[None]] = []
        self._unusable: StoreError | None = None

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> SqliteStore:
        """The store in the file at `path`, which is made if it is not there.

        Raises:
            StoreBroken, StoreUnavailable: the reason, and what to do.
        """
        file = await asyncio.to_thread(prepare, path)
        store = cls(file, clock=clock, sleep=sleep, rng=rng or random.Random())
        try:
            await store._start()
        except BaseException:
            await store.close()
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda connection: read_entry(connection, key))

    async def list(self, prefix: str) -> Snapshot:
        return await self._read(lambda connection: read_prefix(connection, prefix))

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes)
        return await self._submit(Job(checks, writes))

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        self._require_usable()
        subscription = self._feed.subscribe(prefix)
        try:
            yield await self._first_batch(subscription, after)
            while True:
                yield await subscription.next()
        finally:
            self._feed.unsubscribe(subscription)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        ttl_s = require_ttl(ttl_s)
        began = self._clock()
        session_id = resume or uuid.uuid4().hex
        await self._refresh(session_id, ttl_s, is_new=resume is None)
        session = HeldSession(
            session_id,
            ttl_s,
            began,
            refresh=lambda: self._refresh(session_id, ttl_s),
            end=lambda: self._submit(Job(ends=session_id)),
            clock=self._clock,
            sleep=self._sleep,
            rng=self._rng,
        )
        self._sessions = [held for held in self._sessions if not held.is_over]
        self._sessions.append(session)
        return session

    async def compact(self, keep: int = 0) -> None:
        """Forget deletions older than the latest `keep` revisions; watches that resume from before must list again."""
        revision = await self._submit(Job())
        await self._submit(Job(purges=max(0, revision - keep)))
        self._compacted = max(0, revision - keep)

    async def close(self) -> None:
        self._unusable = Unavailable("the store is closed")
        for session in self._sessions:
            await session.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._feed.close(self._unusable)
        await asyncio.to_thread(self._writer.stop, CLOSE_S)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._loop.run_in_executor(self._reads, connection.close)
        self._reads.shutdown(wait=False)
        if self._bell is not None:
            self._loop.remove_reader(self._bell.fileno())
            self._bell.close()
            self._bell = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        self._connection = await self._in_reader(lambda: connect(self._path))
        self._inode = _inode(self._path)
        try:
            self._bell = Bell(self._path, self._look.set)
        except OSError:
            self._bell = None  # the look every second remains
        else:
            self._loop.add_reader(self._bell.fileno(), self._bell.hear)
        self._feed.position, self._compacted = await self._read(read_marks)
        self._tasks = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._keep_looking()),
            asyncio.create_task(self._sweep()),
        ]

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        self._require_usable()

        def with_connection() -> T:
            if self._connection is None:
                raise Unavailable("the store is closed")
            try:
                return read(self._connection)
            except sqlite3.Error as error:
                raise store_error(self._path, error) from error

        try:
            async with asyncio.timeout(STALL_S):
                return await self._in_reader(with_connection)
        except TimeoutError:
            raise Unavailable(f"{self._path}: the disk did not answer for {STALL_S:g} s") from None

    async def _in_reader(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._reads, work)

    async def _first_batch(self, subscription: Subscription, after: Revision) -> Batch:
        """What changed until now; the subscription tells the rest."""
        if self._compacted <= after == self._feed.position:
            return Batch((), after)
        part = await self._read(lambda connection: read_log(connection, subscription.prefix, after))
        subscription.start_after(part.revision)
        return Batch(tuple(change for _, change in part.changes), part.revision)

    async def _submit(self, job: Job) -> Revision:
        self._require_usable()
        done: asyncio.Future[Revision] = self._loop.create_future()
        self._waiting[job] = (time.monotonic(), done)
        self._writer.submit(job)
        return await done

    def _settle_from_thread(self, group: Group) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, group)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _settle(self, group: Group) -> None:
        if group.published:
            self._publish(group)
        for job, outcome in zip(group.jobs, group.outcomes, strict=True):
            waiting = self._waiting.pop(job, None)
            if waiting is None or waiting[1].done():
                continue
            if isinstance(outcome, StoreError):
                waiting[1].set_exception(outcome)
            else:
                waiting[1].set_result(outcome)

    def _publish(self, group: Group) -> None:
        if group.base == self._feed.position:
            for revision, changes in group.published:
                self._feed.publish(revision, changes)
        elif group.base > self._feed.position:
            self._look.set()  # others committed in between: read it all in order

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    async def _follow(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            try:
                part = await self._read(partial(read_log, prefix="", after=self._feed.position))
            except Compacted as error:
                await self._start_over(error)
            except StoreError as error:
                self._feed.fail(error)
            else:
                self._publish_log(part)

    async def _start_over(self, error: Compacted) -> None:
        """So far behind (a suspended machine) that deletions were purged meanwhile: every watch lists again."""
        try:
            self._feed.position, self._compacted = await self._read(read_marks)
        except StoreError:
            return
        self._feed.fail(error)

    def _publish_log(self, part: LogPart) -> None:
        pending: dict[Revision, list[Change]] = {}
        for revision, change in part.changes:
            if revision > self._feed.position:
                pending.setdefault(revision, []).append(change)
        for revision, changes in pending.items():
            self._feed.publish(revision, changes)
        if part.revision > self._feed.position:
            self._feed.publish(part.revision, ())

    async def _keep_looking(self) -> None:
        """Once a second: commits whose bell was lost, a file that was replaced, a disk that hangs, old deletions."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._fail_stalled()
            if self._bell is not None:
                self._bell.find_peers()
            trouble = self._writer.trouble()
            if not trouble and _inode(self._path) != self._inode:
                trouble = f"{self._path} was moved, removed or replaced; restart to use what is there now"
            if trouble:
                self._unusable = Broken(trouble)
                self._feed.fail(self._unusable)
                return
            try:
                data_version = await self._read(read_data_version)
                if data_version != self._data_version:
                    self._data_version = data_version
                    self._look.set()
                if self._feed.position - self._compacted > HISTORY + PURGE_EVERY:
                    await self.compact(HISTORY)
            except StoreError:
                continue  # told to whoever reads or writes

    def _fail_stalled(self) -> None:
        now = time.monotonic()
        for job, (since, done) in list(self._waiting.items()):
            if now - since < STALL_S:
                break  # in the order of their arrival
            del self._waiting[job]
            if not done.done():
                done.set_exception(Unknown(f"{self._path}: the disk did not answer for {STALL_S:g} s"))

    async def _refresh(self, session_id: str, ttl_s: float, *, is_new: bool = False) -> None:
        key = session_key(session_id)
        checks = () if is_new else (Present(key),)
        try:
            await self._submit(Job(checks, (Put(key, str(ttl_s).encode()),)))
        except Conflict:
            raise SessionLost("the session is gone") from None

    async def _sweep(self) -> None:
        while True:
            await self._sleep(SWEEP_EVERY_S * self._rng.uniform(0.8, 1.0))
            try:
                leases = await self._read(lambda connection: read_prefix(connection, SESSIONS))
                for lease in self._leases.expired(leases.entries, self._clock()):
                    await self._expire(lease)
            except StoreError:
                continue  # told to whoever reads or writes

    async def _expire(self, lease: Entry) -> None:
        try:
            await self._submit(Job((Unchanged(lease.key, lease.version),), ends=lease.key.removeprefix(SESSIONS)))
        except Conflict:
            return  # refreshed at the last moment

    def _require_usable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
