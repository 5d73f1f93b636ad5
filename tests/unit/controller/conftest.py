"""The use cases run on real stores: in memory, SQLite in a file, and servers where asked (`--stores`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.memory import MemoryStore
from backends.open import open_store
from backends.store import Store
from controller.cluster import Cluster
from tests import stores
from tests.unit.controller.kit import FakeTime, add_host, opened

if TYPE_CHECKING:
    from tests.store.real import Clusters


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture
async def any_store(store_name: str, tmp_path: Path, clusters: Clusters, anyio_backend: str) -> AsyncIterator[Store]:
    async with await open_store(await stores.fresh_url(store_name, tmp_path, clusters)) as store:
        yield store


@pytest.fixture
async def cluster(store: MemoryStore, time: FakeTime) -> AsyncIterator[Cluster]:
    """On the store in memory, with a living host h1."""
    async with opened(store, time) as cluster:
        await add_host(store, "h1")
        yield cluster
