"""A transaction of the contract as one of ZooKeeper, which knows only whether a node exists and its data version.

What is believed of each key (seen lately, or read) becomes operations that fail if it is not so any more; then the keys
are read again, and either a check of the caller fails, or the transaction is made anew. Never reports a conflict from
memory, never repeats what may have been done. A deleted key is a tombstone: data versions of one node never restart.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backends.lease import Clock
from backends.store import (
    Absent,
    Broken,
    Check,
    Conflict,
    Delete,
    Put,
    Refused,
    Revision,
    Unavailable,
    Unchanged,
    Write,
)
from backends.zookeeper_bridge import Bridge
from backends.zookeeper_log import Log, encode
from backends.zookeeper_nodes import TOMBSTONE, Layout, read_value, written
from backends.zookeeper_reads import Reads, readable
from backends.zookeeper_wire import (
    ANY_VERSION,
    NO_AUTH,
    NO_NODE,
    NOT_TRIED,
    ROLLED_BACK,
    SEQUENCE,
    Multi,
    Node,
    Operation,
    Result,
    Stat,
)

ATTEMPTS = 12
MAX_PAUSE_S = 0.05
# What was seen of a node is believed for at most two generations: less than the life of a tombstone, after which a
# node may be another one with the same data version.
GENERATION_S = 120.0
MAX_GENERATION = 20_000
MAX_TOMBSTONES = 100_000


class State(NamedTuple):
    """What is believed of a key's node. `version` is the contract's, `data_version` ZooKeeper's."""

    version: Revision
    data_version: int
    is_live: bool


MISSING = State(0, ANY_VERSION, False)


def state_of(node: Node | None) -> State:
    if node is None:
        return MISSING
    return State(node.stat.mzxid, node.stat.version, read_value(node.data) is not None)


class Seen:
    """The states of keys that were seen lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._young: dict[str, State] = {}
        self._old: dict[str, State] = {}
        self._began = clock()

    def get(self, key: str) -> State | None:
        self._age()
        return self._young.get(key) or self._old.get(key)

    def put(self, key: str, state: State) -> None:
        self._age()
        self._young[key] = state

    def drop(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._young.pop(key, None)
            self._old.pop(key, None)

    def clear(self) -> None:
        self._young, self._old = {}, {}

    def _age(self) -> None:
        now = self._clock()
        if now - self._began > 2 * GENERATION_S:
            self.clear()
        if now - self._began > GENERATION_S or len(self._young) > MAX_GENERATION:
            self._young, self._old, self._began = {}, self._young, now


@dataclass(frozen=True, slots=True)
class Transaction:
    checks: Sequence[Check]
    writes: Sequence[Write]
    is_told: bool

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys([one.key for one in (*self.writes, *self.checks)]))


def failed_checks(checks: Sequence[Check], states: Mapping[str, State]) -> list[str]:
    return sorted({check.key for check in checks if not _holds(check, states[check.key])})


def _holds(check: Check, state: State) -> bool:
    if isinstance(check, Absent):
        return not state.is_live
    return state.is_live and (not isinstance(check, Unchanged) or check.version == state.version)


def operations(transaction: Transaction, states: Mapping[str, State], layout: Layout) -> list[Operation]:
    """What writes, and fails if a checked key's state, or the existence of any key's node, is not as believed."""
    writes = {write.key: write for write in transaction.writes}
    checked = {check.key for check in transaction.checks}
    return [
        operation
        for key in transaction.keys
        for operation in _of_key(layout.node(key), writes.get(key), states[key], is_checked=key in checked)
    ]


def _of_key(path: str, write: Write | None, state: State, *, is_checked: bool) -> list[Operation]:
    version = state.data_version if is_checked else ANY_VERSION
    if state == MISSING:
        if isinstance(write, Put):
            return [Operation("create", path, written(write.value))]
        # There is no operation that says "does not exist".
        return [Operation("create", path, TOMBSTONE), Operation("delete", path)]
    if write is None:
        return [Operation("check", path, version=version)]
    return [Operation("set", path, written(write.value) if isinstance(write, Put) else TOMBSTONE, version)]


class Tombstone(NamedTuple):
    since: float
    path: str
    mzxid: int


class Committer:
    """Commits of one client. Knows which directories and which structure exist, until told otherwise."""

    def __init__(
        self, bridge: Bridge, reads: Reads, log: Log, layout: Layout, acl: bytes, *, clock: Clock, rng: random.Random
    ) -> None:
        self.seen = Seen(clock)
        self.has_committed = False
        # What this client deleted: when, the node, and the transaction.
        self.tombstones: deque[Tombstone] = deque(maxlen=MAX_TOMBSTONES)
        self._bridge = bridge
        self._reads = reads
        self._log = log
        self._layout = layout
        self._acl = acl
        self._rng = rng
        self._clock = clock
        self._existing: set[str] = set()
        self._drops = bridge.drops

    async def commit(self, transaction: Transaction) -> Revision:
        self._forget_if_dropped()
        drops = self._bridge.drops
        states = await self._believed(transaction)
        is_fresh = False
        for attempt in range(ATTEMPTS):
            if failed := failed_checks(transaction.checks, states):
                if is_fresh:
                    raise Conflict(failed)
            else:
                revision = await self._attempt(transaction, states, drops)
                if revision is not None:
                    return revision
            if attempt > 1:
                await asyncio.sleep(self._rng.random() * MAX_PAUSE_S)
            self._forget_if_dropped()
            drops = self._bridge.drops
            states, is_fresh = await self._read(transaction.keys), True
        raise Unavailable(f"other writers were faster {ATTEMPTS} times; nothing was written")

    def _forget_if_dropped(self) -> None:
        if self._drops != self._bridge.drops:  # who knows for how long this machine slept
            self._drops = self._bridge.drops
            self.seen.clear()

    async def _believed(self, transaction: Transaction) -> dict[str, State]:
        states = {key: self.seen.get(key) for key in transaction.keys}
        # Who says that a key is absent will mostly be right: that is tried without asking.
        for check in transaction.checks:
            if isinstance(check, Absent) and states[check.key] is None:
                states[check.key] = MISSING
        unknown = [key for key, state in states.items() if state is None]
        if unknown:
            found = await self._reads.nodes([self._layout.node(key) for key in unknown])
            states |= {key: self._see(key, one) for key, one in zip(unknown, map(readable, found), strict=True)}
        return {key: state for key, state in states.items() if state is not None}

    async def _read(self, keys: Sequence[str]) -> dict[str, State]:
        found = await self._reads.newest([self._layout.node(key) for key in keys])
        return {key: self._see(key, one) for key, one in zip(keys, map(readable, found), strict=True)}

    def _see(self, key: str, found: object) -> State:
        state = state_of(found if isinstance(found, Node) else None)
        if state == MISSING:
            self.seen.drop([key])
        else:
            self.seen.put(key, state)
        return state

    async def _attempt(self, transaction: Transaction, states: Mapping[str, State], drops: int) -> Revision | None:
        """The revision, or None: something was not as believed and nothing was written.

        `drops`: the connection over which it was read what is believed. ZooKeeper checks a node's own counter, which
        starts again where it was set up anew; so what was read before is never asked of whoever is connected after:
        it is read there again, and versions (of meta/cluster in every commit of a controller) are compared with that.
        """
        wanted = operations(transaction, states, self._layout)
        made = await self._missing(transaction, wanted)
        await self._bridge.until_connected()
        if drops != self._bridge.drops:
            return None
        told = [Operation("set", self._layout.head)] if transaction.is_told else []
        if transaction.is_told:
            told.append(Operation("create", f"{self._layout.log}/e-", encode(transaction.writes), flags=SEQUENCE))
        elif not any(operation.kind == "set" for operation in wanted):
            # The answer to nothing else tells the transaction.
            created = [one for one in wanted if one.kind == "create" and one.data != TOMBSTONE]
            told += [Operation("set", one.path, one.data, 0) for one in created[-1:]]
        request = Multi([*(Operation("create", path) for path in made), *wanted, *told], self._acl)
        try:
            results: list[Result] = await self._bridge.ask(request)
        except BaseException:
            self.seen.drop([write.key for write in transaction.writes])
            raise
        if any(isinstance(result, int) for result in results):
            self._require_outdated(results)
            self._existing.clear()
            self.seen.drop(transaction.keys)
            return None
        self._existing.update(made)
        self.has_committed = True
        return self._done(transaction, wanted, results[len(made) :])

    def _require_outdated(self, results: Sequence[Result]) -> None:
        """That it failed because something is not as it was believed.

        Raises:
            Refused, Broken: for another reason.
        """
        if NO_AUTH in results:
            raise Refused(f"{self._bridge.url} does not allow it")
        odd = [code for code in results if isinstance(code, int) and code not in {ROLLED_BACK, NOT_TRIED}]
        if not odd or any(code > -100 for code in odd):
            raise Broken(f"{self._bridge.url} refused a transaction with code {odd}; nothing was written")

    def _done(self, transaction: Transaction, wanted: Sequence[Operation], results: Sequence[Result]) -> Revision:
        stats = [result for result in results if isinstance(result, Stat)]
        revision = stats[0].mzxid if stats else 0
        if transaction.is_told:
            self._log.head_of(stats[-1])
        paths = {self._layout.node(write.key): write for write in transaction.writes}
        for operation, result in zip(wanted, results, strict=False):
            write = paths.get(operation.path)
            if isinstance(write, Put) and isinstance(result, Stat):
                self.seen.put(write.key, State(revision, result.version, True))
            elif isinstance(write, Put) and transaction.is_told:
                self.seen.put(write.key, State(revision, 0, True))
            elif isinstance(write, Delete) and isinstance(result, Stat):
                self.seen.put(write.key, State(revision, result.version, False))
                self.tombstones.append(Tombstone(self._clock(), operation.path, revision))
        return revision

    async def _missing(self, transaction: Transaction, wanted: Sequence[Operation]) -> list[str]:
        """Nodes that must be made first: directories, and once the structure."""
        needed = list(self._layout.structure)
        needed += dict.fromkeys(operation.path.rpartition("/")[0] for operation in wanted if operation.kind == "create")
        unknown = [path for path in needed if path not in self._existing]
        if not unknown:
            return []
        found = await self._reads.nodes(unknown)
        missing = [path for path, one in zip(unknown, found, strict=True) if one == NO_NODE]
        self._existing.update(path for path in unknown if path not in missing)
        if (self._layout.head in missing) != (self._layout.log in missing):
            raise Broken(
                f"{self._bridge.url}: of {self._layout.head} and {self._layout.log} one is missing; "
                "somebody removed it: stop all controllers, then remove both"
            )
        return missing
