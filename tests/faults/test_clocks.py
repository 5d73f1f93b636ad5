"""A clock that jumps: nobody is taken for dead, nothing is forgotten early, and nothing waits for years."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from backends.memory import MemoryState, MemoryStore
from controller.cluster import Cluster
from controller.settings import DAY_S
from kvnet import keys
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio

YEAR_S = 365 * DAY_S


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(MemoryState())


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def cluster(store: MemoryStore, time: FakeTime) -> AsyncIterator[Cluster]:
    await add_host(store, "h1")
    await add_host(store, "gone", alive=False)
    async with opened(store, time) as cluster:
        await cluster.networks.create(network("my-net", "10.1.0.0/29"), ME)
        yield cluster


async def endpoints(cluster: Cluster) -> int:
    return len(cluster.endpoints.list("my-net"))


@pytest.mark.parametrize("jump_s", [-YEAR_S, -60.0, 60.0, YEAR_S])
async def test_a_host_is_not_dead_because_a_clock_was_set(
    cluster: Cluster, store: MemoryStore, time: FakeTime, jump_s: float
) -> None:
    await cluster.endpoints.create("my-net", endpoint(host="gone"), ME)
    await cluster.upkeep.sweep()

    time.jump(jump_s)
    for _ in range(3):
        time.pass_by(5)
        await cluster.upkeep.sweep()
    assert await endpoints(cluster) == 1

    time.pass_by(DAY_S)
    for _ in range(2):  # the mark, and the second look
        await cluster.upkeep.sweep()
        await cluster._state.reached(store.state.revision, *cluster._state.tables)
    assert await endpoints(cluster) == 0


async def test_a_cool_down_that_began_in_the_future_ends(cluster: Cluster, store: MemoryStore, time: FakeTime) -> None:
    """The controller's clock was a year ahead when the addresses were released."""
    time.jump(YEAR_S)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)
    time.jump(-YEAR_S)

    assert (await cluster.upkeep.sweep()).done["tombstones"] == 0
    time.pass_by(59)
    assert (await cluster.upkeep.sweep()).done["tombstones"] == 0
    time.pass_by(2)
    assert (await cluster.upkeep.sweep()).done["tombstones"] == 1
    assert (await store.list(keys.ADDRESSES)).entries == ()


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
async def test_work_goes_on_across_a_jump(cluster: Cluster, time: FakeTime, jump_s: float) -> None:
    await cluster.endpoints.create("my-net", endpoint("before"), ME)
    time.jump(jump_s)
    await cluster.endpoints.create("my-net", endpoint("after"), ME)
    await cluster.endpoints.delete("my-net", "before", ME)
    await cluster.networks.create(network("other", "10.2.0.0/24"), ME)

    await cluster.upkeep.sweep()
    assert await endpoints(cluster) == 1
    assert (await cluster.ipam.check()).findings == ()
