"""All watches of one client on few connections, in the end on one.

Watches that begin together share a connection at once; when it has been calm for a moment, all go over to a single new
one, from where each has come to. So a host with a dozen watches costs the controller, and itself, one connection with
its buffers. What a watch promises stays: in order, nothing left out, and what breaks a connection is an error of each
of its watches. Only what comes in several lines (`controller.api.store_watch`) may begin anew where a connection is
exchanged in its middle. A watch that nobody reads holds nobody up: it is let go, and whoever reads again resumes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backends import gateway_wire as wire
from backends.store import Batch, Broken, Revision, Unavailable
from kvnet.frames import without_frames

GATHER_S = 0.005
CALM_S = 3.0
# With so many connections it is not waited for calm.
MANY = 8
# Batches of a watch that were not read yet.
UNREAD = 1_000

# Opens a connection for these watches and passes on what comes, decoded, until it ends.
Open = Callable[[Sequence[wire.Watched]], AsyncGenerator[object, None]]


class OneEach(Exception):
    """That is a controller of before: every watch needs a connection of its own there."""


@dataclass(slots=True, eq=False)
class _Watch:
    """`revision`: up to which its reader has, or will read, everything."""

    id: int
    prefix: str
    revision: Revision
    is_over: bool = False
    _batches: deque[Batch] = field(default_factory=deque)
    _error: Exception | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, batch: Batch) -> None:
        if self.is_over:
            return
        if len(self._batches) >= UNREAD:
            self.fail(Unavailable(f"the watch of {self.prefix} has {UNREAD} unread batches"))
            return
        self._batches.append(batch)
        self.revision = batch.revision
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        if not self.is_over:
            self.is_over = True
            self._error = copy.copy(error)  # each reader raises its own, without the frames of the connection
            self._arrived.set()

    async def next(self) -> Batch:
        while not self._batches:
            error, self._error = self._error, None  # an error that is kept keeps the frames that it is raised through
            if error is not None:
                raise error
            self._arrived.clear()
            await self._arrived.wait()
        return self._batches.popleft()


class Watches:
    """`calm_s`: after so long without a new watch all go over to one connection."""

    def __init__(self, open_: Open, *, calm_s: float = CALM_S) -> None:
        self._open = open_
        self._calm_s = calm_s
        self._ids = itertools.count(1)
        self._living: set[_Watch] = set()
        self._fresh: list[_Watch] = []
        self._carried: dict[asyncio.Task[None], list[_Watch]] = {}
        self._one_each = False
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Batch, None]:
        """
        Raises:
            StoreError, ValueError: what the controller says of it, or what befell its connection.
        """
        watch = _Watch(next(self._ids), prefix, after)
        self._living.add(watch)
        self._fresh.append(watch)
        self._wake.set()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        try:
            while True:
                yield await watch.next()
        finally:
            watch.is_over = True
            self._living.discard(watch)
            self._wake.set()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        """As long as somebody watches."""
        try:
            while self._fresh:
                async with asyncio.TaskGroup() as group:
                    while self._fresh or self._carried:
                        await self._step(group)
        finally:
            for watch in self._living:
                watch.fail(Unavailable("the client was closed"))
            self._fresh, self._carried = [], {}

    async def _step(self, group: asyncio.TaskGroup) -> None:
        self._let_go()
        if self._fresh:
            await asyncio.sleep(GATHER_S)
            fresh, self._fresh = self._fresh, []
            self._carry(group, fresh)
        elif self._is_scattered:
            if len(self._carried) >= MANY or not await self._changes_soon():
                self._gather(group)
        elif self._carried:
            await self._changed()

    @property
    def _is_scattered(self) -> bool:
        """Over more connections than it takes, or one tells of watches that nobody has any more."""
        everyone = [watch for watches in self._carried.values() for watch in watches]
        some_over = any(watch.is_over for watch in everyone)
        few = -(-len(everyone) // wire.MOST_WATCHES)
        return not self._one_each and (len(self._carried) > few or some_over)

    async def _changed(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def _changes_soon(self) -> bool:
        try:
            async with asyncio.timeout(self._calm_s):
                await self._changed()
        except TimeoutError:
            return False
        return True

    def _let_go(self) -> None:
        """Of connections whose watches all ended."""
        for task in [task for task, watches in self._carried.items() if all(watch.is_over for watch in watches)]:
            del self._carried[task]
            task.cancel()

    def _gather(self, group: asyncio.TaskGroup) -> None:
        """Onto one new connection. Nothing of the old ones arrives once they are cancelled."""
        everyone = [watch for watches in self._carried.values() for watch in watches]
        for task in self._carried:
            task.cancel()
        self._carried = {}
        self._carry(group, everyone)

    def _carry(self, group: asyncio.TaskGroup, watches: Sequence[_Watch]) -> None:
        living = [watch for watch in watches if not watch.is_over]
        size = 1 if self._one_each else wire.MOST_WATCHES
        for start in range(0, len(living), size):
            part = living[start : start + size]
            asked = [wire.Watched(None if self._one_each else one.id, one.prefix, one.revision) for one in part]
            by_id = {told.id: watch for told, watch in zip(asked, part, strict=True)}
            task = group.create_task(self._follow(asked, by_id))
            self._carried[task] = part
            task.add_done_callback(self._ended)

    async def _follow(self, asked: Sequence[wire.Watched], by_id: Mapping[int | None, _Watch]) -> None:
        error: Exception
        try:
            async with contextlib.aclosing(self._open(asked)) as told:
                async for plain in told:
                    _deliver(by_id, plain)
            error = Unavailable("the connection has ended")
        except OneEach:
            self._one_each = True
            self._fresh += by_id.values()
            return
        except Exception as failed:  # noqa: BLE001 - it is raised where the watches are read
            error = without_frames(failed)
        self._one_each = False  # it may be another controller the next time
        for watch in by_id.values():
            watch.fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._carried.pop(task, None)
        self._wake.set()


def _deliver(by_id: Mapping[int | None, _Watch], plain: object) -> None:
    """
    Raises:
        Broken: that is no line of ours.
    """
    if wire.is_sign_of_life(plain):
        for watch in by_id.values():
            watch.put(Batch((), watch.revision))
        return
    named = plain.get("watch") if isinstance(plain, dict) else None
    if named is None and None not in by_id:
        raise wire.error_from_json(plain) or Broken("a line of no watch: that is not the store gateway's language")
    found = by_id.get(named)
    if found is None:
        return  # of a watch that was never asked for
    error = wire.error_from_json(plain)
    if error is not None:
        found.fail(error)
        return
    try:
        found.put(wire.batch_from_json(plain))
    except ValueError as malformed:
        raise Broken(f"that is not the store gateway's language: {malformed}") from malformed
