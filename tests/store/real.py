"""Real servers under the conformance suite: one cluster per kind and size for the whole run, a fresh root per test.

The clusters live on an event loop of their own, in a thread: they outlive the loops of the tests. Never shares a root
between tests, and never leaves a server running.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from backends.followed import FollowedStore
from backends.open import open_store
from backends.store import MIN_TTL_S, Store, Unavailable
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.servers.etcd import Etcd
from tests.store.proxy import Proxy

T = TypeVar("T")

BACK_S = 30.0
CALL_S = 120.0
# The only value that a test puts when it wants the answer to be lost: how it looks on the wire, plain and in base64.
LOST = b"mine-and-lost"


class Clusters:
    """Started when first asked for; `close` ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvnet-test-servers", daemon=True)
        self._running: dict[tuple[Kind, int], Cluster] = {}

    async def get(self, kind: Kind, members: int) -> Cluster:
        cluster = self._running.get((kind, members))
        if cluster is None:
            if not self._thread.is_alive():
                self._thread.start()
            cluster = await self.run(self._make(kind, members))
            self._running[kind, members] = cluster
        return cluster

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the loop of the clusters."""
        async with asyncio.timeout(CALL_S):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        if self._thread.is_alive():
            for cluster in self._running.values():
                asyncio.run_coroutine_threadsafe(cluster.kill_all(), self._loop).result(CALL_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_S)
        self._loop.close()

    async def _make(self, kind: Kind, members: int) -> Cluster:
        folder = self._folder / f"{kind}-{members}"
        folder.mkdir(parents=True)
        cluster = Cluster(kind, folder, members=members)
        try:
            await cluster.start()
        except BaseException:
            await cluster.kill_all()
            raise
        return cluster


@dataclass(frozen=True, slots=True)
class Servers:
    """A kind of server and how many: makes the harness of one test."""

    kind: Kind
    members: int
    # A lease of etcd ends within a second or so after its TTL; a stored session is seen to once a second.
    surely_expired_s: float = MIN_TTL_S + 4
    can_restart = True
    can_compact = True
    can_lose_answers = True

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.members}"

    def __call__(self, folder: Path, clusters: Clusters, needs: frozenset[str]) -> ServerHarness:
        return ServerHarness(self, clusters, is_lossy="lose_answers" in needs)


class ServerHarness:
    can_restart = True
    can_compact = True
    can_lose_answers = True

    def __init__(self, servers: Servers, clusters: Clusters, *, is_lossy: bool) -> None:
        self.surely_expired_s = servers.surely_expired_s
        self._servers = servers
        self._clusters = clusters
        self._cluster: Cluster | None = None
        self._is_lossy = is_lossy
        self._root = f"test/{uuid.uuid4().hex}"
        self._proxies: list[Proxy] = []
        self._stores: list[FollowedStore] = []

    async def start(self) -> None:
        self._cluster = await self._clusters.get(self._servers.kind, self._servers.members)
        if self._is_lossy:
            self._proxies = [Proxy(None, endpoint, losing=on_the_wire(LOST)) for endpoint in self._cluster.endpoints]
            for proxy in self._proxies:
                await proxy.start()

    async def open(self) -> Store:
        # FollowedStore is what all servers have in common; its history is for `compact`.
        store = cast(FollowedStore, await open_store(self._url()))
        self._stores.append(store)
        return store

    async def restart(self) -> None:
        assert self._cluster is not None
        await self._clusters.run(self._cluster.restart_all())
        for store in self._stores:
            await until_served(store)

    async def compact(self) -> None:
        for store in self._stores:
            await store.forget_history()
        assert self._cluster is not None
        if isinstance(self._cluster.family, Etcd):
            revision = (await self._stores[0].list("")).revision
            await self._clusters.run(self._cluster.family.ctl("compaction", str(revision)))

    async def lose_next_answer(self) -> None:
        for proxy in self._proxies:
            proxy.loses = 1

    async def let_time_pass(self, seconds: float) -> None:
        await _really(seconds)

    async def stop(self) -> None:
        for store in self._stores:
            await store.close()
        for proxy in self._proxies:
            await proxy.stop()

    def _url(self) -> str:
        assert self._cluster is not None
        if not self._proxies:
            return self._cluster.url(self._root)
        scheme = self._cluster.family.SCHEME
        return f"{scheme}://{','.join(proxy.endpoint for proxy in self._proxies)}/{self._root}"


def on_the_wire(value: bytes) -> tuple[bytes, ...]:
    """What of a value is to be found in a request: itself, or its middle in base64, wherever it begins."""
    encoded = [base64.b64encode(b"x" * lead + value)[4 if lead else 0 :] for lead in range(3)]
    return (value, *(text[: len(text) // 4 * 4 - 4] for text in encoded))


async def until_served(store: Store) -> None:
    async with asyncio.timeout(BACK_S):
        while not await _is_served(store):
            await _really(0.05)


async def _is_served(store: Store) -> bool:
    try:
        await store.get("nothing")
        batches = store.watch("nothing", (await store.list("nothing")).revision)
        await anext(batches)
        await batches.aclose()  # type: ignore[attr-defined]
    except Unavailable:
        return False
    return True


async def _really(seconds: float) -> None:
    await asyncio.sleep(seconds)


KINDS: tuple[Kind, ...] = ("etcd3.4", "etcd3.5", "consul", "zookeeper")
SERVERS: dict[str, Callable[[Path, Clusters, frozenset[str]], ServerHarness]] = {
    servers.name: servers for servers in (Servers(kind, members) for kind in KINDS for members in (1, 3))
}
