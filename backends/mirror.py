"""A prefix of the store kept in memory and always in step; written once for all adapters.

Lists, watches from there, and after `Compacted` or a store that went back in time lists again and reports the
difference, deletions included. Gives up never: while the store is away the last known state stays, `stale_since` says
since when. Never writes, and never decides what a missing key means.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from backends.lease import Clock, Sleep
from backends.store import Batch, Change, Compacted, Entry, Revision, Snapshot, Store, StoreError
from kvnet.frames import without_frames

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0


class Mirror:
    """`on_change` is called on the loop, after `entries` has the new state and before anybody in `until` wakes.

    A deletion is a `Change` without an entry. After a resync it gets the net difference.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        on_change: Callable[[Sequence[Change]], None] | None = None,
        rng: random.Random | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.prefix = prefix
        self.revision: Revision = 0
        self.in_step = False
        self.stale_since: float | None = clock()
        self.last_error: StoreError | None = None
        # Told of every list but the first, before anything else is: the revision before it, and the list's own.
        self.on_list: Callable[[Revision, Revision], None] | None = None
        # Told where a batch changed nothing after all: what came and went between two of them is still progress.
        self.on_nothing: Callable[[], None] | None = None
        # Told of every failure, after `last_error` has it; what is known stays as it was.
        self.on_error: Callable[[StoreError], None] | None = None
        self._must_list = True
        self._following: asyncio.Task[None] | None = None
        self._store = store
        self._entries: dict[str, Entry] = {}
        self._view = MappingProxyType(self._entries)
        self._on_change = on_change
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        self._first = asyncio.Event()
        self._waiting: list[tuple[Revision, int, asyncio.Future[None]]] = []
        self._waiters = 0

    @property
    def entries(self) -> Mapping[str, Entry]:
        """A live view, not a copy."""
        return self._view

    async def run(self) -> None:
        """Stay in step until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            progress = self.revision
            try:
                if self._must_list:
                    snapshot = await self._store.list(self.prefix)
                    self._must_list = False
                    self._adopt(snapshot)
                if not self._must_list:
                    await self._follow()
            except Compacted as error:
                self._note(error)
                self._must_list = True
            except StoreError as error:
                self._note(error)
            if self.revision != progress:
                backoff_s = FIRST_BACKOFF_S
            await self._sleep(backoff_s * self._rng.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    def relist(self) -> None:
        """List again, whatever the watch says: the store may be another one than that which the watch began on."""
        self._must_list = True
        if self._following is not None:
            self._following.cancel()

    async def until_in_step(self, timeout_s: float) -> None:
        """Return when the first list is in.

        Raises:
            TimeoutError: not within `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            await self._first.wait()

    async def until(self, revision: Revision, timeout_s: float) -> None:
        """Return when everything up to `revision` is in `entries`; callers wake in the order of their revisions.

        At once when that revision changed this prefix; when it did not, with the store's next sign of progress.

        Raises:
            TimeoutError: not within `timeout_s`.
        """
        if self.in_step and self.revision >= revision:
            return
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        self._waiters += 1
        heapq.heappush(self._waiting, (revision, self._waiters, arrived))
        too_late = loop.call_later(timeout_s, _give_up, arrived)
        try:
            await arrived
        finally:
            too_late.cancel()

    async def _follow(self) -> None:
        """Until the watch fails, or somebody wants a list."""
        following = self._following = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((following,))
        finally:
            self._following = None
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            elif not following.cancelled():
                following.exception()  # looked at, also where this mirror is ended in the very same moment
        if not following.cancelled():
            following.result()

    async def _watch(self) -> None:
        async for batch in self._store.watch(self.prefix, self.revision):
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        entries = self._entries
        fresh = []
        for change in batch.changes:
            known = entries.get(change.key)
            if change.entry is None:
                if known is None:
                    continue
                del entries[change.key]
            elif known is not None and known.version == change.entry.version:
                continue
            else:
                entries[change.key] = change.entry
            fresh.append(change)
        self._arrive(fresh, max(batch.revision, self.revision))
        if batch.changes and not fresh and self.on_nothing is not None:
            self.on_nothing()

    def _adopt(self, snapshot: Snapshot) -> None:
        if self.in_step and self.on_list is not None:
            self.on_list(self.revision, snapshot.revision)
        entries = self._entries
        present = {entry.key for entry in snapshot.entries}
        fresh = [Change(key, None) for key in entries if key not in present]
        for change in fresh:
            del entries[change.key]
        for entry in snapshot.entries:
            known = entries.get(entry.key)
            if known != entry:
                entries[entry.key] = entry
                fresh.append(Change(entry.key, entry))
        self.in_step = True
        self._arrive(fresh, snapshot.revision)
        self._first.set()

    def _arrive(self, fresh: Sequence[Change], revision: Revision) -> None:
        self.revision = revision
        self.stale_since = None
        self.last_error = None
        if fresh and self._on_change is not None:
            self._on_change(fresh)
        waiting = self._waiting
        while waiting and waiting[0][0] <= revision:
            arrived = heapq.heappop(waiting)[2]
            if not arrived.done():
                arrived.set_result(None)

    def _note(self, error: StoreError) -> None:
        self.last_error = without_frames(error)  # the task that failed has it, too, and its frames have the task
        if self.stale_since is None:
            self.stale_since = self._clock()
        if self.on_error is not None:
            self.on_error(error)


def _give_up(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_exception(TimeoutError())
