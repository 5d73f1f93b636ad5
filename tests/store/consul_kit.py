"""What the tests of Consul's adapter share: servers, a medium on a root of its own, and how to follow it.

A test module names the fixtures that it wants to have (`server = kit.server`); each module has servers of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import cast

import aiohttp
import pytest

from backends.consul import ConsulMedium, connect
from backends.medium import Step
from backends.store import (
    Put,
    Unavailable,
    Unknown,
)
from backends.url import parse_server_url
from tests.servers.cluster import Cluster

DEADLINE_S = 30.0
roots = count()


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """One that nobody breaks; each test has its own root."""
    async with Cluster("consul", tmp_path_factory.mktemp("server")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """ACLs with default deny, TLS only, and only for clients that show a certificate."""
    folder = tmp_path_factory.mktemp("guarded")
    async with Cluster("consul", folder, tls=True, client_certificates=True, auth=True) as cluster:
        yield cluster


@pytest.fixture
async def medium(server: Cluster) -> AsyncIterator[ConsulMedium]:
    async with opened(server.url(f"root{next(roots)}")) as medium:
        yield medium


@asynccontextmanager
async def opened(url: str, *, must_answer: bool = True) -> AsyncIterator[ConsulMedium]:
    medium = await connect(parse_server_url(url, {}), must_answer=must_answer, rng=random.Random(next(roots)))
    try:
        yield medium
    finally:
        await medium.close()


@asynccontextmanager
async def following(medium: ConsulMedium, after: int | None = None) -> AsyncIterator[AsyncIterator[Step]]:
    steps = medium.follow(after, lambda _: True)
    try:
        yield steps
    finally:
        await cast(AsyncGenerator[Step, None], steps).aclose()


async def next_step(steps: AsyncIterator[Step], deadline_s: float = DEADLINE_S) -> Step:
    async with asyncio.timeout(deadline_s):
        return await anext(steps)


async def told_until(steps: AsyncIterator[Step], revision: int) -> dict[str, bytes | None]:
    told: dict[str, bytes | None] = {}
    while True:
        step = await next_step(steps)
        told |= {change.key: change.entry.value if change.entry else None for change in step.changes}
        if step.revision >= revision:
            return told


async def committed(medium: ConsulMedium, write: Put) -> int:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await medium.commit([], [write])
            except (Unavailable, Unknown):
                await asyncio.sleep(0.05)


async def raw(cluster: Cluster, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    """As somebody else who uses the same Consul."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{cluster.endpoints[0]}{path}", data=body) as response,
    ):
        return response.status, response.headers.get("X-Consul-Index", ""), await response.read()
