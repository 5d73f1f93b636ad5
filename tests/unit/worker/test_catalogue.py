"""All networks of the cluster, by id, name and subnet, through changes of both and through a store that is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import cast

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Delete, Put, Store
from kvnet import codec, keys
from kvnet.model import Network
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import MortalStore, until
from tests.unit.worker.life import Life, Outages
from worker.catalogue import NetworkCatalogue
from worker.ports import Time

pytestmark = pytest.mark.anyio


@dataclass
class Bench:
    store: MemoryStore
    outages: Outages
    catalogue: NetworkCatalogue

    async def put(self, *networks: Network) -> None:
        await self.store.commit([], [Put(keys.network(n.id), codec.encode(n)) for n in networks])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    store = MemoryStore(MemoryState(), clock=loop.time, sleep=asyncio.sleep, rng=random.Random(1))
    outages = Outages()
    time = Time(loop.time, loop.time, asyncio.sleep, random.Random(1))
    catalogue = NetworkCatalogue(cast(Store, MortalStore(store, Life(), outages)), time=time)
    task = asyncio.create_task(catalogue.run())
    yield Bench(store, outages, catalogue)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()


async def test_whoever_waits_hears_of_an_empty_cluster_too(bench: Bench) -> None:
    async with asyncio.timeout(5):
        assert await bench.catalogue.changed(0) > 0
    assert bench.catalogue.is_in_step
    assert not bench.catalogue.networks


async def test_networks_are_found_by_id_name_and_subnet_with_their_versions(bench: Bench) -> None:
    await bench.put(overlay())
    await until(lambda: bool(bench.catalogue.networks))
    known = bench.catalogue.networks[overlay().id]
    entry = await bench.store.get(keys.network(overlay().id))
    assert entry is not None
    assert (known.value, known.version) == (overlay(), entry.version)
    assert bench.catalogue.named("my-net") == overlay()
    assert bench.catalogue.of_subnet("10.1.0.0/24") == overlay()
    assert bench.catalogue.of_subnet("fd00:1::/64") == overlay()
    assert bench.catalogue.of_subnet("10.1.0.0/25") is None


async def test_a_name_and_a_subnet_that_went_to_another_network_are_that_ones(bench: Bench) -> None:
    first, second = overlay(), overlay("ba9876543210", "other", 7, 2)
    await bench.put(first, second)
    swapped = (
        replace(first, name="other", subnets=second.subnets),
        replace(second, name="my-net", subnets=first.subnets),
    )
    await bench.put(*swapped)
    await until(lambda: bench.catalogue.named("other") == swapped[0])
    assert bench.catalogue.named("my-net") == swapped[1]
    assert bench.catalogue.of_subnet("10.1.0.0/24") == swapped[1]

    await bench.store.commit([], [Delete(keys.network(first.id))])
    await until(lambda: bench.catalogue.named("other") is None)
    assert bench.catalogue.of_subnet("10.2.0.0/24") is None
    assert bench.catalogue.of_subnet("10.1.0.0/24") == swapped[1]


async def test_every_waiter_hears_of_every_change(bench: Bench) -> None:
    async with asyncio.timeout(5):
        number = await bench.catalogue.changed(0)
        waiters = [asyncio.create_task(bench.catalogue.changed(number)) for _ in range(3)]
        await asyncio.sleep(0)
        await bench.put(overlay())
        assert all(found > number for found in await asyncio.gather(*waiters))


async def test_what_was_known_stays_while_the_store_is_away_and_is_not_called_in_step(bench: Bench) -> None:
    await bench.put(overlay())
    await until(lambda: bool(bench.catalogue.networks))
    bench.outages.store = True
    await bench.put(replace(overlay(), name="fresh"))
    await until(lambda: not bench.catalogue.is_in_step)
    assert bench.catalogue.named("my-net") is not None
    bench.outages.store = False
    await until(lambda: bench.catalogue.is_in_step and bench.catalogue.named("fresh") is not None)
    assert bench.catalogue.named("my-net") is None
