"""The store contract made of a medium and a way to keep sessions: what etcd, Consul and ZooKeeper have in common.

One follower per client goes through everything that is committed and tells the watches; so thousands of watches cost
the servers one. What it heard lately is kept, so that a watch resumes without asking them. Never tells a watch less
than it promises: where the follower lost the thread, watches end and say why.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from backends.feed import Feed, Subscription
from backends.history import MAX_KEYS, History, Last
from backends.lease import Clock, HeldSession, Sleep, require_ttl
from backends.medium import PRIVATE, Medium, Sessions, Step
from backends.store import (
    FLOOR,
    Batch,
    Broken,
    Change,
    Check,
    Compacted,
    Entry,
    Refused,
    Revision,
    Room,
    Session,
    Snapshot,
    StoreError,
    TooLarge,
    Unavailable,
    Write,
    require_floor,
    require_key,
)
from kvnet.errors import KvnetError, StoreBroken, StoreForbidden, StoreUnavailable

# How long `open` waits for the servers, and a watch for a follower that is just coming back.
OPEN_S = 5.0
RETURN_S = 1.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0
# A connection that lasted so long was a good one: the next attempt comes at once again.
LASTED_S = 5.0
MAX_READ = 64


class FollowedStore:
    """Made by `open`. Lives on the event loop that opened it."""

    def __init__(
        self,
        medium: Medium,
        sessions: Sessions,
        *,
        clock: Clock,
        sleep: Sleep,
        rng: random.Random,
        max_history: int,
        room: Room,
    ) -> None:
        self.room = room
        self._medium = medium
        self._keeper = sessions
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._feed = Feed()
        self._history = History(max_history)
        self._following = asyncio.Event()
        self._moved = asyncio.Condition()
        self._error: StoreError = Unavailable("the store has not answered yet")
        self._held: list[HeldSession] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @classmethod
    async def open(
        cls,
        medium: Medium,
        sessions: Sessions,
        *,
        must_answer: bool = True,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        max_history: int = MAX_KEYS,
        room: Room = FLOOR,
    ) -> FollowedStore:
        """A store that owns `medium`. With `must_answer=False` it is there also while its servers are away.

        `room`: of a commit, where that may be more than the floor.

        Raises:
            StoreUnavailable, StoreForbidden, StoreBroken: it cannot be followed; the medium is closed.
        """
        store = cls(
            medium,
            sessions,
            clock=clock,
            sleep=sleep,
            rng=rng or random.Random(),
            max_history=max_history,
            room=room,
        )
        store._tasks = [asyncio.create_task(store._follow()), asyncio.create_task(store._keep_sessions())]
        if must_answer:
            try:
                async with asyncio.timeout(OPEN_S):
                    await store._following.wait()
            except TimeoutError:
                error = store._error
                await store.close()
                raise _at_the_door(error) from error
            except BaseException:
                await store.close()
                raise
        return store

    async def get(self, key: str) -> Entry | None:
        self._require_open()
        if not _may_exist(key):
            return None
        [entry] = await self._medium.read([key])
        return None if entry is None else self._keeper.seen(entry)

    async def list(self, prefix: str) -> Snapshot:
        self._require_open()
        snapshot = await self._medium.scan(prefix)
        seen = self._keeper.seen
        return Snapshot(
            tuple(seen(entry) for entry in snapshot.entries if not entry.key.startswith(PRIVATE)), snapshot.revision
        )

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes, self.room)
        for operation in (*checks, *writes):
            if operation.key.startswith(PRIVATE):
                raise ValueError(f"{operation.key} is the store's own: keys do not begin with {PRIVATE}")
        self._require_open()
        return await self._keeper.commit(checks, writes)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        await self._until_following()
        subscription = self._feed.subscribe(prefix, floor=max(after, self._feed.position))
        try:
            yield await self._first_batch(subscription, after)
            while True:
                yield await subscription.next()
        finally:
            self._feed.unsubscribe(subscription)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        ttl_s = require_ttl(ttl_s)
        self._require_open()
        began = self._clock()
        if resume is None:
            session_id = await self._keeper.grant(ttl_s)
        else:
            session_id = resume
            await self._keeper.refresh(session_id, ttl_s)
        session = HeldSession(
            session_id,
            ttl_s,
            began,
            refresh=lambda: self._keeper.refresh(session_id, ttl_s),
            end=lambda: self._keeper.revoke(session_id),
            clock=self._clock,
            sleep=self._sleep,
            rng=self._rng,
        )
        self._held = [held for held in self._held if not held.is_over]
        self._held.append(session)
        return session

    async def forget_history(self) -> None:
        """What a compaction of everything up to now does: a watch that resumes from before is `Compacted`."""
        newest = await self._medium.revision()
        async with asyncio.timeout(OPEN_S), self._moved:
            await self._moved.wait_for(lambda: self._feed.position >= newest)
        self._history.begin(self._feed.position)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._error = Unavailable("the store is closed")
        self._feed.close(self._error)
        for session in self._held:
            await session.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._medium.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _follow(self) -> None:
        after: Revision | None = None
        backoff_s = FIRST_BACKOFF_S
        try:
            while True:
                began = self._clock()
                try:
                    await self._follow_from(after)
                except Compacted as error:
                    self._lose(error, Compacted(f"what changed meanwhile is not known: {error}"))
                    after = None
                except StoreError as error:
                    after = self._feed.position if self._following.is_set() else after
                    self._lose(error, error)
                if self._clock() - began > LASTED_S:
                    backoff_s = FIRST_BACKOFF_S
                await self._sleep(backoff_s * self._rng.uniform(0.5, 1.0))
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        finally:
            self._lose(Unavailable("the store is not followed any more"), Unavailable("the store is closed"))

    async def _follow_from(self, after: Revision | None) -> None:
        """
        Raises:
            StoreError: always, at the end.
        """
        steps = self._medium.follow(after, self._is_wanted)
        try:
            async for step in steps:
                if not self._following.is_set() and after is None:
                    self._feed.position = step.revision
                    self._history.begin(step.revision)
                await self._take(step)
        finally:
            if isinstance(steps, AsyncGenerator):
                await steps.aclose()
        raise Unavailable("the store ended the connection")

    async def _take(self, step: Step) -> None:
        if step.revision < self._feed.position:
            raise Compacted(f"the store went back from revision {self._feed.position} to {step.revision}")
        changes = [self._seen(change) for change in step.changes if not change.key.startswith(PRIVATE)]
        unread = [key for key in step.unread if not key.startswith(PRIVATE)]
        # A watch may have come since the medium asked whether anybody wants these, and another while they are read.
        while late := {key: None for key in unread if self._feed.wants(key)}:
            changes += await self._read(list(late), step.revision)
            unread = [key for key in unread if key not in late]
        self._history.add(step.revision, changes, unread)
        self._feed.publish(step.revision, changes)
        self._following.set()
        async with self._moved:
            self._moved.notify_all()

    def _seen(self, change: Change) -> Change:
        """As the contract shows it. Most is so already, and every replica hears of every write."""
        entry = change.entry
        if entry is None:
            return change
        seen = self._keeper.seen(entry)
        return change if seen is entry else Change(change.key, seen)

    def _is_wanted(self, key: str) -> bool:
        return not key.startswith(PRIVATE) and self._feed.wants(key)

    async def _read(self, keys: Sequence[str], revision: Revision) -> Sequence[Change]:
        """The keys' state as far as it can be told up to `revision`: what is newer comes with a later step."""
        changes = []
        for start in range(0, len(keys), MAX_READ):
            some = keys[start : start + MAX_READ]
            for key, entry in zip(some, await self._medium.read(some), strict=True):
                if entry is None:
                    changes.append(Change(key, None))
                elif entry.version <= revision:
                    changes.append(Change(key, self._keeper.seen(entry)))
        return changes

    async def _first_batch(self, subscription: Subscription, after: Revision) -> Batch:
        position = self._feed.position
        if after > position:
            # A list or a commit may have told a revision that the follower has not heard of yet.
            newest = await self._medium.revision()
            if after > newest:
                raise Compacted(f"revision {after}; the store is at {newest}")
            return Batch((), after)
        if after == 0 and self._history.start > 0:
            return await self._everything(subscription)
        found = self._history.after(subscription.prefix, after)
        return Batch(await self._known(found, position), position)

    async def _known(self, found: Sequence[Last], position: Revision) -> tuple[Change, ...]:
        unread = [last.key for last in found if last.change is None]
        fetched = {change.key: change for change in await self._read(unread, position)}
        told = [last.change or fetched.get(last.key) for last in found]
        return tuple(change for change in told if change is not None)

    async def _everything(self, subscription: Subscription) -> Batch:
        """At revision 0 there was nothing: all that is there now has changed since."""
        position = subscription.floor
        snapshot = await self.list(subscription.prefix)
        told = [Change(entry.key, entry) for entry in sorted(snapshot.entries, key=lambda entry: entry.version)]
        if snapshot.revision < position:  # a list may be behind, the batch must not be
            since = self._history.after(subscription.prefix, snapshot.revision)
            told += await self._known(since, max(position, self._feed.position))
        else:
            subscription.start_after(snapshot.revision)
        return Batch(tuple(told), subscription.floor)

    async def _keep_sessions(self) -> None:
        while True:
            try:
                await self._keeper.run()
                return  # nothing to do on this store
            except StoreError:
                await self._sleep(MAX_BACKOFF_S * self._rng.uniform(0.5, 1.0))

    async def _until_following(self) -> None:
        self._require_open()
        if not self._following.is_set():
            try:
                async with asyncio.timeout(RETURN_S):
                    await self._following.wait()
            except TimeoutError:
                raise type(self._error)(*self._error.args) from None
        self._require_open()

    def _lose(self, error: StoreError, told: StoreError) -> None:
        self._following.clear()
        if not self._closed:
            self._error = error if not isinstance(error, Compacted) else Unavailable(str(error))
        self._feed.fail(told)

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


def _may_exist(key: str) -> bool:
    try:
        require_key(key)
    except (ValueError, TooLarge):
        return False
    return not key.startswith(PRIVATE)


def _at_the_door(error: StoreError) -> KvnetError:
    if isinstance(error, Refused):
        return StoreForbidden(str(error), fix="give these credentials the right to read and write under the root")
    if isinstance(error, Broken):
        return StoreBroken(str(error))
    return StoreUnavailable(
        f"the store cannot be used yet: {error}",
        fix="check that its servers run and can be reached from here, and that a majority of them is up",
    )
