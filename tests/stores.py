"""On which stores the tests of the product run: the embedded ones, or real servers named on the command line.

`pytest --stores all tests/api` runs the same tests on every kind of server, one and three of them; without the option
they run on the embedded stores, which takes seconds.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.store.real import Clusters

OPTION = "--stores"
EMBEDDED = ("memory", "sqlite")
SERVERS = tuple(f"{kind}-{members}" for kind in ("etcd3.4", "etcd3.5", "consul", "zookeeper") for members in (1, 3))


def chosen(config: pytest.Config) -> list[str]:
    """
    Raises:
        pytest.UsageError: there is no store of that name.
    """
    names = [name for name in str(config.getoption(OPTION)).split(",") if name]
    names = list(SERVERS) if names == ["all"] else names or list(EMBEDDED)
    for name in names:
        if name not in (*EMBEDDED, *SERVERS):
            raise pytest.UsageError(
                f"{OPTION}: no store is called {name}; there are {', '.join((*EMBEDDED, *SERVERS))}"
            )
    return names


def params(config: pytest.Config, *, is_shared: bool = False) -> list[object]:
    """One parameter per store; `is_shared`: only those that several controllers can use at once.

    Tests of one cluster of servers run in one process, where tests run in several (`--dist loadgroup`).
    """
    names = [name for name in chosen(config) if not (is_shared and name == "memory")]
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) if name in SERVERS else name for name in names]


def loop_scope(fixture_name: str, config: pytest.Config) -> str:
    """gRPC's asyncio knows only one event loop in a process, as in the product; else each test has its own."""
    return "session" if any(name in SERVERS for name in chosen(config)) else "function"


def module_loop_scope(fixture_name: str, config: pytest.Config) -> str:
    return "session" if loop_scope(fixture_name, config) == "session" else "module"


def scheme(name: str) -> str:
    """Of the store's URLs, as the status shows it."""
    kind = name.rpartition("-")[0] or name
    return {"etcd3.4": "etcd", "etcd3.5": "etcd", "zookeeper": "zk"}.get(kind, kind)


async def fresh_url(name: str, folder: Path, clusters: Clusters) -> str:
    """An empty store that no other test uses."""
    if name == "memory":
        return "memory://"
    if name == "sqlite":
        return f"sqlite://{folder / 'kvnet.db'}"
    kind, _, members = name.rpartition("-")
    cluster = await clusters.get(kind, int(members))  # type: ignore[arg-type]
    return cluster.url(f"test/{uuid.uuid4().hex}")
