"""What the tests of ZooKeeper's adapter share: a server, a medium on a root of its own, and how to follow it.

A test module names the fixtures that it wants to have (`cluster = kit.cluster`); each module has a server of its own.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kazoo.client import KazooClient

from backends.medium import Step
from backends.store import (
    StoreError,
)
from backends.url import parse_server_url
from backends.zookeeper import ZookeeperMedium, connect
from tests.servers.cluster import Cluster
from tests.store.watching import until


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    async with Cluster("zookeeper", tmp_path_factory.mktemp("zookeeper")) as cluster:
        yield cluster


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(f"test/{uuid.uuid4().hex}")


@pytest.fixture
async def medium(url: str) -> AsyncIterator[ZookeeperMedium]:
    async with connected(url) as medium:
        yield medium


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ZookeeperMedium]:
    medium = await connect(parse_server_url(url, {}), rng=random.Random(), **options)
    try:
        yield medium
    finally:
        await medium.close()


@asynccontextmanager
async def plain_client(cluster: Cluster, **options: Any) -> AsyncIterator[KazooClient]:
    """kazoo by itself, as an operator with zkCli.sh would be."""
    client = KazooClient(hosts=cluster.endpoints[0], **options)
    await asyncio.to_thread(client.start)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.stop)
        client.close()


class Follower:
    """What one follower was told, and how it ended."""

    def __init__(self, medium: ZookeeperMedium, after: int | None) -> None:
        self.steps: list[Step] = []
        self.error: StoreError | None = None
        self._steps = medium.follow(after, lambda key: True)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async for step in self._steps:
                self.steps.append(step)
        except StoreError as error:
            self.error = error

    @property
    def told(self) -> dict[str, bytes | None]:
        return {
            change.key: change.entry.value if change.entry else None for step in self.steps for change in step.changes
        }


@asynccontextmanager
async def following(medium: ZookeeperMedium, after: int | None = None) -> AsyncIterator[Follower]:
    follower = Follower(medium, after)
    try:
        await until(lambda: bool(follower.steps) or follower.error is not None)
        yield follower
    finally:
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)
