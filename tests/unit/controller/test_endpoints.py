"""Endpoints: what one claims, in bulk too, how it ends, and when every host knows it."""

from __future__ import annotations

import asyncio
import random
from ipaddress import ip_address

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from kvnet import codec, keys
from kvnet.errors import (
    AddressTaken,
    AmbiguousName,
    IdTaken,
    KvnetError,
    NetworkDeleting,
    NotFound,
    PreconditionFailed,
)
from kvnet.model import Host, HostState, NetworkObserved, NetworkState, Observed, Versioned
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def my_net(cluster: Cluster) -> str:
    return (await cluster.networks.create(network("my-net", "10.1.0.0/24", ipv6=True), ME)).value.id


async def report(store: MemoryStore, host: str, network_id: str, version: int) -> None:
    seen = Observed(host, 0.0, {network_id: NetworkObserved(version)})
    await store.commit([], [Put(keys.observed(host), codec.encode(seen))])


async def test_an_endpoint_gets_one_address_of_each_family_and_its_own_mac(cluster: Cluster, my_net: str) -> None:
    first = (await cluster.endpoints.create("my-net", endpoint("a"), ME)).value
    second = (await cluster.endpoints.create(my_net, endpoint("b"), ME)).value

    assert (str(first.address), str(second.address)) == ("10.1.0.2", "10.1.0.3")
    assert first.address6 is not None
    assert first.mac != second.mac
    assert first.mac.startswith("02:")


async def test_everything_about_an_endpoint_is_in_the_store_in_one_commit(
    cluster: Cluster, store: MemoryStore, my_net: str
) -> None:
    made = await cluster.endpoints.create("my-net", endpoint("a"), ME)

    at_once = {entry.key for entry in (await store.list("")).entries if entry.version == made.version}
    one = made.value
    wanted = {
        keys.endpoint(my_net, one.id),
        keys.local("h1", one.id),
        *(keys.address(my_net, a) for a in one.addresses),
    }
    assert {key for key in at_once if not key.startswith(keys.JOURNAL)} == wanted
    assert any(key.startswith(keys.JOURNAL) for key in at_once)


async def test_the_same_id_and_content_again_is_the_same_endpoint(cluster: Cluster, my_net: str) -> None:
    first = await cluster.endpoints.create("my-net", endpoint(id="mine"), ME)

    assert await cluster.endpoints.create("my-net", endpoint(id="mine"), ME) == first
    with pytest.raises(IdTaken):
        await cluster.endpoints.create("my-net", endpoint("other", id="mine"), ME)


async def test_one_id_on_one_host_in_two_networks_is_refused(cluster: Cluster, my_net: str) -> None:
    await cluster.networks.create(network("second"), ME)
    await cluster.endpoints.create("my-net", endpoint(id="mine"), ME)

    with pytest.raises(IdTaken, match="another network"):
        await cluster.endpoints.create("second", endpoint(id="mine"), ME)


async def test_a_bulk_creation_answers_item_by_item(cluster: Cluster, my_net: str) -> None:
    outcomes = await cluster.endpoints.create_many(
        "my-net",
        [
            endpoint("a", address="10.1.0.9"),
            endpoint("b", address="10.1.0.9"),
            endpoint("c", host="nowhere"),
            endpoint("d"),
        ],
        ME,
    )

    assert [o.code if isinstance(o, KvnetError) else o.value.name for o in outcomes] == [
        "a",
        "address-taken",
        "not-found",
        "d",
    ]
    assert len(cluster.endpoints.list(my_net)) == 2


async def test_a_released_address_rests_before_it_is_given_again(cluster: Cluster, time: FakeTime, my_net: str) -> None:
    one = await cluster.endpoints.create("my-net", endpoint("a", address="10.1.0.9"), ME)
    await cluster.endpoints.delete("my-net", one.value.id, ME)

    with pytest.raises(AddressTaken):
        await cluster.endpoints.create("my-net", endpoint("b", address="10.1.0.9"), ME)
    time.pass_by(61.0)

    again = await cluster.endpoints.create("my-net", endpoint("b", address="10.1.0.9"), ME)
    assert str(again.value.address) == "10.1.0.9"


async def test_a_name_that_several_have_is_refused_with_their_ids(cluster: Cluster, my_net: str) -> None:
    ids = {(await cluster.endpoints.create("my-net", endpoint("twin"), ME)).value.id for _ in range(2)}

    with pytest.raises(AmbiguousName) as refusal:
        await cluster.endpoints.delete("my-net", "twin", ME)

    assert set(refusal.value.context["ids"]) == ids


async def test_a_deletion_with_an_old_version_is_refused(cluster: Cluster, my_net: str) -> None:
    made = await cluster.endpoints.create("my-net", endpoint(), ME)

    with pytest.raises(PreconditionFailed):
        await cluster.endpoints.delete("my-net", "c1", ME, if_version=made.version + 1)
    await cluster.endpoints.delete("my-net", "c1", ME, if_version=made.version)

    with pytest.raises(NotFound):
        cluster.endpoints.get("my-net", "c1")


async def test_a_deletion_on_another_replica_never_leaves_the_address_behind(
    store: MemoryStore, time: FakeTime
) -> None:
    async with opened(store, time) as one, opened(store, time, seed=2) as other:
        await add_host(store, "h1")
        made = await one.networks.create(network(), ME)
        for turn in range(20):
            name = f"c{turn}"
            await one.endpoints.create("my-net", endpoint(name, id=name), ME)
            await other.endpoints.delete(made.value.id, name, ME)
        assert (await one.ipam.check()).findings == ()


async def test_nothing_can_enter_a_network_that_is_being_deleted(
    cluster: Cluster, store: MemoryStore, my_net: str
) -> None:
    found = cluster.networks.get(my_net)
    await cluster.networks._removal._put(found, NetworkState.DELETING, "network.deleting", ME)

    with pytest.raises(NetworkDeleting):
        await cluster.endpoints.create("my-net", endpoint(), ME)


async def test_nothing_can_enter_a_host_that_is_being_removed(
    cluster: Cluster, store: MemoryStore, my_net: str
) -> None:
    host = Host("h1", ip_address("192.0.2.1"), 1500, state=HostState.LEAVING)
    await store.commit([], [Put(keys.host("h1"), codec.encode(host))])

    with pytest.raises(NotFound, match="being removed"):
        await cluster.endpoints.create("my-net", endpoint(), ME)


async def test_an_endpoint_is_applied_when_every_living_host_of_the_network_says_so(
    cluster: Cluster, store: MemoryStore, my_net: str
) -> None:
    await add_host(store, "h2")
    await add_host(store, "dead", alive=False)
    await eventually(lambda: cluster.status().hosts == 3)
    for host in ("h2", "dead", "h1"):
        made = await cluster.endpoints.create("my-net", endpoint(f"on-{host}", host=host), ME)
    assert cluster.convergence.of_endpoint(made).waiting_for == ("h1", "h2")

    waiting = asyncio.create_task(cluster.convergence.until({my_net: made.version}, 5.0))
    await report(store, "h1", my_net, made.version)
    await report(store, "h2", my_net, made.version - 1)
    await eventually(lambda: cluster.convergence.of_endpoint(made).waiting_for == ("h2",))
    assert not waiting.done()
    await report(store, "h2", my_net, made.version)

    assert (await waiting).converged


async def test_waiting_for_a_host_that_never_answers_ends_and_names_it(cluster: Cluster, my_net: str) -> None:
    made = await cluster.endpoints.create("my-net", endpoint(), ME)

    assert (await cluster.convergence.until({my_net: made.version}, 0.05)).waiting_for == ("h1",)


async def test_lists_are_filtered_by_network_host_and_address(
    cluster: Cluster, store: MemoryStore, my_net: str
) -> None:
    await add_host(store, "h2")
    await cluster.networks.create(network("second"), ME)
    a = await cluster.endpoints.create("my-net", endpoint("a"), ME)
    b = await cluster.endpoints.create("second", endpoint("b", host="h2"), ME)

    assert cluster.endpoints.list("my-net") == (a,)
    assert cluster.endpoints.list(host="h2") == (b,)
    assert cluster.endpoints.list("my-net", "h2") == ()
    assert cluster.endpoints.list(address=str(a.value.address)) == (a,)
    assert sorted(e.value.name for e in cluster.endpoints.list()) == ["a", "b"]


async def test_the_indexes_are_what_the_store_says_after_any_history(store: MemoryStore, time: FakeTime) -> None:
    rng = random.Random(7)
    async with opened(store, time) as cluster:
        for host in ("h1", "h2"):
            await add_host(store, host)
        nets = [(await cluster.networks.create(network(f"n{i}"), ME)).value.id for i in range(2)]
        there: dict[tuple[str, str], Versioned[object]] = {}
        for step in range(120):
            if there and rng.random() < 0.45:
                net, name = rng.choice(sorted(there))
                await cluster.endpoints.delete(net, name, ME)
                del there[net, name]
            else:
                net, name = rng.choice(nets), f"c{step}"
                there[net, name] = await cluster.endpoints.create(net, endpoint(name, rng.choice(["h1", "h2"])), ME)
        state = cluster._state
        for net in nets:
            mine = {name: e for (n, name), e in there.items() if n == net}
            assert {e.value.name for e in cluster.endpoints.list(net)} == set(mine)
            assert sum(state.hosts_of(net).values()) == len(mine)
            assert cluster.networks.use(cluster.networks.get(net).value).endpoints == len(mine)
        assert sum(sum(state.networks_on(h).values()) for h in ("h1", "h2")) == len(there)
        for net, name in sorted(there):
            await cluster.endpoints.delete(net, name, ME)
        assert (state._endpoints, state._named, state._carried, state._hosts_of) == ({}, {}, {}, {})
        await store.commit([], [Delete(keys.host("h2"))])
