"""What the tests of etcd's adapter share: servers of both versions, a medium on its own root, how to follow it.

A test module names the fixtures that it wants to have (`server = kit.server`); each module has servers of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import cast

import pytest

from backends.etcd import EtcdMedium, connect
from backends.medium import Step
from backends.url import parse_server_url
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.servers.etcd import Etcd

KINDS: tuple[Kind, ...] = ("etcd3.4", "etcd3.5")
DEADLINE_S = 30.0
roots = count()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
async def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """One that nobody breaks; each test has its own root."""
    async with Cluster(kind, tmp_path_factory.mktemp("server")) as cluster:
        yield cluster


@pytest.fixture
async def medium(server: Cluster) -> AsyncIterator[EtcdMedium]:
    async with opened(server.url(f"root{next(roots)}")) as medium:
        yield medium


@pytest.fixture(scope="module")
async def guarded(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """With users, of whom OWNER may do everything below /kvnet/."""
    async with Cluster(kind, tmp_path_factory.mktemp("guarded"), auth=True) as cluster:
        await cluster.grant("/kvnet/")
        yield cluster


@asynccontextmanager
async def opened(url: str, *, must_answer: bool = True) -> AsyncIterator[EtcdMedium]:
    medium = await connect(parse_server_url(url, {}), must_answer=must_answer, rng=random.Random(7))
    try:
        yield medium
    finally:
        await medium.close()


@asynccontextmanager
async def following(medium: EtcdMedium) -> AsyncIterator[AsyncIterator[Step]]:
    steps = medium.follow(None, everything)
    await next_step(steps)
    try:
        yield steps
    finally:
        await cast(AsyncGenerator[Step, None], steps).aclose()


async def next_step(steps: AsyncIterator[Step], deadline_s: float = DEADLINE_S) -> Step:
    async with asyncio.timeout(deadline_s):
        return await anext(steps)


def ctl(cluster: Cluster) -> Etcd:
    assert isinstance(cluster.family, Etcd)
    return cluster.family


def everything(_: str) -> bool:
    return True
