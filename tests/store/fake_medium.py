"""A server cluster that does what a test says: loses answers, goes away, forgets, goes back in time, tells late.

`FakeServer` is the cluster, `FakeMedium` a client of it. Truthful where a medium must be: nothing acknowledged is lost
unless a backup is restored, and a state is never older than what was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from backends.feed import Subscription
from backends.medium import PRIVATE, PRIVATE_OPERATIONS, Step
from backends.memory import MemoryState
from backends.store import (
    MAX_OPERATIONS,
    Batch,
    Change,
    Check,
    Conflict,
    Entry,
    Revision,
    Snapshot,
    StoreError,
    Unavailable,
    Unknown,
    Write,
)


class FakeServer:
    """`reads_eagerly`: has every value at hand, as etcd and Consul; otherwise a state costs a read (ZooKeeper)."""

    def __init__(self, *, reads_eagerly: bool = False) -> None:
        self.state = MemoryState()
        self.reads_eagerly = reads_eagerly
        self.is_away = False
        self.loses_answers = 0
        self.loses_requests = 0
        self.reads: list[tuple[str, ...]] = []
        self.scans = 0
        self.commits: list[tuple[tuple[Check, ...], tuple[Write, ...]]] = []
        # A step that is under way waits here after the follower was asked what it wants.
        self.steps_pass = asyncio.Event()
        self.steps_pass.set()
        self.steps_waiting = 0

    def go_away(self, error: StoreError | None = None) -> None:
        self.is_away = True
        self.cut(error or Unavailable("injected: nobody there"))

    def come_back(self) -> None:
        self.is_away = False

    def cut(self, error: StoreError | None = None) -> None:
        """Every connection breaks."""
        self.state.feed.fail(error or Unavailable("injected: the connection is gone"))

    def backup(self) -> MemoryState:
        copy = MemoryState()
        copy.revision = copy.compacted = copy.feed.position = self.state.revision
        copy.entries = dict(self.state.entries)
        return copy

    def restore(self, backup: MemoryState) -> None:
        state, self.state = self.state, backup
        state.feed.fail(Unavailable("injected: the connection is gone"))


class FakeMedium:
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.is_closed = False
        self.followed_from: list[Revision | None] = []
        self._following: set[Subscription] = set()
        self.before_commit: Callable[[Sequence[Check], Sequence[Write]], None] = lambda checks, writes: None

    async def revision(self) -> Revision:
        await self._begin()
        return self._server.state.revision

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        assert len(keys) <= 64
        await self._begin()
        self._server.reads.append(tuple(keys))
        return [self._server.state.entries.get(key) for key in keys]

    async def scan(self, prefix: str) -> Snapshot:
        await self._begin()
        self._server.scans += 1
        entries = self._server.state.entries
        found = sorted(key for key in entries if key.startswith(prefix))
        if not prefix.startswith(PRIVATE):
            found = [key for key in found if not key.startswith(PRIVATE)]
        return Snapshot(tuple(entries[key] for key in found), self._server.state.revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write], *, is_told: bool = True) -> Revision:
        assert len(checks) + len(writes) <= MAX_OPERATIONS + PRIVATE_OPERATIONS - 1
        assert is_told or all(write.key.startswith(PRIVATE) for write in writes)
        self.before_commit(checks, writes)
        await self._begin()
        server = self._server
        if server.loses_requests:
            server.loses_requests -= 1
            raise Unknown("injected: the request was lost")
        failing = server.state.failing(checks)
        if failing:
            raise Conflict(failing)
        server.commits.append((tuple(checks), tuple(writes)))
        revision = server.state.apply(writes) if writes else server.state.revision
        if server.loses_answers and is_told:
            server.loses_answers -= 1
            raise Unknown("injected: the answer was lost")
        return revision

    async def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        await self._begin()
        self.followed_from.append(after)
        server, state = self._server, self._server.state
        first = () if after is None else state.changes_after("", after)
        subscription = state.feed.subscribe("", floor=state.revision)
        self._following.add(subscription)
        try:
            yield await self._step(Batch(first, state.revision), is_wanted)
            while True:
                batch = await subscription.next()
                if server.is_away:
                    raise Unavailable("injected: nobody there")
                yield await self._step(batch, is_wanted)
        finally:
            self._following.discard(subscription)
            state.feed.unsubscribe(subscription)

    async def close(self) -> None:
        self.is_closed = True
        for subscription in self._following:
            subscription.fail(Unavailable("closed"))

    async def _step(self, batch: Batch, is_wanted: Callable[[str], bool]) -> Step:
        changes: list[Change] = []
        unread: list[str] = []
        for change in batch.changes:
            if change.key.startswith(PRIVATE):
                continue
            if self._server.reads_eagerly or is_wanted(change.key):
                changes.append(change)
            else:
                unread.append(change.key)
        self._server.steps_waiting += 1
        await self._server.steps_pass.wait()
        self._server.steps_waiting -= 1
        return Step(batch.revision, tuple(changes), tuple(unread))

    async def _begin(self) -> None:
        """Like a real one, it lets others run before it answers."""
        await asyncio.sleep(0)
        if self.is_closed:
            raise Unavailable("closed")
        if self._server.is_away:
            raise Unavailable("injected: nobody there")
