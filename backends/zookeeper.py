"""ZooKeeper as a medium: 3.6 or newer (3.5 with slower reads), one kazoo client for each process.

Connecting writes nothing: the root and what is below it are made by the first commit. A key's version is its node's
mzxid, a commit's revision the transaction's zxid. Sessions are not ZooKeeper's: an ephemeral node belongs to one
connection, cannot be taken over, and its end passes by the change log. So a lost ZooKeeper session loses nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from kazoo.exceptions import NoNodeError

from backends.lease import Clock, Sleep
from backends.medium import CONNECT_TIMEOUT_S, PRIVATE, REQUEST_TIMEOUT_S, Step
from backends.store import Check, Compacted, Entry, Refused, Revision, Snapshot, StoreError, Unavailable, Write
from backends.url import ServerUrl
from backends.zookeeper_bridge import Bridge
from backends.zookeeper_commit import Committer, Transaction
from backends.zookeeper_door import REFUSALS_AT_THE_DOOR, at_the_door, only_tls, until_answered
from backends.zookeeper_janitor import Janitor
from backends.zookeeper_log import Head, Log, entries_of
from backends.zookeeper_nodes import Layout, directory_node, directory_of, name_of, read_value
from backends.zookeeper_reads import Reads, readable
from backends.zookeeper_socket import tls_context, tls_reason
from backends.zookeeper_wire import NO_AUTH, Children, Get, Multi, Node, Operation, Remove, write_acl
from kvnet.errors import (
    KvnetError,
    StoreUnavailable,
    StoreUntrusted,
)

SCAN_ATTEMPTS = 5
# No node has it: a check that surely fails, so that nothing is written.
IMPOSSIBLE = 2**31 - 2


class ZookeeperMedium:
    """Made by `connect`."""

    def __init__(self, bridge: Bridge, *, clock: Clock, sleep: Sleep, rng: random.Random) -> None:
        # All who log in with one name share the nodes. With certificates alone everybody has another name: the server
        # lets nobody else in, and the nodes are open to those it lets in.
        self._acl = write_acl("auth", "") if bridge.url.user else write_acl("world", "anyone")
        self._bridge = bridge
        self._layout = Layout(bridge.url.root)
        self._reads = Reads(bridge, self._layout)
        self._log = Log(bridge, self._reads, self._layout)
        self._committer = Committer(bridge, self._reads, self._log, self._layout, self._acl, clock=clock, rng=rng)
        self.janitor = Janitor(bridge, self._reads, self._committer, self._layout, clock=clock, sleep=sleep, rng=rng)
        self._cleaning = asyncio.create_task(self.janitor.run())

    async def revision(self) -> Revision:
        [found] = await self._reads.newest([self._layout.head])
        return self._head(readable(found)).revision

    def _head(self, found: object) -> Head:
        return self._log.head_of(found if isinstance(found, Node) else None)

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        found = await self._reads.newest([self._layout.node(key) for key in keys])
        return [self._entry(key, readable(one)) for key, one in zip(keys, found, strict=True)]

    def _entry(self, key: str, node: object) -> Entry | None:
        if not isinstance(node, Node):
            return None
        value = read_value(node.data)
        return None if value is None else Entry(key, value, node.stat.mzxid)

    async def scan(self, prefix: str) -> Snapshot:
        for _ in range(SCAN_ATTEMPTS):
            try:
                return await self._scan(prefix)
            except Compacted:
                continue
        raise Unavailable(f"everything changes faster than it can be read, {SCAN_ATTEMPTS} times")

    async def _scan(self, prefix: str) -> Snapshot:
        before, directories = await self._overview()
        found: dict[str, Entry] = {}
        places = await self._places(prefix, directories)
        nodes = await self._reads.nodes([path for path, _ in places])
        for (_, key), node in zip(places, map(readable, nodes), strict=True):
            entry = self._entry(key, node)
            if entry is not None:
                found[key] = entry
        after = await self._look()
        if after.made != before.made and before.made:
            raise Compacted("wiped meanwhile")
        if after.count != before.count:
            self._replay(found, await self._log.entries(before.count, after.count), prefix)
        return Snapshot(tuple(found[key] for key in sorted(found)), after.revision)

    def _replay(self, found: dict[str, Entry], entries: Sequence[Node], prefix: str) -> None:
        """What was read while it changed becomes what it was at the last revision."""
        for node in entries:
            for key, entry in entries_of(node):
                if not _is_under(key, prefix):
                    continue
                if entry is None:
                    found.pop(key, None)
                else:
                    found[key] = entry

    async def _overview(self) -> tuple[Head, list[str]]:
        """The head and the nodes of the directories, behind a barrier; asked for at once."""
        requests = Remove(self._layout.barrier), Get(self._layout.head), Children(self._layout.data)
        answers = [(request, await self._bridge.send(request)) for request in requests]
        found: list[Any] = [None, None, None]
        for place, (request, answer) in enumerate(answers):
            with contextlib.suppress(NoNodeError):
                found[place] = await self._bridge.answer(request, answer)
        return self._head(found[1]), found[2][0] if found[2] else []

    async def _look(self) -> Head:
        try:
            return self._head(await self._bridge.ask(Get(self._layout.head)))
        except NoNodeError:
            return self._head(None)

    async def _places(self, prefix: str, nodes: Sequence[str]) -> list[tuple[str, str]]:
        """The node and the key of everything under the prefix; `nodes` are those of all directories."""
        own = prefix.rpartition("/")[0]
        all_directories = [directory_of(node) for node in nodes]
        directories = [one for one in all_directories if one == own or _is_under(f"{one}/", prefix)]
        parents = [f"{self._layout.data}/{directory_node(one)}" for one in directories]
        places = []
        for directory, parent, below in zip(directories, parents, await self._reads.names(parents), strict=True):
            lead = f"{directory}/" if directory else ""
            keys = [(f"{parent}/{node}", lead + name_of(node)) for node in below]
            places += [(path, key) for path, key in keys if directory != own or _is_under(key, prefix)]
        return places

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write], *, is_told: bool = True) -> Revision:
        revision = await self._committer.commit(Transaction(checks, writes, is_told))
        return revision or await self.revision()

    def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        return self._log.follow(after, is_wanted)

    async def close(self) -> None:
        self._cleaning.cancel()
        await asyncio.gather(self._cleaning, return_exceptions=True)
        await self._bridge.close()

    async def require_access(self) -> None:
        """Refuse at the door what would be refused later. Writes nothing.

        Raises:
            Refused: reading or writing under the root is not allowed.
        """
        structure = self._layout.structure
        found = await self._reads.newest(structure)
        if NO_AUTH in found[-3:] or found[-4] == NO_AUTH:
            raise Refused("reading is not allowed")
        there = [path for path, one in zip(structure, found, strict=True) if isinstance(one, Node) or one == NO_AUTH]
        if self._layout.data in there and self._layout.head in there:
            tries = [Operation("create", f"{self._layout.data}/probe"), Operation("set", self._layout.head)]
        else:
            deepest = next((path for path in reversed(structure[:-3]) if path in there), "")
            tries = [Operation("create", f"{deepest}/kvnet-probe")]
        fails = Operation("check", there[0] if there else "/", version=IMPOSSIBLE)
        results = await self._bridge.ask(Multi([*tries, fails], self._acl))
        if NO_AUTH in results:
            raise Refused("writing is not allowed")


def _is_under(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and (prefix.startswith(PRIVATE) or not key.startswith(PRIVATE))


async def connect(
    url: ServerUrl,
    *,
    must_answer: bool = True,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> ZookeeperMedium:
    """
    Raises:
        StoreUnavailable: no server answers (not with `must_answer=False`).
        StoreUntrusted, StoreLoginRefused, StoreForbidden, StoreBroken: they do, and it cannot be used.
    """
    if url.tls is not None:
        try:
            await asyncio.to_thread(tls_context, url)
        except OSError as error:
            raise StoreUntrusted(
                f"{url}: the certificate files cannot be used: {tls_reason(error)}",
                fix="PEM files, and a key without password",
            ) from error
    if url.user:
        await asyncio.to_thread(url.secret.read)
    bridge = Bridge(url, rng or random.Random())
    await bridge.start()
    medium = ZookeeperMedium(bridge, clock=clock, sleep=sleep, rng=rng or random.Random())
    try:
        await _enter(bridge, medium, CONNECT_TIMEOUT_S + (REQUEST_TIMEOUT_S if must_answer else 0))
    except (StoreError, KvnetError) as error:
        told = at_the_door(bridge, error)
        if isinstance(told, StoreUnavailable):
            told = await only_tls(bridge) or told
        if must_answer or not isinstance(told, StoreUnavailable):
            await medium.close()
            raise told from error
    except BaseException:
        await medium.close()
        raise
    return medium


async def _enter(bridge: Bridge, medium: ZookeeperMedium, timeout_s: float) -> None:
    """Connected, logged in and allowed to work. A login that failed once may have met a server that was just ending."""
    for _ in range(REFUSALS_AT_THE_DOOR + 1):
        try:
            await until_answered(bridge, timeout_s)
            await medium.require_access()
        except Unavailable:
            if not 0 < bridge.refusals < REFUSALS_AT_THE_DOOR:
                raise
        else:
            return
