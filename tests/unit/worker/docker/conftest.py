"""Docker's plugin over a real unix socket and against a real controller, and so in real time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.worker.docker.kit import Cluster, Host, a_cluster


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two hosts whose Docker is served."""
    async with a_cluster(tmp_path, "h1", "h2") as made:
        yield made


@pytest.fixture
def h1(cluster: Cluster) -> Host:
    return cluster.hosts["h1"]


@pytest.fixture
def h2(cluster: Cluster) -> Host:
    return cluster.hosts["h2"]
