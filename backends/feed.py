"""Fans committed changes out to the watches of one process.

Level-triggered: a slow watch keeps only the latest state of each key, so its backlog is bounded by the keys under its
prefix. Belongs to one event loop; knows nothing of where the changes come from and never does I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from backends.store import Batch, Change, Compacted, Revision, StoreError

MAX_BACKLOG = 200_000
MAX_ROUTES = 10_000
# Watches whose prefix is not touched are told the progress of the store too, but together at most this often.
PROGRESS_PER_SECOND = 500


class Subscription:
    """One watch: what it has not been told yet."""

    def __init__(self, feed: Feed, prefix: str, floor: Revision) -> None:
        self.prefix = prefix
        self.floor = floor
        self._feed = feed
        self._pending: dict[str, tuple[Revision, Change]] = {}
        self._error: StoreError | None = None
        self._wake = asyncio.Event()

    def offer(self, revision: Revision, change: Change) -> None:
        if revision <= self.floor or self._error is not None:
            return
        pending = self._pending
        pending.pop(change.key, None)  # re-inserted last: a batch is in the order of revisions
        pending[change.key] = (revision, change)
        if len(pending) > MAX_BACKLOG:
            self.fail(Compacted(f"a watch of {self.prefix!r} fell {MAX_BACKLOG} changes behind"))
        self._wake.set()

    def start_after(self, revision: Revision) -> None:
        """Everything until `revision` was told in another way: what waits from before would be a step back."""
        self.floor = revision
        self._pending = {key: dated for key, dated in self._pending.items() if dated[0] > revision}

    def fail(self, error: StoreError) -> None:
        self._pending.clear()
        self._error = error
        self._wake.set()

    def tell_progress(self) -> None:
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        return not self._wake.is_set()

    async def next(self) -> Batch:
        """The changes since the last call; waits until there is something to tell.

        Raises:
            StoreError: what `fail` was given.
        """
        await self._wake.wait()
        if self._error is not None:
            raise self._error
        self._wake.clear()
        changes, self._pending = tuple([change for _, change in self._pending.values()]), {}
        return Batch(changes, max(self._feed.position, self.floor))


class Feed:
    """`position` is the revision up to which everything has been published."""

    def __init__(self, position: Revision = 0) -> None:
        self.position = position
        # By the directory of the prefix, so that a change costs its depth and not the number of watches.
        self._by_directory: dict[str, list[Subscription]] = {}
        # By the directory of a key: whose prefix is there or above, looked up once.
        self._routes: dict[str, tuple[Subscription, ...]] = {}
        self._count = 0
        self._progress: asyncio.TimerHandle | None = None

    def subscribe(self, prefix: str, floor: Revision = 0) -> Subscription:
        """Told of changes above `floor` from now on; end it with `unsubscribe`."""
        subscription = Subscription(self, prefix, floor)
        self._by_directory.setdefault(_directory(prefix), []).append(subscription)
        self._routes.clear()
        self._count += 1
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        directory = _directory(subscription.prefix)
        remaining = self._by_directory[directory]
        remaining.remove(subscription)
        if not remaining:
            del self._by_directory[directory]
        self._routes.clear()
        self._count -= 1

    def publish(self, revision: Revision, changes: Iterable[Change]) -> None:
        """Tell what the transaction with this revision changed. Revisions only grow."""
        self.position = revision
        if not self._count:
            return
        routes = self._routes
        for change in changes:
            key = change.key
            directory = key[: key.rfind("/") + 1]
            route = routes.get(directory)
            if route is None:
                route = self._route(directory)
            for subscription in route:
                if key.startswith(subscription.prefix):
                    subscription.offer(revision, change)
        if self._progress is None:
            delay_s = self._count / PROGRESS_PER_SECOND
            self._progress = asyncio.get_running_loop().call_later(delay_s, self._tell_progress)

    def wants(self, key: str) -> bool:
        """Whether a watch would be told of this key."""
        directory = key[: key.rfind("/") + 1]
        route = self._routes.get(directory)
        return any(key.startswith(one.prefix) for one in (self._route(directory) if route is None else route))

    def fail(self, error: StoreError) -> None:
        """End every watch with this error."""
        for subscription in list(self._all()):
            subscription.fail(error)

    def close(self, error: StoreError) -> None:
        if self._progress is not None:
            self._progress.cancel()
        self.fail(error)

    def _route(self, directory: str) -> tuple[Subscription, ...]:
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        ends = [0, *(at + 1 for at, letter in enumerate(directory) if letter == "/")]
        route = tuple(one for end in ends for one in self._by_directory.get(directory[:end], ()))
        self._routes[directory] = route
        return route

    def _tell_progress(self) -> None:
        self._progress = None
        for subscription in self._all():
            subscription.tell_progress()

    def _all(self) -> Iterator[Subscription]:
        for subscriptions in self._by_directory.values():
            yield from subscriptions


def _directory(prefix: str) -> str:
    return prefix[: prefix.rfind("/") + 1]
