"""The store in memory: for tests, for `memory://`, and the plainest statement of what the contract means.

Several clients may share one `MemoryState`; a client that is closed leaves its sessions to run out, as a dead process
would. Everything is gone with the process. Never used where an acknowledged write must survive.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from backends.feed import Feed, Subscription
from backends.lease import Clock, HeldSession, Sleep, require_ttl
from backends.store import (
    Absent,
    Batch,
    Change,
    Check,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Put,
    Revision,
    Session,
    SessionLost,
    Snapshot,
    Unavailable,
    Write,
    require_floor,
)

HISTORY = 50_000  # deletions that are remembered for watches that resume
SWEEP_EVERY_S = 0.5


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Last:
    """The latest change of a key; what a resuming watch is told."""

    revision: Revision
    change: Change


class MemoryState:
    """What a server would hold."""

    def __init__(self, history: int = HISTORY) -> None:
        self.revision: Revision = 0
        self.compacted: Revision = 0
        self.entries: dict[str, Entry] = {}
        self.holders: dict[str, str] = {}  # key -> session
        self.leases: dict[str, _Lease] = {}
        self.feed = Feed()
        self._history = history
        self._last: dict[str, _Last] = {}  # in the order of revisions
        self._deleted = 0

    def failing(self, checks: Sequence[Check]) -> list[str]:
        return sorted({check.key for check in checks if not self._holds(check)})

    def apply(self, writes: Sequence[Write]) -> Revision:
        self.revision += 1
        changes = [change for write in writes if (change := self._write(write)) is not None]
        self.feed.publish(self.revision, changes)
        if self._deleted > 2 * self._history:
            self.compact(keep=self._history)
        return self.revision

    def end_session(self, session: str) -> None:
        if self.leases.pop(session, None) is not None:
            keys = [key for key, holder in self.holders.items() if holder == session]
            if keys:
                self.apply([Delete(key) for key in keys])

    def changes_after(self, prefix: str, after: Revision) -> tuple[Change, ...]:
        """
        Raises:
            Compacted: that far back, or ahead of us.
        """
        if after < self.compacted or after > self.revision:
            raise Compacted(f"revision {after}; there is {self.compacted} to {self.revision}")
        found = []
        for last in reversed(self._last.values()):
            if last.revision <= after:
                break
            if last.change.key.startswith(prefix):
                found.append(last.change)
        return tuple(reversed(found))

    def compact(self, keep: int = 0) -> None:
        """Forget all deletions but the latest `keep`."""
        gone = [last for last in self._last.values() if last.change.entry is None]
        for last in gone[: len(gone) - keep]:
            del self._last[last.change.key]
            self._deleted -= 1
            self.compacted = last.revision
        if not keep:
            self.compacted = self.revision

    def _holds(self, check: Check) -> bool:
        entry = self.entries.get(check.key)
        if isinstance(check, Absent):
            return entry is None
        return entry is not None and getattr(check, "version", entry.version) == entry.version

    def _write(self, write: Write) -> Change | None:
        key = write.key
        if isinstance(write, Put):
            entry = Entry(key, write.value, self.revision)
            self.entries[key] = entry
            change = Change(key, entry)
        elif self.entries.pop(key, None) is not None:
            change = Change(key, None)
            self._deleted += 1
        else:
            return None
        if isinstance(write, Put) and write.session is not None:
            self.holders[key] = write.session
        else:
            self.holders.pop(key, None)
        before = self._last.pop(key, None)
        if before is not None and before.change.entry is None:
            self._deleted -= 1
        self._last[key] = _Last(self.revision, change)
        return change


class MemoryStore:
    """A client of a `MemoryState`, its own unless one is given."""

    def __init__(
        self,
        state: MemoryState | None = None,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.state = state if state is not None else MemoryState()
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._new_id = new_id
        self._sessions: list[HeldSession] = []
        self._watches: set[Subscription] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        await self._begin()
        return self.state.entries.get(key)

    async def list(self, prefix: str) -> Snapshot:
        await self._begin()
        entries = self.state.entries
        found = tuple(entries[key] for key in sorted(entries) if key.startswith(prefix))
        return Snapshot(found, self.state.revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes)
        await self._begin()
        for write in writes:
            if isinstance(write, Put) and write.session is not None and write.session not in self.state.leases:
                raise SessionLost(f"{write.key}: its session is gone")
        failing = self.state.failing(checks)
        if failing:
            raise Conflict(failing)
        if not writes:
            return self.state.revision
        return self.state.apply(writes)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        self._require_open()
        first = self.state.changes_after(prefix, after)
        subscription = self.state.feed.subscribe(prefix, floor=self.state.revision)
        self._watches.add(subscription)
        try:
            yield Batch(first, self.state.revision)
            while True:
                yield await subscription.next()
        finally:
            self._watches.discard(subscription)
            self.state.feed.unsubscribe(subscription)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        self._require_open()
        ttl_s = require_ttl(ttl_s)
        session_id = resume or self._new_id()
        if resume is None:
            self.state.leases[session_id] = _Lease(ttl_s, 0)
        began = self._clock()
        await self._refresh(session_id, ttl_s)
        await self._begin()
        session = HeldSession(
            session_id,
            ttl_s,
            began,
            refresh=lambda: self._refresh(session_id, ttl_s),
            end=lambda: self._end(session_id),
            clock=self._clock,
            sleep=self._sleep,
            rng=self._rng,
        )
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for watch in self._watches:
            watch.fail(Unavailable("the store is closed"))
        for session in self._sessions:
            await session.release()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _refresh(self, session_id: str, ttl_s: float) -> None:
        lease = self.state.leases.get(session_id)
        if lease is None:
            raise SessionLost("the session is gone")
        lease.ttl_s = ttl_s
        lease.expires_at = self._clock() + ttl_s

    async def _end(self, session_id: str) -> None:
        self.state.end_session(session_id)

    async def _sweep(self) -> None:
        while True:
            await self._sleep(SWEEP_EVERY_S)
            now = self._clock()
            for session_id in [held for held, lease in self.state.leases.items() if lease.expires_at <= now]:
                self.state.end_session(session_id)

    async def _begin(self) -> None:
        """Like a real store, it lets others run before it answers."""
        await asyncio.sleep(0)
        self._require_open()
        if self._sweeper is None and self.state.leases:  # any client sees to the sessions of the dead
            self._sweeper = asyncio.create_task(self._sweep())

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
