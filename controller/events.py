"""The journal as a stream: what changed, in the order it was committed, resumable by revision.

Built from the journal's mirror, so it tells what every replica did. A subscriber's queue is bounded: who is too slow is
told `Gone` and starts again from a fresh list; memory never grows with a client that does not read.
Hosts coming and going are told too, but are not in the journal: they cannot be replayed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Self
from weakref import WeakSet

from backends.store import Change
from controller import journal
from controller.views import Bookmark, Event
from kvnet import codec, keys
from kvnet.errors import Gone, StoreBroken
from kvnet.model import Alive, Versioned

REMEMBERED_BATCHES = 64  # decoded once for all subscribers that are about as far
_WITH_NETWORK = (keys.NETWORKS, keys.ENDPOINTS, keys.ADDRESSES, keys.BLOCKS)


class EventLog:
    """What is kept of the journal, and who listens."""

    def __init__(self, queue: int, bookmark_interval_s: float) -> None:
        self._queue = queue
        self._bookmark_interval_s = bookmark_interval_s
        self._kept: dict[int, bytes] = {}
        self._revision_of: dict[str, int] = {}
        self._decoded: dict[int, tuple[Event, ...]] = {}
        self._subscribers: WeakSet[Subscription] = WeakSet()
        self._floor = 0
        self.dropped = 0  # subscribers that did not read fast enough
        self.revision = 0

    def since(self, revision: int | None = None) -> Subscription:
        """Everything after `revision` and then what happens; without it only what happens from now on.

        Raises:
            Gone: `revision` is older than what is kept.
        """
        start = self.revision if revision is None else revision
        if start < self._floor:
            raise _gone(f"revision {start} is older than what is kept (from {self._floor})", kept_from=self._floor)
        backlog = sorted(kept for kept in self._kept if kept > start)
        subscription = Subscription(self, start, backlog, self._queue, self._bookmark_interval_s)
        self._subscribers.add(subscription)
        return subscription

    def on_change(self, changes: Sequence[Change]) -> None:
        """For the journal's mirror: also called with everything that is there at the start."""
        fresh: list[tuple[int, bytes]] = []
        for change in changes:
            if change.key == keys.JOURNAL_FLOOR:
                if change.entry is not None:
                    self.raise_floor(journal.floor(change.entry.value))
            elif change.entry is None:
                self._forget(change.key)
            elif self._revision_of.get(change.key) != change.entry.version:
                self._kept.pop(self._revision_of.get(change.key, 0), None)
                self._revision_of[change.key] = change.entry.version
                fresh.append((change.entry.version, change.entry.value))
        for revision, value in sorted(fresh):
            self._kept[revision] = value
            self.revision = max(self.revision, revision)
            for subscriber in list(self._subscribers):
                subscriber.offer(revision)

    def raise_floor(self, revision: int) -> None:
        """Everything up to `revision` may have been removed from the journal, by whichever replica."""
        self._floor = max(self._floor, revision)

    def went_back(self, revision: int) -> None:
        """The store did: what was told from above `revision` did not happen, and its numbers are given anew."""
        self._revision_of = {key: version for key, version in self._revision_of.items() if version <= revision}
        self._kept = {version: value for version, value in self._kept.items() if version <= revision}
        self._decoded.clear()
        self._floor = min(self._floor, revision)
        self.revision = min(self.revision, revision)
        for subscriber in list(self._subscribers):
            subscriber.cut(f"the store went back to revision {revision}")

    def tell_host(
        self, host: str, before: Versioned[Alive] | None, after: Versioned[Alive] | None, at: float, revision: int
    ) -> None:
        """A host came, went or came back as another incarnation: the journal does not have these."""
        event = Event(
            revision=after.version if after else revision,
            kind="host.up" if after else "host.down",
            at=at,
            key=keys.alive(host),
            network="",
            actor=host,
            request_id="",
            source="session",
            before=codec.to_json(before.value) if before else None,
            after=codec.to_json(after.value) if after else None,
            resumable=False,
        )
        for subscriber in list(self._subscribers):
            subscriber.offer(event)

    def close(self) -> None:
        for subscriber in list(self._subscribers):
            subscriber.cut("the controller stops")

    def events_of(self, revision: int) -> tuple[Event, ...] | None:
        """None if it is no longer kept."""
        known = self._decoded.get(revision)
        if known is None:
            value = self._kept.get(revision)
            if value is None:
                return None
            if len(self._decoded) >= REMEMBERED_BATCHES:
                del self._decoded[next(iter(self._decoded))]
            known = self._decoded[revision] = _events(revision, value)
        return known

    def moment(self, revision: int) -> float | None:
        """When the commit of that revision was made; None if the journal does not have it (any more)."""
        value = self._kept.get(revision)
        return None if value is None else journal.moment(value)

    @property
    def floor(self) -> int:
        """Changes up to this revision may be missing."""
        return self._floor

    def newest_first(self, words: Sequence[Sequence[bytes]]) -> Iterator[int]:
        """The revisions that are kept and have, of each of the alternatives, one in their bytes."""
        for revision in sorted(self._kept, reverse=True):
            value = self._kept[revision]
            if all(any(word in value for word in alternatives) for alternatives in words):
                yield revision

    def drop(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    def _forget(self, key: str) -> None:
        revision = self._revision_of.pop(key, None)
        if revision is not None:
            self._kept.pop(revision, None)
            self.raise_floor(revision)


class Subscription:
    """An async iterator of events and bookmarks; ends with `Gone` when its reader was too slow."""

    def __init__(
        self, log: EventLog, start: int, backlog: Sequence[int], queue: int, bookmark_interval_s: float
    ) -> None:
        self._log = log
        self._told = start
        self._waiting: deque[int | Event] = deque(backlog)
        self._limit = len(backlog) + queue
        self._ready: deque[Event] = deque()
        self._bell = asyncio.Event()
        self._interval_s = bookmark_interval_s
        self._cut_because = ""

    def offer(self, item: int | Event) -> None:
        if isinstance(item, int) and item <= self._told:
            return
        if len(self._waiting) >= self._limit:
            self._log.dropped += 1
            self.cut(f"more than {self._limit} changes were waiting to be read")
            return
        self._waiting.append(item)
        self._bell.set()

    def cut(self, why: str) -> None:
        self._cut_because = why
        self._log.drop(self)
        self._bell.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Bookmark:
        while not self._ready:
            if self._cut_because:
                raise _gone(self._cut_because)
            if not self._waiting and not await self._rings_in_time():
                return Bookmark(self._told)
            self._bell.clear()
            if self._waiting and not self._cut_because:
                self._take(self._waiting.popleft())
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._log.drop(self)

    def _take(self, item: int | Event) -> None:
        if isinstance(item, Event):
            self._ready.append(item)
            return
        events = self._log.events_of(item)
        if events is None:
            self.cut(f"revision {item} was removed from the journal before it was read")
        else:
            self._told = max(self._told, item)
            self._ready.extend(events)

    async def _rings_in_time(self) -> bool:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True


def _events(revision: int, value: bytes) -> tuple[Event, ...]:
    try:
        written = journal.entries(value)
    except StoreBroken:
        return ()
    flat = [(entry, change) for entry in written for change in entry.changes]
    return tuple(
        Event(
            revision=revision,
            kind=change.kind,
            at=entry.at,
            key=change.key,
            network=_network_of(change.key),
            actor=entry.actor,
            request_id=entry.request_id,
            source=entry.source,
            before=change.before,
            after=change.after,
            resumable=i == len(flat) - 1,
        )
        for i, (entry, change) in enumerate(flat)
    )


def _network_of(key: str) -> str:
    return key.split("/", 2)[1] if key.startswith(_WITH_NETWORK) else ""


def _gone(why: str, **facts: int) -> Gone:
    fix = "list again and continue from the list's revision"
    return Gone(f"the position cannot be resumed: {why}", fix=fix, context=facts)
