"""The use cases run on real stores: in memory, and SQLite in a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.memory import MemoryStore
from backends.open import open_store
from backends.store import Store
from controller.cluster import Cluster
from tests.unit.controller.kit import FakeTime, add_host, opened


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture(params=["memory", "sqlite"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Store]:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/kvnet.db"
    async with await open_store(url) as store:
        yield store


@pytest.fixture
async def cluster(store: MemoryStore, time: FakeTime) -> AsyncIterator[Cluster]:
    """On the store in memory, with a living host h1."""
    async with opened(store, time) as cluster:
        await add_host(store, "h1")
        yield cluster
