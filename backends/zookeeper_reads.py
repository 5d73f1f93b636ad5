"""Reads that are as new as every acknowledged commit, and many nodes at once.

A ZooKeeper server answers reads by itself, late as it may be; its `sync` catches up with the leader, but a leader that
was cut off does not know that it is none (ZOOKEEPER-1675). So a read follows a *barrier* on the same connection: a
deletion that is refused, which like every write takes a quorum to say. Reads that come together share one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from kazoo.exceptions import KazooException, NoAuthError, NoNodeError, UnimplementedError

from backends.medium import REQUEST_TIMEOUT_S
from backends.store import Refused, StoreError, Unavailable
from backends.zookeeper_bridge import Bridge
from backends.zookeeper_nodes import Layout
from backends.zookeeper_wire import NO_AUTH, NO_NODE, Children, Get, MultiRead, Node, Read, Remove, Stat

# A request must stay below 1 MB (jute.maxbuffer); 500 of the longest names do.
BATCH = 500
BATCH_WITHOUT_MULTI = 50
# Batches of a large read that are under way together, and batches of small ones.
AHEAD = 4
TOGETHER = 4

Waiter = tuple[Sequence[str], asyncio.Future[list[Read]]]


class Reads:
    """`has_multi`: found out by trying; servers before 3.6 do not have it."""

    def __init__(self, bridge: Bridge, layout: Layout) -> None:
        self.has_multi = True
        self._bridge = bridge
        self._layout = layout
        self._waiting: deque[Waiter] = deque()
        self._under_way = 0

    async def barrier(self) -> None:
        """What is read from now on is as new as every commit acknowledged before the call."""
        with contextlib.suppress(NoNodeError):
            await self._bridge.ask(Remove(self._layout.barrier))

    async def newest(self, paths: Sequence[str]) -> list[Read]:
        """The nodes at `paths`, behind a barrier.

        Raises:
            Unavailable, Refused, Broken
        """
        await self._bridge.until_connected()
        waiter: asyncio.Future[list[Read]] = asyncio.get_running_loop().create_future()
        self._waiting.append((paths, waiter))
        self._flush()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await waiter
        except TimeoutError:
            raise Unavailable(f"{self._bridge.url} did not answer within {REQUEST_TIMEOUT_S:g} s") from None

    def _flush(self) -> None:
        while self._waiting and self._under_way < TOGETHER:
            taken, count = [self._waiting.popleft()], 0
            while self._waiting and count + len(self._waiting[0][0]) <= self._batch:
                taken.append(self._waiting.popleft())
                count += len(taken[-1][0])
            try:
                answer = self._ask_newest([path for paths, _ in taken for path in paths])
            except StoreError as error:
                _fail(taken, error)
                continue
            self._under_way += 1
            answer.add_done_callback(partial(self._served, taken))

    @property
    def _batch(self) -> int:
        return BATCH if self.has_multi else BATCH_WITHOUT_MULTI

    def _ask_newest(self, paths: list[str]) -> asyncio.Future[list[Any]]:
        barrier = self._bridge.send_now(Remove(self._layout.barrier))
        barrier.add_done_callback(_forget)
        return self._ask(paths)

    def _ask(self, paths: Sequence[str]) -> asyncio.Future[list[Any]]:
        if self.has_multi:
            return self._bridge.send_now(MultiRead(paths))
        return asyncio.gather(*(self._bridge.send_now(Get(path)) for path in paths), return_exceptions=True)

    def _served(self, taken: list[Waiter], answer: asyncio.Future[list[Any]]) -> None:
        self._under_way -= 1
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, UnimplementedError):
            self.has_multi = False
            self._waiting.extendleft(reversed(taken))
        elif isinstance(error, KazooException):
            _fail(taken, self._bridge.translated(error, MultiRead([])))
        elif error is not None or answer.cancelled():
            _fail(taken, Unavailable(f"no answer of {self._bridge.url}: {error}"))
        else:
            found, at = self._as_read(answer.result()), 0
            for paths, waiter in taken:
                if not waiter.done():
                    waiter.set_result(found[at : at + len(paths)])
                at += len(paths)
        self._flush()

    async def nodes(self, paths: Sequence[str]) -> list[Read]:
        """Any number of nodes, no newer than the connection's server is."""
        found: list[Read] = []
        ahead: deque[asyncio.Future[list[Any]]] = deque()
        at = 0
        await self._bridge.until_connected()
        try:
            while at < len(paths) or ahead:
                if at < len(paths) and len(ahead) < AHEAD:
                    ahead.append(self._ask(paths[at : at + self._batch]))
                    at += self._batch
                    continue
                try:
                    found += self._as_read(await self._bridge.answer(MultiRead([]), ahead.popleft()))
                except UnimplementedError:
                    self.has_multi = False
                    return await self.nodes(paths)
        finally:
            for answer in ahead:
                answer.add_done_callback(_forget)
        return found

    def _as_read(self, answers: list[Any]) -> list[Read]:
        return answers if self.has_multi else [_as_read(one) for one in answers]

    async def names(self, parents: Sequence[str]) -> list[list[str]]:
        """The names below each node; none below one that does not exist."""
        found: list[list[str]] = []
        for at in range(0, len(parents), BATCH):
            part = parents[at : at + BATCH]
            if self.has_multi:
                try:
                    answers = await self._bridge.ask(MultiRead([], part))
                    found += [one if isinstance(one, list) else [] for one in map(readable, answers)]
                    continue
                except UnimplementedError:
                    self.has_multi = False
            found += [(await self.children(parent))[0] for parent in part]
        return found

    async def children(self, parent: str) -> tuple[list[str], Stat | None]:
        try:
            names, stat = await self._bridge.ask(Children(parent))
        except NoNodeError:
            return [], None
        return names, stat


def readable(found: Read) -> Node | list[str] | None:
    """
    Raises:
        Refused: it may not be read.
    """
    if not isinstance(found, int):
        return found
    if found == NO_AUTH:
        raise Refused("the store does not allow us to read that")
    return None


def _as_read(answer: Any) -> Read:
    """What a single read returned or raised, as MultiRead would answer it."""
    if isinstance(answer, NoNodeError):
        return NO_NODE
    if isinstance(answer, NoAuthError):
        return NO_AUTH
    if isinstance(answer, BaseException):
        raise Unavailable(f"a read failed: {type(answer).__name__}")
    found: Read = answer
    return found


def _fail(taken: list[Waiter], error: StoreError) -> None:
    for _, waiter in taken:
        if not waiter.done():
            waiter.set_exception(type(error)(*error.args))


def _forget(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for it: what went wrong with it went wrong with its neighbour too."""
    if not answer.cancelled():
        answer.exception()
