"""Blocks of routed networks: each of one host, claimed with an endpoint, given back in two steps, never twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.store import Put, Store
from controller.cluster import Cluster
from controller.requests import ReservationRequest
from kvnet import codec, keys
from kvnet.errors import AddressTaken, BlocksExhausted, BlockTaken, HostsApart, KvnetError
from kvnet.model import Block, BlockState, CrossSegment, Driver, Endpoint, Network, Subnet, Versioned
from tests.unit.controller.kit import (
    ME,
    FailingStore,
    FakeTime,
    Fault,
    Killed,
    add_host,
    add_network,
    endpoint,
    eventually,
    opened,
)

pytestmark = pytest.mark.anyio

REPLICAS = 3
ID = "0123456789ab"
COOL_DOWN_S, GRACE_S = 60.0, 30.0


def routed(*cidrs: str, **more: object) -> Network:
    subnets = tuple(Subnet(ip_network(cidr)) for cidr in cidrs or ("10.9.0.0/24",))
    return Network(ID, "flat", Driver.ROUTED, subnets, 0.0, **more)  # type: ignore[arg-type]


async def blocks(store: Store) -> list[Block]:
    return [codec.decode(Block, entry.value) for entry in (await store.list(keys.BLOCKS)).entries]


async def with_network(cluster: Cluster, store: Store, network: Network) -> None:
    await add_network(store, network)
    await eventually(lambda: any(n.value.id == network.id for n in cluster.networks.list()))


def made(outcomes: list[Versioned[Endpoint] | KvnetError]) -> list[Endpoint]:
    for outcome in outcomes:
        assert not isinstance(outcome, KvnetError), outcome
    return [one.value for one in outcomes if not isinstance(one, KvnetError)]


async def test_a_host_gets_a_block_with_its_first_endpoint_and_fills_it(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed("10.9.0.0/24", "fd00:9::/64"))
    one, two = made(await cluster.endpoints.create_many("flat", [endpoint("a"), endpoint("b")], ME))

    assert [str(a) for a in one.addresses] == ["10.9.0.2", "fd00:9::2"]
    assert [str(a) for a in two.addresses] == ["10.9.0.3", "fd00:9::3"]
    assert sorted(str(b.cidr) for b in await blocks(store)) == ["10.9.0.0/26", "fd00:9::/122"]
    assert (await cluster.ipam.check()).findings == ()


async def test_a_full_block_is_followed_by_another_of_the_same_host(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    await add_host(store, "h2")
    asked = [endpoint(f"c{i}", "h1" if i % 2 else "h2") for i in range(180)]
    endpoints = made(await cluster.endpoints.create_many("flat", asked, ME))

    owner = {b.cidr: b.host for b in await blocks(store)}
    assert Counter(owner.values()) == {"h1": 2, "h2": 2}
    for one in endpoints:
        (cidr,) = [c for c in owner if one.addresses[0] in c]
        assert owner[cidr] == one.host
        assert one.addresses[0] not in (cidr[0], cidr[1], cidr[-1])
    assert (await cluster.ipam.check()).findings == ()


async def test_no_block_left_says_who_has_how_many(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed("10.9.0.0/28", block_prefix_length=29))
    await add_host(store, "h2")
    await cluster.endpoints.create_many("flat", [endpoint(f"c{i}") for i in range(6)], ME)

    with pytest.raises(BlocksExhausted, match=r"of 2 .*h1 has 2"):
        await cluster.endpoints.create("flat", endpoint("late", "h2"), ME)


async def test_a_fixed_address_takes_its_block_and_another_hosts_is_refused(
    cluster: Cluster, store: MemoryStore
) -> None:
    await with_network(cluster, store, routed())
    await add_host(store, "h2")
    await cluster.endpoints.create("flat", endpoint("a", address="10.9.0.70"), ME)
    assert [(str(b.cidr), b.host) for b in await blocks(store)] == [("10.9.0.64/26", "h1")]

    await cluster.endpoints.create("flat", endpoint("b", address="10.9.0.71"), ME)
    with pytest.raises(BlockTaken, match="which host h1 has"):
        await cluster.endpoints.create("flat", endpoint("c", "h2", address="10.9.0.72"), ME)
    for address, what in (("10.9.0.64", "first"), ("10.9.0.65", "gateway"), ("10.9.0.127", "last")):
        with pytest.raises(AddressTaken, match=rf"the {what}.* of block 10.9.0.64/26, which host h1 has"):
            await cluster.endpoints.create("flat", endpoint("d", address=address), ME)


async def test_a_reservation_lies_anywhere_and_is_passed_over(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    await cluster.endpoints.create("flat", endpoint("a"), ME)
    await cluster.reservations.create("flat", ReservationRequest("printer", "10.9.0.3"), ME)
    free = await cluster.reservations.create("flat", ReservationRequest("any"), ME)
    assert str(free.address) not in ("10.9.0.0", "10.9.0.1")

    one = await cluster.endpoints.create("flat", endpoint("b"), ME)
    assert one.value.address not in (ip_address("10.9.0.3"), free.address)
    with pytest.raises(AddressTaken, match="gateway of block"):
        await cluster.reservations.create("flat", ReservationRequest("gw", "10.9.0.1"), ME)


async def test_hosts_behind_a_router_are_refused_without_tunnels(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    await add_host(store, "n1", underlay="198.51.100.1", segment="198.51.100.0/24")
    await add_host(store, "n2", underlay="198.51.100.2", segment="198.51.100.0/24")
    await add_host(store, "far", underlay="203.0.113.1", segment="203.0.113.0/24")

    a, b, c = await cluster.endpoints.create_many("flat", [endpoint(h, h) for h in ("n1", "n2", "far")], ME)
    assert not isinstance(a, KvnetError)
    assert not isinstance(b, KvnetError)
    assert isinstance(c, HostsApart)
    assert "far (203.0.113.1 in 203.0.113.0/24)" in c.detail
    assert "n1 (198.51.100.1" in c.detail
    assert "tunnel" in c.fix


async def test_with_tunnels_hosts_may_be_anywhere(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed(cross_segment=CrossSegment.TUNNEL, vni=7))
    await add_host(store, "n1", underlay="198.51.100.1", segment="198.51.100.0/24")
    await add_host(store, "far", underlay="203.0.113.1", segment="203.0.113.0/24")
    made(await cluster.endpoints.create_many("flat", [endpoint("a", "n1"), endpoint("b", "far")], ME))


async def test_an_empty_block_goes_in_two_steps_after_its_rest(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await with_network(cluster, store, routed())
    one = await cluster.endpoints.create("flat", endpoint(), ME)
    await cluster.endpoints.delete("flat", one.value.id, ME)

    for _ in range(3):
        await cluster.upkeep.sweep()
    assert len(await blocks(store)) == 1, "its address cools down"
    time.pass_by(COOL_DOWN_S + 1)
    await cluster.upkeep.sweep()
    assert len(await blocks(store)) == 1, "seen empty only once"
    time.pass_by(GRACE_S)
    await eventually(lambda: not cluster.upkeep.last.refused)
    await cluster.upkeep.sweep()

    assert await blocks(store) == []
    assert not cluster.upkeep.last.errors


async def test_a_releasing_block_is_taken_back_by_its_host(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    cidr = ip_network("10.9.0.64/26")
    block = Block(ID, cidr, "h1", 0.0, BlockState.RELEASING)
    await store.commit([], [Put(keys.block(ID, cidr), codec.encode(block))])
    await eventually(lambda: bool(cluster._state.blocks_of(ID)))

    one = await cluster.endpoints.create("flat", endpoint(), ME)

    assert one.value.address in cidr
    assert [(b.cidr, b.state) for b in await blocks(store)] == [(cidr, BlockState.ACTIVE)]


async def test_an_endpoint_that_was_faster_than_the_mark_keeps_its_block(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    one = await cluster.endpoints.create("flat", endpoint(), ME)
    cidr = ip_network("10.9.0.0/26")
    releasing = Block(ID, cidr, "h1", 0.0, BlockState.RELEASING)
    await store.commit([], [Put(keys.block(ID, cidr), codec.encode(releasing))])
    await eventually(lambda: cluster._state.blocks_of(ID)[cidr].value == releasing)

    await cluster.upkeep.sweep()

    assert [b.state for b in await blocks(store)] == [BlockState.ACTIVE]
    assert one.value.address in cidr


async def test_a_host_that_is_removed_gives_its_blocks_back(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    await add_host(store, "h2", alive=False)
    await cluster.endpoints.create_many("flat", [endpoint(f"c{i}", "h2") for i in range(100)], ME)
    assert len(await blocks(store)) == 2

    await cluster.hosts.delete("h2", ME, force=True)

    assert await blocks(store) == []
    assert (await cluster.ipam.check()).findings == ()


async def test_a_network_that_is_deleted_takes_its_blocks_with_it(cluster: Cluster, store: MemoryStore) -> None:
    await with_network(cluster, store, routed())
    one = await cluster.endpoints.create("flat", endpoint(), ME)
    await cluster.endpoints.delete("flat", one.value.id, ME)
    await cluster.networks.delete("flat", ME)
    assert await blocks(store) == []


@pytest.fixture
async def replicas(any_store: Store, time: FakeTime) -> AsyncIterator[list[Cluster]]:
    async with AsyncExitStack() as stack:
        for i in range(4):
            await add_host(any_store, f"h{i}")
        replicas = [await stack.enter_async_context(opened(any_store, time, seed=i)) for i in range(REPLICAS)]
        await add_network(any_store, routed())
        await eventually(lambda: all(replica.networks.list() for replica in replicas))
        yield replicas


async def test_hosts_that_race_for_blocks_never_share_one(replicas: list[Cluster], any_store: Store) -> None:
    outcomes = await asyncio.gather(
        *(replicas[i % REPLICAS].endpoints.create_many("flat", [endpoint(f"c{i}", f"h{i % 4}")], ME) for i in range(60))
    )

    owner = {b.cidr: b.host for b in await blocks(any_store)}
    for one in (e for (e,) in outcomes if not isinstance(e, KvnetError)):
        (cidr,) = [c for c in owner if one.value.addresses[0] in c]
        assert owner[cidr] == one.value.host
    refused = [e for (e,) in outcomes if isinstance(e, KvnetError)]
    assert all(isinstance(error, BlocksExhausted) for error in refused)
    assert (await replicas[0].ipam.check()).findings == ()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(1, 12), kill=st.booleans(), before=st.booleans(), meanwhile=st.booleans())
def test_wherever_upkeep_dies_the_block_is_given_back_or_kept_for_who_came(
    at: int, kill: bool, before: bool, meanwhile: bool
) -> None:
    asyncio.run(_killed_release(Fault(at, kill, before), meanwhile))


async def _killed_release(fault: Fault, meanwhile: bool) -> None:
    state, time = MemoryState(), FakeTime()
    async with MemoryStore(state) as store:
        await add_host(store, "h1")
        async with opened(store, time) as cluster:
            await with_network(cluster, store, routed())
            one = await cluster.endpoints.create("flat", endpoint(), ME)
            await cluster.endpoints.delete("flat", one.value.id, ME)
        time.pass_by(COOL_DOWN_S + 1)
        failing = FailingStore(store)
        try:
            async with opened(failing, time) as cluster:
                await cluster.upkeep.sweep()
                time.pass_by(GRACE_S + 1)
                failing.calls, failing.fault = 0, fault
                await cluster.upkeep.sweep()
        except* (Killed, KvnetError):
            pass
        async with opened(store, time, seed=2) as cluster:
            again = await cluster.endpoints.create("flat", endpoint(), ME) if meanwhile else None
            for _ in range(4):
                await cluster.upkeep.sweep()
                time.pass_by(GRACE_S + 1)
                await asyncio.sleep(0)
            left = await blocks(store)
            assert (await cluster.ipam.check()).findings == ()
            if again is None:
                assert left == []
            else:
                assert [(b.state, again.value.addresses[0] in b.cidr) for b in left] == [(BlockState.ACTIVE, True)]
