"""Subnets that are held and networks that are named last: what ends them, who is in their way, what is told of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from controller.requests import HoldRequest, NameRequest
from controller.snapshot import pack, unpack
from kvnet import codec, keys
from kvnet.claims import SubnetClaim, SubnetHold
from kvnet.errors import KvnetError, NetworkDeleting, NetworkInUse, PreconditionFailed, SubnetTaken
from kvnet.model import DockerFields, Inventory, Network, NetworkState, UsedRange
from tests.unit.controller.kit import (
    ME,
    FailingStore,
    FakeTime,
    Fault,
    add_host,
    endpoint,
    network,
    opened,
)

pytestmark = pytest.mark.anyio

CIDR = ip_network("10.1.0.0/24")


async def in_step(cluster: Cluster, store: MemoryStore) -> None:
    await cluster._state.reached(store.state.revision, *cluster._state.tables)


async def nameless(cluster: Cluster, cidr: str | None = None, **more: object) -> Network:
    held = await cluster.holds.create(HoldRequest("h1", cidr=cidr), ME)
    return (await cluster.networks.create(network("", holds=(held.id,), naming=True, **more), ME)).value


async def test_a_hold_goes_after_its_minute_and_not_before(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    held = await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR)), ME)

    assert held.until == time.now() + 60.0
    await cluster.upkeep.sweep()
    time.pass_by(59.0)
    assert (await cluster.upkeep.sweep()).done["holds"] == 0
    time.pass_by(1.0)
    assert (await cluster.upkeep.sweep()).done["holds"] == 1
    await in_step(cluster, store)

    assert cluster.holds.list() == ()
    await cluster.networks.create(network("my-net", str(CIDR)), ME)


async def test_a_clock_that_is_set_ends_no_hold_and_no_making_of_a_network(cluster: Cluster, time: FakeTime) -> None:
    await cluster.holds.create(HoldRequest("h1"), ME)
    await nameless(cluster)
    await cluster.upkeep.sweep()
    time.jump(7 * 86_400.0)

    done = (await cluster.upkeep.sweep()).done

    assert (done["holds"], done["nameless"], done["leaks"]) == (0, 0, 0)


async def test_a_network_whose_name_does_not_come_goes_with_its_subnet(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await nameless(cluster, str(CIDR))
    await cluster.upkeep.sweep()
    time.pass_by(61.0)

    assert (await cluster.upkeep.sweep()).done["nameless"] == 1

    for key in (keys.network(made.id), keys.name(made.name), keys.subnet(CIDR)):
        assert await store.get(key) is None


async def test_a_network_waits_for_its_name_as_long_as_its_host_is_down(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await nameless(cluster, docker=DockerFields(host="h1"))
    await cluster.upkeep.sweep()
    await store.commit([], [Delete(keys.alive("h1"))])
    await in_step(cluster, store)

    for _ in range(10):
        time.pass_by(61.0)
        assert (await cluster.upkeep.sweep()).done["nameless"] == 0
    await add_host(store, "h1")
    await in_step(cluster, store)
    await cluster.upkeep.sweep()
    time.pass_by(59.0)
    assert (await cluster.upkeep.sweep()).done["nameless"] == 0
    time.pass_by(2.0)
    assert (await cluster.upkeep.sweep()).done["nameless"] == 1

    assert await store.get(keys.network(made.id)) is None


async def test_a_host_that_stays_away_for_good_does_not_keep_its_nameless_networks(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await nameless(cluster, docker=DockerFields(host="h1"))
    await store.commit([], [Delete(keys.alive("h1"))])
    await in_step(cluster, store)
    await cluster.upkeep.sweep()
    time.pass_by(86_400.0)
    await cluster.upkeep.sweep()
    time.pass_by(61.0)
    await cluster.upkeep.sweep()

    assert await store.get(keys.network(made.id)) is None


async def test_thirty_networks_with_all_that_docker_may_say_are_made_and_named_at_once(cluster: Cluster) -> None:
    docker = DockerFields(labels={f"k{i}": '"' * 500 for i in range(31)}, host="h1")

    async def one(i: int) -> Network:
        made = await nameless(cluster, docker=docker)
        return (await cluster.naming.name(made.id, NameRequest(f"web{i}", docker), ME)).value

    made = await asyncio.gather(*(one(i) for i in range(30)))

    assert all(n.docker == docker for n in made)
    assert len({n.name for n in made}) == 30


async def test_a_network_that_gets_its_name_at_the_last_moment_keeps_it(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await nameless(cluster)
    await cluster.upkeep.sweep()
    time.pass_by(61.0)
    await cluster.naming.name(made.id, NameRequest("web"), ME)

    await cluster.upkeep.sweep()

    assert cluster.networks.get("web").value.state is NetworkState.ACTIVE


async def test_upkeep_that_saw_it_nameless_a_moment_ago_does_not_remove_what_is_named(
    cluster: Cluster, store: MemoryStore
) -> None:
    made = await nameless(cluster)
    seen = cluster.networks.get(made.id)
    await cluster.naming.name(made.id, NameRequest("web"), ME)

    with pytest.raises(PreconditionFailed):
        await cluster.networks._removal.remove(seen, ME, seen.version)

    assert cluster.networks.get("web").value.state is NetworkState.ACTIVE


async def test_a_network_that_is_being_deleted_gets_no_name(cluster: Cluster, store: MemoryStore) -> None:
    made = await nameless(cluster)
    await cluster.networks._removal._put(cluster.networks.get(made.id), NetworkState.DELETING, "network.deleting", ME)

    with pytest.raises(NetworkDeleting):
        await cluster.naming.name(made.id, NameRequest("web"), ME)

    assert await store.get(keys.name("web")) is None


async def test_check_leaves_a_hold_alone_until_it_should_be_gone_long_since(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR)), ME)
    assert (await cluster.ipam.check()).ok
    time.pass_by(60.0 + 119.0)
    assert (await cluster.ipam.check()).ok
    time.pass_by(2.0)
    (finding,) = (await cluster.ipam.check()).findings

    assert finding.detail == "10.1.0.0/24 is held for a network of host h1, which was given up 121 s ago"
    report = await cluster.ipam.repair(ME)
    assert report.ok
    assert await store.get(keys.subnet(CIDR)) is None


async def test_a_hold_on_what_a_network_has_is_put_right(cluster: Cluster, store: MemoryStore, time: FakeTime) -> None:
    made = await cluster.networks.create(network("my-net", str(CIDR)), ME)
    wrong = SubnetClaim("0" * 12, "", SubnetHold("h1", time.now(), time.now() + 60))
    await store.commit([], [Put(keys.subnet(CIDR), codec.encode(wrong))])

    await cluster.ipam.repair(ME)
    report = await cluster.ipam.repair(ME)

    assert report.ok
    entry = await store.get(keys.subnet(CIDR))
    assert entry is not None
    assert codec.decode(SubnetClaim, entry.value) == SubnetClaim(made.value.id)


async def test_a_backup_holds_nothing_that_is_only_held(cluster: Cluster, store: MemoryStore, time: FakeTime) -> None:
    await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR)), ME)
    made = await nameless(cluster, "10.2.0.0/24")

    backup = unpack(pack(await store.list(""), "memory", time.now()))

    assert keys.subnet(CIDR) not in backup.values
    assert keys.subnet(ip_network("10.2.0.0/24")) in backup.values
    assert codec.decode(Network, backup.values[keys.network(made.id)]).state is NetworkState.NAMING
    assert backup.findings(time.now() + 86_400.0) == []


async def test_automatic_choice_keeps_away_from_what_is_held(cluster: Cluster) -> None:
    held = await cluster.holds.create(HoldRequest("h1", cidr="10.192.0.0/16"), ME)
    other = await cluster.holds.create(HoldRequest("h1"), ME)
    made = await cluster.networks.create(network("my-net"), ME)

    assert not other.cidr.overlaps(held.cidr)
    assert not any(
        s.cidr.version == 4 and s.cidr.overlaps(c) for s in made.value.subnets for c in (held.cidr, other.cidr)
    )


async def test_a_hold_keeps_away_from_what_hosts_use_unless_it_is_forced(cluster: Cluster, store: MemoryStore) -> None:
    used = Inventory("h1", (UsedRange(CIDR, "route dev eth0"),))
    await store.commit([], [Put(keys.inventory("h1"), codec.encode(used))])
    await in_step(cluster, store)

    with pytest.raises(SubnetTaken) as refused:
        await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR)), ME)
    held = await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR), force=True), ME)
    request = network("", holds=(held.id,), naming=True)
    with pytest.raises(SubnetTaken):  # the network is judged by its own word
        await cluster.networks.create(request, ME)
    made = await cluster.networks.create(network("", holds=(held.id,), naming=True, force=True), ME)

    assert refused.value.context["can_be_forced"]
    assert "route dev eth0" in held.forced
    assert [s.cidr for s in made.value.subnets] == [CIDR]


async def test_a_transparent_network_may_have_its_uplinks_subnet_through_a_forced_hold(
    cluster: Cluster, store: MemoryStore
) -> None:
    used = Inventory("h1", (UsedRange(CIDR, "route dev eth1"),))
    await store.commit([], [Put(keys.inventory("h1"), codec.encode(used))])
    await in_step(cluster, store)
    held = await cluster.holds.create(HoldRequest("h1", cidr=str(CIDR), force=True), ME)

    made = await cluster.networks.create(
        network("", holds=(held.id,), naming=True, driver="transparent", options={"parent": "eth1"}),
        ME,
    )

    assert made.value.uplink == "eth1"


async def test_a_replica_that_has_not_heard_of_a_hold_yet_asks_the_store(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as one, opened(store, time, seed=2) as other:
        await add_host(store, "h1")
        for _ in range(5):  # the other's guard is as it read it at first
            held = await one.holds.create(HoldRequest("h1"), ME)
            made = await other.networks.create(network("", holds=(held.id,), naming=True), ME)
            assert made.value.id == held.id
            again = await one.holds.create(HoldRequest("h1"), ME)
            await other.holds.release(again.id, ME)
            assert again.id not in [h.id for h in one.holds.list()] or await store.get(keys.subnet(again.cidr)) is None


async def test_a_lost_answer_to_a_hold_is_looked_up(time: FakeTime) -> None:
    state = MemoryState()
    async with MemoryStore(state) as inner:
        store = FailingStore(inner)
        async with opened(store, time) as cluster:
            await add_host(inner, "h1")
            await cluster.holds.create(HoldRequest("h1"), ME)
            before = len(cluster.holds.list())
            for at in range(1, 3):
                store.calls, store.fault = 0, Fault(at, kill=False, before=False)
                made = await cluster.holds.create(HoldRequest("h1", cidr=f"10.{at}.0.0/24"), ME)
                assert (await inner.get(keys.subnet(made.cidr))) is not None
            await in_step(cluster, inner)
            assert len(cluster.holds.list()) == before + 2


async def test_a_network_in_use_tells_who_uses_it_and_its_own_name(cluster: Cluster) -> None:
    made = await nameless(cluster)
    await cluster.naming.name(made.id, NameRequest("web"), ME)
    await cluster.endpoints.create("web", endpoint(), ME)

    with pytest.raises(NetworkInUse) as refused:
        await cluster.networks.delete("web", ME)

    told = refused.value.context
    assert (told["network"], told["name"], told["total"]) == (made.id, "web", 1)
    assert [(e["name"], e["host"]) for e in told["endpoints"]] == [("c1", "h1")]


def test_what_was_written_before_docker_was_known_is_read() -> None:
    subnets = b'[{"cidr":"10.1.0.0/24"}]'
    old = b'{"v":1,"id":"0123456789ab","name":"old","driver":"bridge","subnets":%b,"created_at":1.0}' % subnets

    network = codec.decode(Network, old)
    claim = codec.decode(SubnetClaim, b'{"v":1,"network":"0123456789ab","forced":""}')

    assert (network.docker, network.state, claim.hold) == (None, NetworkState.ACTIVE, None)


@given(
    st.builds(
        DockerFields,
        options=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
        labels=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
        attachable=st.booleans(),
    )
)
def test_what_docker_said_comes_back_word_for_word(said: DockerFields) -> None:
    assert codec.decode(DockerFields, codec.encode(said)) == said


STEPS = st.lists(
    st.tuples(st.sampled_from(["hold", "create", "name", "release", "delete", "minute"]), st.integers(0, 2)),
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=2, max_size=3), st.integers(0, 2**16))
def test_whatever_several_daemons_do_at_once_no_subnet_overlaps_and_no_name_is_two_networks(
    lives: list[list[tuple[str, int]]], seed: int
) -> None:
    asyncio.run(_live(lives, seed))


async def _live(lives: list[list[tuple[str, int]]], seed: int) -> None:
    time, state = FakeTime(), MemoryState()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(MemoryStore(state))
        await add_host(store, "h1")
        replicas = [await stack.enter_async_context(opened(store, time, seed=seed + i)) for i in range(len(lives))]
        await asyncio.gather(*(_one_life(c, life, time) for c, life in zip(replicas, lives, strict=True)))
        for cluster in replicas:
            await in_step(cluster, store)
        assert [f for f in (await replicas[0].ipam.check()).findings if "is held for" not in f.detail] == []
        claimed = [keys.parse_subnet(key) for key in state.entries if key.startswith(keys.SUBNETS)]
        assert not any(a.version == b.version and a.overlaps(b) for i, a in enumerate(claimed) for b in claimed[:i])
        names = [n.value.name for n in replicas[0].networks.list()]
        assert len(names) == len(set(names))


async def _one_life(cluster: Cluster, life: list[tuple[str, int]], time: FakeTime) -> None:
    """A daemon that makes networks, and is not surprised by any refusal."""
    holds: list[str] = []
    made: list[str] = []
    for step, i in life:
        try:
            match step:
                case "hold":
                    cidr = None if i == 2 else f"10.{i}.0.0/24"
                    holds.append((await cluster.holds.create(HoldRequest("h1", cidr=cidr), ME)).id)
                case "create" if holds:
                    request = network("", holds=(holds[-1],), naming=True)
                    made.append((await cluster.networks.create(request, ME)).value.id)
                case "name" if made:
                    named = await cluster.naming.name(made[-1], NameRequest(f"web{i}"), ME)
                    assert (named.value.name, named.value.state) == (f"web{i}", NetworkState.ACTIVE)
                case "release" if holds:
                    await cluster.holds.release(holds[-1], ME)
                case "delete" if made:
                    await cluster.networks.delete(made[-1], ME)
                case "minute":
                    await cluster.upkeep.sweep()
                    time.pass_by(61.0)
                    await cluster.upkeep.sweep()
        except KvnetError:
            continue
