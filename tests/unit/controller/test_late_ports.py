"""A replica that has not heard of an endpoint's host ports yet deletes or changes it: they are free all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Batch, Revision
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import PortRequest
from kvnet import keys
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio
PORT = PortRequest(80, host_port=20005)
OTHER = PortRequest(80, host_port=30005)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Late(MemoryStore):
    """Answers, and tells no news while `is_late`."""

    is_late = False

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        async for batch in super().watch(prefix, after):
            while self.is_late:  # noqa: ASYNC110 - until the test ends
                await asyncio.sleep(0.001)
            yield batch


def held(state: MemoryState) -> list[str]:
    return [key for key in state.entries if key.startswith(keys.PORTS)]


@pytest.fixture
async def replicas() -> AsyncIterator[tuple[Cluster, Cluster, Late]]:
    state = MemoryState()
    late = Late(state)
    await add_host(MemoryStore(state), "h1")
    async with opened(MemoryStore(state), FakeTime()) as one, opened(late, FakeTime()) as other:
        await one.networks.create(network("my-net", "10.1.0.0/29"), ME)
        await one.endpoints.create("my-net", endpoint("c1", "h1"), ME)
        async with asyncio.timeout(10):
            while not other.endpoints.list("my-net"):  # noqa: ASYNC110 - a replica hears of it
                await asyncio.sleep(0.001)
        late.is_late = True
        await one.endpoints.update("my-net", "c1", EndpointPatch(ports=(PORT,)), ME)
        assert held(state)
        yield one, other, late
        late.is_late = False


async def test_deleting_it_frees_them(replicas: tuple[Cluster, Cluster, Late]) -> None:
    _, other, late = replicas
    await other.endpoints.delete("my-net", "c1", ME)
    assert held(late.state) == []


async def test_publishing_others_frees_them(replicas: tuple[Cluster, Cluster, Late]) -> None:
    _, other, late = replicas
    await other.endpoints.update("my-net", "c1", EndpointPatch(ports=(OTHER,)), ME)
    assert len(held(late.state)) == 1
