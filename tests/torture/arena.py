"""Where a torture run takes place: the store, its servers if it has some, and as many clients of it as are wanted."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from backends.memory import MemoryState, MemoryStore
from backends.open import open_store
from backends.store import Store
from tests.servers.binaries import KINDS, Kind
from tests.servers.cluster import Cluster
from tests.torture.servers import Servers

STORES = ("memory", "sqlite", *KINDS)
ALIASES = {"etcd": "etcd3.5", "zk": "zookeeper"}
Opener = Callable[[], Awaitable[Store]]


@dataclass(slots=True)
class Arena:
    """`open` makes another client, closed with the arena. `servers`: None where there is no process to hurt."""

    kind: str
    open: Opener
    servers: Servers | None = None
    members: int = 0
    until_healthy: Callable[[], Awaitable[None]] | None = None
    wrap: Callable[[Store], Store] = field(default=lambda store: store)  # for tests: a store that is broken on purpose


@asynccontextmanager
async def arena(kind: str, members: int, directory: Path, rng: random.Random) -> AsyncIterator[Arena]:
    """
    Raises:
        ServerFailed, NotInstalled: the servers do not come up.
    """
    kind = ALIASES.get(kind, kind)
    async with AsyncExitStack() as stack:
        if kind == "memory":
            state = MemoryState()

            async def open_memory() -> Store:
                return await stack.enter_async_context(MemoryStore(state, rng=random.Random(rng.random())))

            yield Arena(kind, open_memory)
            return
        cluster = None
        url = f"sqlite://{directory}/kvnet.db"
        if kind != "sqlite":
            cluster = await stack.enter_async_context(Cluster(cast(Kind, kind), directory, members=members))
            url = cluster.url()

        async def open_url() -> Store:
            return await stack.enter_async_context(await open_store(url))

        if cluster is None:
            yield Arena(kind, open_url)
        else:
            yield Arena(kind, open_url, Servers(cluster), members, cluster.until_healthy)


def kinds_of(here: Arena) -> Sequence[str]:
    return here.servers.kinds if here.servers else ()
