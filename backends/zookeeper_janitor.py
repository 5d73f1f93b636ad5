"""Keeps what kvnet leaves in ZooKeeper bounded: the change log, the marks of deleted keys, empty directories.

ZooKeeper holds everything in memory. A client removes its own tombstones when they are old; one client at a time, found
through a key, trims the log and, rarely, walks over all nodes for what others left when they died. Never touches what a
check could still be about: a tombstone lives longer than anybody believes what they saw. Only who writes cleans.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Sequence

from kazoo.exceptions import NoNodeError

from backends.lease import Clock, Sleep
from backends.store import Absent, Conflict, Put, StoreError, Unchanged
from backends.zookeeper_bridge import Bridge
from backends.zookeeper_commit import Committer, State, Tombstone, Transaction, state_of
from backends.zookeeper_nodes import TOMBSTONE, Layout
from backends.zookeeper_reads import Reads
from backends.zookeeper_wire import Exists, Multi, Node, Operation, Stat

KEY = ".kvnet/janitor"
EVERY_S = 20.0
# A holder that did nothing for so long is gone.
HOLDER_S = 90.0
TOMBSTONE_S = 600.0
SWEEP_S = 3600.0
# Between two directories of a sweep: it reads everything, and is in no hurry.
PAUSE_S = 0.02
# Of the log; whichever is less.
KEPT_ENTRIES = 10_000
KEPT_BYTES = 64 * 1024 * 1024
LEAST_KEPT = 200
SAMPLES = 32
DELETIONS = 500


class Janitor:
    def __init__(
        self,
        bridge: Bridge,
        reads: Reads,
        committer: Committer,
        layout: Layout,
        *,
        clock: Clock,
        sleep: Sleep,
        rng: random.Random,
    ) -> None:
        self._bridge = bridge
        self._reads = reads
        self._committer = committer
        self._layout = layout
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._name = f"{rng.getrandbits(64):016x}".encode()
        self._holder: tuple[State, float] | None = None
        self._swept = clock()  # the first one can wait: whoever starts has other things to read
        self._noted: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(EVERY_S * (0.5 + self._rng.random()))
            if not (self._committer.has_committed and self._bridge.is_connected):
                continue
            with contextlib.suppress(StoreError):  # the next turn comes soon
                await self.bury(TOMBSTONE_S)
                if await self._is_mine():
                    await self.trim(KEPT_ENTRIES, KEPT_BYTES)
                    await self._sweep_at_times()

    async def _is_mine(self) -> bool:
        path = self._layout.node(KEY)
        [found] = await self._reads.newest([path])
        state = state_of(found if isinstance(found, Node) else None)
        is_ours = isinstance(found, Node) and found.data == self._name
        if state.is_live and not is_ours:
            if self._holder is None or self._holder[0] != state:
                self._holder = (state, self._clock())
            if self._clock() - self._holder[1] < HOLDER_S:
                return False
        check = Unchanged(KEY, state.version) if state.is_live else Absent(KEY)
        try:
            await self._committer.commit(Transaction((check,), (Put(KEY, self._name),), is_told=False))
        except Conflict:
            return False
        return True

    async def trim(self, entries: int, size: int) -> int:
        """Remove the oldest entries of the log beyond so many, or so many bytes. Returns how many are gone."""
        head: Stat | None = await self._bridge.ask(Exists(self._layout.head))
        log: Stat | None = await self._bridge.ask(Exists(self._layout.log))
        if head is None or log is None:
            return 0
        oldest = head.version - log.children
        surplus = log.children - max(LEAST_KEPT, min(entries, size // await self._average(oldest, log)))
        for start in range(0, surplus, DELETIONS):
            numbers = range(oldest + start, oldest + min(start + DELETIONS, surplus))
            await self._delete(Operation("delete", self._layout.entry(number)) for number in numbers)
        return max(surplus, 0)

    async def _average(self, oldest: int, log: Stat) -> int:
        stride = max(1, log.children // SAMPLES)
        numbers = range(oldest, oldest + log.children, stride)
        found = await self._reads.nodes([self._layout.entry(number) for number in numbers])
        sizes = [len(node.data) for node in found if isinstance(node, Node)]
        return max(1, sum(sizes) // max(1, len(sizes)))

    async def bury(self, age_s: float) -> None:
        """Remove this client's own tombstones that are so old."""
        due: list[Tombstone] = []
        waiting = self._committer.tombstones
        while waiting and self._clock() - waiting[0].since >= age_s:
            due.append(waiting.popleft())
        await self._bury({one.path: one.mzxid for one in due})

    async def _bury(self, expected: dict[str, int]) -> None:
        paths = list(expected)
        for start in range(0, len(paths), DELETIONS):
            part = paths[start : start + DELETIONS]
            found = zip(part, await self._reads.nodes(part), strict=True)
            await self._delete(
                Operation("delete", path, version=node.stat.version)
                for path, node in found
                if isinstance(node, Node) and node.data == TOMBSTONE and node.stat.mzxid == expected[path]
            )

    async def _delete(self, operations: Iterable[Operation]) -> None:
        """All or none; none where somebody else was faster with one of them: they are found again."""
        if listed := list(operations):
            await self._bridge.ask(Multi(listed, b""))

    async def _sweep_at_times(self) -> None:
        if self._clock() - self._swept < SWEEP_S:
            return
        self._swept = self._clock()
        await self.sweep()

    async def sweep(self) -> None:
        """Remove tombstones and empty directories that were the same at the sweep before."""
        names, _ = await self._reads.children(self._layout.data)
        directories = [f"{self._layout.data}/{name}" for name in names]
        before, self._noted = self._noted, {}
        empty: list[str] = []
        for directory, found in zip(directories, await self._reads.nodes(directories), strict=True):
            if isinstance(found, Node) and not found.stat.children:
                empty.append(directory)
                self._noted[directory] = found.stat.pzxid
                continue
            await self._sweep_directory(directory, before)
            await self._sleep(PAUSE_S)
        for directory in empty:
            if before.get(directory) == self._noted[directory]:
                with contextlib.suppress(NoNodeError):
                    await self._delete([Operation("delete", directory)])

    async def _sweep_directory(self, directory: str, before: dict[str, int]) -> None:
        [names] = await self._reads.names([directory])
        for start in range(0, len(names), DELETIONS):
            await self._note([f"{directory}/{name}" for name in names[start : start + DELETIONS]], before)

    async def _note(self, paths: Sequence[str], before: dict[str, int]) -> None:
        found = zip(paths, await self._reads.nodes(paths), strict=True)
        dead = {path: node.stat.mzxid for path, node in found if isinstance(node, Node) and node.data == TOMBSTONE}
        await self._bury({path: mzxid for path, mzxid in dead.items() if before.get(path) == mzxid})
        self._noted |= {path: mzxid for path, mzxid in dead.items() if before.get(path) != mzxid}
