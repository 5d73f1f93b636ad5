"""The change log: what makes one watch enough, and loses nothing.

Every told commit is one ZooKeeper transaction that also sets `<root>/head` and creates the next node in `<root>/log`:
the head's data version n and the log's number n - 1 advance only together. A follower watches the head alone and
fetches the entries that it has not seen by their names. An entry holds the new values, so each step is exact.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kazoo.exceptions import NoNodeError

from backends.medium import PRIVATE, Step
from backends.store import Broken, Change, Compacted, Entry, Put, Revision, Write
from backends.zookeeper_bridge import Bridge
from backends.zookeeper_nodes import Layout, as_counter
from backends.zookeeper_reads import Reads, readable
from backends.zookeeper_wire import Exists, Get, MultiRead, Node, Read, Stat

# Longer entries are compressed: the log is kept in the servers' memory.
COMPRESS_BYTES = 1024
# Entries that are asked for together with the head: usually there is just one new one.
GUESS = 8
CHUNK = 200
MAX_POSITIONS = 10_000


@dataclass(frozen=True, slots=True)
class Head:
    """`count`: commits told since the head was made, by the transaction `made`. All 0: nothing was ever told.

    `origin`: no other head has it, also in a ZooKeeper that was set up anew and counts its transactions from 0 again.
    """

    revision: Revision = 0
    count: int = 0
    made: int = 0
    origin: tuple[int, int] = (0, 0)


NOTHING = Head()


def encode(writes: Sequence[Write]) -> bytes:
    """`[[key], [key, text], [key, base64, 64]]`: deleted, put, put with a value that is not UTF-8."""
    rows = [[write.key, *_spelled(write.value)] if isinstance(write, Put) else [write.key] for write in writes]
    data = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    return data if len(data) <= COMPRESS_BYTES else zlib.compress(data, 1)


def _spelled(value: bytes) -> list[str | int]:
    try:
        return [value.decode()]
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode(), 64]


def decode(data: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Each key, and how its value is spelled (not at all: it was deleted).

    Raises:
        Broken: not an entry.
    """
    try:
        rows = json.loads(data if data.startswith(b"[") else zlib.decompress(data))
        for key, *spelled in rows:
            yield key, spelled
    except (ValueError, TypeError, zlib.error) as error:
        raise Broken("an entry of the change log is damaged: was something else written below it?") from error


def _value(text: str, base: int = 0) -> bytes:
    return base64.b64decode(text) if base else text.encode()


class Log:
    """Remembers where in the log a revision was, so that following it again costs no search."""

    def __init__(self, bridge: Bridge, reads: Reads, layout: Layout) -> None:
        self._bridge = bridge
        self._reads = reads
        self._layout = layout
        self._positions: OrderedDict[Revision, int] = OrderedDict()  # a dict looks for its first one ever longer
        self._made = (0, 0)
        self._followed = (0, 0)  # the origin of the head that was followed last

    def head_of(self, found: Node | Stat | None) -> Head:
        if found is None:
            return NOTHING
        stat = found.stat if isinstance(found, Node) else found
        origin = (stat.czxid, stat.ctime)
        if origin != self._made:
            self._positions.clear()
            self._made = origin
        self.remember(stat.mzxid, stat.version)
        return Head(stat.mzxid, stat.version, stat.czxid, origin)

    def remember(self, revision: Revision, count: int) -> None:
        self._positions[revision] = count
        if len(self._positions) > MAX_POSITIONS:
            self._positions.popitem(last=False)

    async def entries(self, since: int, until: int) -> list[Node]:
        """
        Raises:
            Compacted: they are not kept any more.
        """
        numbers = range(as_counter(until - since))
        found = await self._reads.nodes([self._layout.entry(since + number) for number in numbers])
        nodes = [one for one in map(readable, found) if isinstance(one, Node)]
        if len(nodes) < len(numbers):
            raise Compacted("the change log is not kept that far back")
        return nodes

    async def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        news = asyncio.Event()
        drops = self._bridge.drops

        def require_connection() -> None:
            if self._bridge.drops != drops or not self._bridge.is_connected:
                raise self._bridge.away()

        self._bridge.listen(news.set)
        try:
            await self._reads.barrier()  # a server that is late must not look like one that went back
            require_connection()

            def on_event(_: object) -> None:
                self._bridge.post(news.set)

            head, found = await self._look(on_event, 0)
            self._require_same(head, is_anew=after is None)
            position = await self._position(head, after)
            yield Step(head.revision if after is None else after, ())
            while True:
                require_connection()
                while as_counter(head.count - position) > 0:
                    if not found or as_counter(head.count - position) > len(found):
                        end = position + min(as_counter(head.count - position), CHUNK)
                        found = list(await self.entries(position, end))
                    for node in found:
                        yield step(node, is_wanted)
                    position += len(found)
                    self.remember(node.stat.czxid, as_counter(position))
                    found = []
                await news.wait()
                news.clear()
                require_connection()
                head, found = await self._look(on_event, position)
                self._require_same(head, is_anew=False)
        finally:
            self._bridge.ignore(news.set)

    def _require_same(self, head: Head, *, is_anew: bool) -> None:
        """
        Raises:
            Compacted: the head is another one than before. Its revisions may be higher, and mean something else.
        """
        if not is_anew and self._followed not in (NOTHING.origin, head.origin):
            raise Compacted("the store was wiped, or restored, since it was followed before")
        self._followed = head.origin

    async def _look(self, on_event: Callable[[object], None], position: int) -> tuple[Head, list[Node]]:
        """The head, watched from now on, and those of the next entries that are there already."""
        looking, guessing = Get(self._layout.head, on_event), None
        answer = await self._bridge.send(looking)
        if position and self._reads.has_multi:
            request = MultiRead([self._layout.entry(position + i) for i in range(GUESS)])
            guessing = request, await self._bridge.send(request)
        try:
            head = self.head_of(await self._bridge.answer(looking, answer))
        except NoNodeError:
            head = self.head_of(await self._bridge.ask(Exists(self._layout.head, on_event)))
        found: list[Read] = await self._bridge.answer(*guessing) if guessing else []
        nodes = []
        for one in map(readable, found):
            if not isinstance(one, Node):
                break
            nodes.append(one)
        return head, nodes

    async def _position(self, head: Head, after: Revision | None) -> int:
        """How many entries `after` has behind it."""
        if after is None or after == head.revision:
            return head.count
        if after > head.revision:
            raise Compacted(
                f"revision {after} is ahead of the store, which is at {head.revision}: it went back in time"
            )
        if 0 < after < head.made:
            raise Compacted(f"the store was made anew after revision {after}")
        if after in self._positions:
            return self._positions[after]
        return await self._search(head, after)

    async def _search(self, head: Head, after: Revision) -> int:
        log: Stat | None = await self._bridge.ask(Exists(self._layout.log))
        kept = log.children if log is not None else 0
        low, high = head.count - kept, head.count
        oldest = low
        while low < high:
            middle = (low + high) // 2
            [node] = await self.entries(middle, middle + 1)
            if node.stat.czxid > after:
                high = middle
            else:
                low = middle + 1
        if low == oldest and oldest != 0:
            raise Compacted(f"the change log is not kept back to revision {after}")
        return low


def step(node: Node, is_wanted: Callable[[str], bool]) -> Step:
    revision = node.stat.czxid
    changes, unread = [], []
    for key, spelled in decode(node.data):
        if key.startswith(PRIVATE):
            continue
        if not spelled:
            changes.append(Change(key, None))
        elif is_wanted(key):
            changes.append(Change(key, Entry(key, _value(*spelled), revision)))
        else:
            unread.append(key)
    return Step(revision, tuple(changes), tuple(unread))


def entries_of(node: Node) -> Iterator[tuple[str, Entry | None]]:
    for key, spelled in decode(node.data):
        yield key, Entry(key, _value(*spelled), node.stat.czxid) if spelled else None
