"""Many at once, in one process and in several: one winner per name, no overlap, no address twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack

import pytest

from backends.open import open_store
from backends.store import Store
from controller.cluster import Cluster
from kvnet.errors import KvnetError, NameTaken
from kvnet.model import Endpoint, Network, Versioned
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio

REPLICAS = 3


@pytest.fixture
async def replicas(any_store: Store, time: FakeTime) -> AsyncIterator[list[Cluster]]:
    """Three controllers on one store."""
    async with AsyncExitStack() as stack:
        await add_host(any_store, "h1")
        yield [await stack.enter_async_context(opened(any_store, time, seed=i)) for i in range(REPLICAS)]


async def outcome(work: Awaitable[Versioned[Network]]) -> Network | KvnetError:
    try:
        return (await work).value
    except KvnetError as error:
        return error


async def test_of_64_racing_creators_of_one_name_exactly_one_wins(replicas: list[Cluster]) -> None:
    outcomes = await asyncio.gather(
        *(outcome(replicas[i % REPLICAS].networks.create(network("the-one"), ME)) for i in range(64))
    )

    winners = [o for o in outcomes if isinstance(o, Network)]
    losers = [o for o in outcomes if isinstance(o, NameTaken)]
    assert (len(winners), len(losers)) == (1, 63)
    assert {loser.context["network"] for loser in losers} == {winners[0].id}


async def test_networks_that_race_for_subnets_never_overlap(replicas: list[Cluster]) -> None:
    made = await asyncio.gather(
        *(outcome(replicas[i % REPLICAS].networks.create(network(f"net{i}"), ME)) for i in range(60))
    )

    networks = [n for n in made if isinstance(n, Network)]
    assert len(networks) == 60
    cidrs = [subnet.cidr for n in networks for subnet in n.subnets]
    assert len(set(cidrs)) == 120
    assert len({n.vni for n in networks}) == 60
    assert (await replicas[0].ipam.check()).findings == ()


async def test_endpoints_that_race_for_addresses_never_share_one(replicas: list[Cluster]) -> None:
    await replicas[0].networks.create(network("small", "10.1.0.0/24"), ME)

    made = await asyncio.gather(
        *(replicas[i % REPLICAS].endpoints.create("small", endpoint(f"c{i}"), ME) for i in range(240))
    )

    assert len({e.value.address for e in made}) == 240
    assert (await replicas[0].ipam.check()).findings == ()


async def test_the_last_addresses_go_to_some_and_the_others_are_told_why(replicas: list[Cluster]) -> None:
    await replicas[0].networks.create(network("tiny", "10.1.0.0/28"), ME)  # 13 for endpoints

    batches = await asyncio.gather(
        *(r.endpoints.create_many("tiny", [endpoint(f"c{i}") for i in range(8)], ME) for r in replicas)
    )

    outcomes = [o for batch in batches for o in batch]
    made = [o.value for o in outcomes if isinstance(o, Versioned)]
    assert len({e.address for e in made}) == len(made) == 13
    assert {o.code for o in outcomes if isinstance(o, KvnetError)} == {"addresses-exhausted"}


async def test_one_id_asked_for_at_three_replicas_is_one_endpoint(replicas: list[Cluster]) -> None:
    await replicas[0].networks.create(network(), ME)

    made: list[Versioned[Endpoint]] = await asyncio.gather(
        *(r.endpoints.create("my-net", endpoint(id="same"), ME) for r in replicas for _ in range(4))
    )

    assert len({(e.value.address, e.version) for e in made}) == 1


async def test_an_endpoint_never_enters_a_network_that_is_going(replicas: list[Cluster]) -> None:
    for turn in range(8):
        name = f"net{turn}"
        await replicas[0].networks.create(network(name), ME)
        await asyncio.gather(
            *(r.endpoints.create_many(name, [endpoint(f"c{i}") for i in range(3)], ME) for r in replicas[1:]),
            replicas[0].networks.delete(name, ME),
            return_exceptions=True,
        )
    assert (await replicas[0].ipam.check()).findings == ()
    for cluster in replicas:
        for one in cluster.endpoints.list():
            assert cluster.networks.get(one.value.network)


async def test_two_processes_of_one_sqlite_file_do_not_overlap(tmp_path: object, time: FakeTime) -> None:
    url = f"sqlite://{tmp_path}/kvnet.db"
    async with await open_store(url) as one, await open_store(url) as two:
        await add_host(one, "h1")
        async with opened(one, time, seed=1) as a, opened(two, time, seed=2) as b:
            await asyncio.gather(*((a, b)[i % 2].networks.create(network(f"net{i}"), ME) for i in range(20)))
            assert (await b.ipam.check()).findings == ()
            assert len((await a.ipam.check()).findings) == 0
