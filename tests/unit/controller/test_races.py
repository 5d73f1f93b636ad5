"""Many at once, in one process and in several: one winner per name, no overlap, no address twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack

import pytest

from backends.open import open_store
from backends.passing import PassingStore
from backends.store import Entry, Snapshot, Store
from controller.cluster import Cluster
from controller.requests import HoldRequest, NameRequest
from controller.views import Hold
from kvnet import keys
from kvnet.errors import HoldGone, KvnetError, NameTaken, NetworkNamed, SubnetTaken
from kvnet.model import Endpoint, Network, Versioned
from tests.unit.controller.kit import ME, FailingStore, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio

REPLICAS = 3


@pytest.fixture
async def replicas(any_store: Store, time: FakeTime) -> AsyncIterator[list[Cluster]]:
    """Three controllers on one store."""
    async with AsyncExitStack() as stack:
        await add_host(any_store, "h1")
        yield [await stack.enter_async_context(opened(any_store, time, seed=i)) for i in range(REPLICAS)]


class Overtaken(FailingStore):
    """Whoever lists everything finds that another controller was faster by a moment."""

    async def list(self, prefix: str) -> Snapshot:
        async with opened(self.inner, seed=7):
            return await super().list(prefix)


async def test_of_two_controllers_that_start_on_an_empty_store_at_once_both_have_its_cluster(any_store: Store) -> None:
    async with opened(Overtaken(any_store)) as late, opened(any_store) as other:
        assert late.status().cluster == other.status().cluster


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


async def nameless(cluster: Cluster, *cidrs: str) -> Network:
    """As a Docker daemon makes it: the subnet first, then the network, which has no name yet."""
    held = await cluster.holds.create(HoldRequest("h1", cidr=cidrs[0] if cidrs else None), ME)
    return (await cluster.networks.create(network("", holds=(held.id,), naming=True), ME)).value


@pytest.mark.parametrize("namers", [2, 3, 24])
async def test_of_networks_that_race_for_one_name_exactly_one_gets_it(replicas: list[Cluster], namers: int) -> None:
    made = await asyncio.gather(*(nameless(replicas[i % REPLICAS]) for i in range(namers)))

    outcomes = await asyncio.gather(
        *(outcome(replicas[i % REPLICAS].naming.name(one.id, NameRequest("the-one"), ME)) for i, one in enumerate(made))
    )

    winners = [o for o in outcomes if isinstance(o, Network)]
    losers = [o for o in outcomes if isinstance(o, NameTaken)]
    assert (len(winners), len(losers)) == (1, namers - 1)
    assert {loser.context["network"] for loser in losers} <= {winners[0].id}
    assert (await replicas[0].ipam.check()).findings == ()


async def test_a_name_goes_to_one_of_those_who_name_and_those_who_create(replicas: list[Cluster]) -> None:
    for turn in range(6):
        one = await nameless(replicas[turn % REPLICAS])
        outcomes = await asyncio.gather(
            outcome(replicas[0].naming.name(one.id, NameRequest(f"net{turn}"), ME)),
            outcome(replicas[1].networks.create(network(f"net{turn}"), ME)),
            outcome(replicas[2].networks.create(network(f"net{turn}"), ME)),
        )
        assert sum(isinstance(o, Network) for o in outcomes) == 1
    assert (await replicas[0].ipam.check()).findings == ()


async def test_one_network_that_is_named_by_all_at_once_has_one_name(replicas: list[Cluster]) -> None:
    one = await nameless(replicas[0])

    outcomes = await asyncio.gather(
        *(outcome(replicas[i % REPLICAS].naming.name(one.id, NameRequest(f"n{i % 2}"), ME)) for i in range(12))
    )

    winners = {o.name for o in outcomes if isinstance(o, Network)}
    assert len(winners) == 1
    assert sum(isinstance(o, NetworkNamed) for o in outcomes) == 6


async def test_of_those_who_race_for_a_subnet_to_hold_or_to_have_one_gets_it(replicas: list[Cluster]) -> None:
    async def hold(cluster: Cluster) -> Hold | KvnetError:
        try:
            return await cluster.holds.create(HoldRequest("h1", cidr="10.1.0.0/24"), ME)
        except KvnetError as error:
            return error

    held = await asyncio.gather(*(hold(replicas[i % REPLICAS]) for i in range(12)))
    made = await outcome(replicas[0].networks.create(network("my-net", "10.1.0.0/25"), ME))

    assert sum(isinstance(o, Hold) for o in held) == 1
    assert isinstance(made, SubnetTaken)


async def test_what_is_held_by_many_at_once_never_overlaps(replicas: list[Cluster]) -> None:
    made = await asyncio.gather(
        *(replicas[i % REPLICAS].holds.create(HoldRequest("h1"), ME) for i in range(40)),
        *(replicas[i % REPLICAS].holds.create(HoldRequest("h1", prefix_length=20), ME) for i in range(10)),
    )
    networks = await asyncio.gather(
        *(outcome(replicas[i % REPLICAS].networks.create(network(f"net{i}"), ME)) for i in range(20))
    )

    cidrs = [h.cidr for h in made]
    cidrs += [s.cidr for n in networks if isinstance(n, Network) for s in n.subnets if s.cidr.version == 4]
    assert len(cidrs) == 70
    assert not any(a.overlaps(b) for i, a in enumerate(cidrs) for b in cidrs[:i])


async def test_a_hold_is_either_used_or_released(replicas: list[Cluster]) -> None:
    for turn in range(8):
        held = await replicas[0].holds.create(HoldRequest("h1"), ME)
        request = network("", holds=(held.id,), naming=True)
        made, _ = await asyncio.gather(
            outcome(replicas[1 + turn % 2].networks.create(request, ME)), replicas[0].holds.release(held.id, ME)
        )
        claims = [c for c in replicas[0]._state.subnets.items.values() if c.value.network == held.id]
        assert isinstance(made, Network if claims else HoldGone)
        assert all(c.value.hold is None for c in claims)
    assert (await replicas[0].ipam.check()).findings == ()


async def test_one_hold_that_is_used_by_all_at_once_is_one_network(replicas: list[Cluster]) -> None:
    held = await replicas[0].holds.create(HoldRequest("h1"), ME)
    request = network("", holds=(held.id,), naming=True)

    made = await asyncio.gather(*(replicas[i % REPLICAS].networks.create(request, ME) for i in range(12)))

    assert len({n.version for n in made}) == 1


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


class Reading(PassingStore):
    """Counts who looks for the winner of an address."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.looks = 0

    async def get(self, key: str) -> Entry | None:
        self.looks += key.startswith(keys.ADDRESSES)
        return await super().get(key)


async def test_whose_list_lost_every_address_to_another_looks_for_few_of_the_winners(
    any_store: Store, time: FakeTime
) -> None:
    await add_host(any_store, "h1")
    reading = Reading(any_store)
    wanted = [[endpoint(f"{of}-{i}") for i in range(30)] for of in "ab"]
    async with opened(reading, time, seed=1) as one, opened(reading, time, seed=2) as two:
        await one.networks.create(network("my-net", "10.1.0.0/16"), ME)
        await two.networks.fresh("my-net")

        batches = await asyncio.gather(
            one.endpoints.create_many("my-net", wanted[0], ME), two.endpoints.create_many("my-net", wanted[1], ME)
        )

        assert len({o.value.address for batch in batches for o in batch if isinstance(o, Versioned)}) == 60
        lost = one.commits["conflicts"] + two.commits["conflicts"]
        assert lost >= 20
        assert reading.looks <= lost // 5


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
