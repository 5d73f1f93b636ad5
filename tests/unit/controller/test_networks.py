"""Networks: what a creation claims, what it refuses, and how a deletion ends."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from controller.requests import PoolRequest
from kvnet import codec, keys
from kvnet.errors import IdTaken, NameTaken, NetworkInUse, NotFound, PreconditionFailed, SubnetsExhausted, SubnetTaken
from kvnet.model import Inventory, NetworkState, UsedRange
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network, opened

pytestmark = pytest.mark.anyio


async def test_a_network_without_subnets_gets_one_of_each_family(cluster: Cluster) -> None:
    made = (await cluster.networks.create(network(), ME)).value

    v4, v6 = made.subnets
    assert v4.cidr.subnet_of(ip_network("10.192.0.0/10"))  # type: ignore[arg-type]
    assert (v4.cidr.prefixlen, v6.cidr.prefixlen) == (24, 64)
    assert v4.gateway == v4.cidr[1]
    assert made.vni is not None


async def test_a_bridge_has_no_vni(cluster: Cluster) -> None:
    assert (await cluster.networks.create(network(driver="bridge"), ME)).value.vni is None


async def test_what_was_created_is_listed_at_once(cluster: Cluster) -> None:
    made = await cluster.networks.create(network(), ME)

    assert cluster.networks.list() == (made,)
    assert cluster.networks.get("my-net") == made
    assert cluster.networks.get(made.value.id) == made


async def test_a_second_network_of_the_same_name_is_refused(cluster: Cluster) -> None:
    first = await cluster.networks.create(network(), ME)

    with pytest.raises(NameTaken) as refusal:
        await cluster.networks.create(network(), ME)

    assert refusal.value.context["network"] == first.value.id


async def test_an_overlap_is_refused_with_the_name_of_the_other(cluster: Cluster) -> None:
    await cluster.networks.create(network("first", "10.1.0.0/16"), ME)

    with pytest.raises(SubnetTaken, match="first"):
        await cluster.networks.create(network("second", "10.1.2.0/24"), ME)

    assert [n.value.name for n in cluster.networks.list()] == ["first"]


async def test_the_same_id_and_content_again_is_the_same_network(cluster: Cluster) -> None:
    wanted = network(id="0123456789ab")

    first = await cluster.networks.create(wanted, ME)

    assert await cluster.networks.create(wanted, ME) == first
    with pytest.raises(IdTaken):
        await cluster.networks.create(network("other", id="0123456789ab"), ME)


async def test_a_range_that_a_host_uses_is_refused_unless_forced(cluster: Cluster, store: MemoryStore) -> None:
    used = Inventory("h1", (UsedRange(ip_network("10.9.0.0/16"), "route dev tun0"),))
    await store.commit([], [Put(keys.inventory("h1"), codec.encode(used))])
    await eventually(lambda: bool(cluster.ipam.subnet(ip_network("10.9.0.0/24"))))

    with pytest.raises(SubnetTaken, match="tun0"):
        await cluster.networks.create(network("vpn", "10.9.1.0/24"), ME)
    await cluster.networks.create(network("vpn", "10.9.1.0/24", force=True), ME)

    claim = await store.get(keys.subnet(ip_network("10.9.1.0/24")))
    assert claim is not None
    assert b"tun0" in claim.value


async def test_a_network_that_is_in_use_names_who_uses_it_and_stays(cluster: Cluster) -> None:
    made = await cluster.networks.create(network(), ME)
    user = await cluster.endpoints.create("my-net", endpoint(), ME)

    with pytest.raises(NetworkInUse, match="c1 on h1") as refusal:
        await cluster.networks.delete("my-net", ME)

    (blocker,) = refusal.value.context["endpoints"]
    assert (blocker["id"], blocker["host"], blocker["alive"]) == (user.value.id, "h1", True)
    assert cluster.networks.get("my-net") == made


async def test_an_endpoint_that_only_the_store_shows_blocks_the_deletion_too(
    cluster: Cluster, store: MemoryStore
) -> None:
    made = await cluster.networks.create(network(), ME)
    async with opened(store, seed=2) as other:
        await other.endpoints.create("my-net", endpoint(), ME)

        with pytest.raises(NetworkInUse):
            await cluster.networks._removal.remove(made, ME)

        await eventually(lambda: cluster.networks.get("my-net").value.state is NetworkState.ACTIVE)


async def test_a_deleted_network_leaves_nothing_behind(cluster: Cluster, store: MemoryStore) -> None:
    before = {entry.key for entry in (await store.list("")).entries}
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)

    await cluster.networks.delete("my-net", ME)

    left = {entry.key for entry in (await store.list("")).entries} - before
    assert {key for key in left if not key.startswith((keys.JOURNAL, "guards/"))} == set()
    with pytest.raises(NotFound):
        cluster.networks.get("my-net")


async def test_a_deletion_with_an_old_version_is_refused(cluster: Cluster) -> None:
    made = await cluster.networks.create(network(), ME)

    with pytest.raises(PreconditionFailed) as refusal:
        await cluster.networks.delete("my-net", ME, if_version=made.version - 1)

    assert refusal.value.context["version"] == made.version
    await cluster.networks.delete("my-net", ME, if_version=made.version)


async def test_prune_tells_what_it_would_do_and_keeps_what_is_in_use(cluster: Cluster) -> None:
    for name in ("empty", "used"):
        await cluster.networks.create(network(name), ME)
    await cluster.endpoints.create("used", endpoint(), ME)

    assert [n.value.name for n in await cluster.networks.prune(ME, dry_run=True)] == ["empty"]
    assert len(cluster.networks.list()) == 2
    assert [n.value.name for n in await cluster.networks.prune(ME)] == ["empty"]
    assert [n.value.name for n in cluster.networks.list()] == ["used"]


async def test_an_exhausted_pool_names_what_fills_it(cluster: Cluster) -> None:
    await cluster.pools.create(PoolRequest("small", "172.20.0.0/23", 24), ME)
    for name in ("a", "b"):
        await cluster.networks.create(network(name, pool="small", ipv6=False), ME)

    with pytest.raises(SubnetsExhausted):
        await cluster.networks.create(network("c", pool="small", ipv6=False), ME)

    assert cluster.pools.get("small").subnets_used == 2


async def test_another_replica_finds_what_its_mirrors_do_not_show_yet(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as one, opened(store, time, seed=2) as other:
        await add_host(store, "h1")
        made = await one.networks.create(network(), ME)

        found = await other.endpoints.create("my-net", endpoint(), ME)

        assert found.value.network == made.value.id


async def test_the_first_controller_founds_the_cluster_and_the_second_finds_it(store: MemoryStore) -> None:
    async with opened(store, seed=1) as one, opened(store, seed=2) as other:
        assert one.status().cluster == other.status().cluster
        assert [p.pool.name for p in other.pools.list()] == ["default", "default6"]


async def test_a_pool_that_the_operator_deleted_does_not_come_back(store: MemoryStore) -> None:
    async with opened(store) as cluster:
        await cluster.pools.delete("default", ME)
    async with opened(store) as cluster:
        assert [p.pool.name for p in cluster.pools.list()] == ["default6"]


async def test_a_damaged_value_does_not_blind_the_controller(cluster: Cluster, store: MemoryStore) -> None:
    await store.commit([], [Put(keys.network("bad"), b"not json")])
    await cluster.networks.create(network(), ME)

    assert [n.value.name for n in cluster.networks.list()] == ["my-net"]
    assert not (await cluster.ipam.check()).ok
    await store.commit([], [Delete(keys.network("bad"))])
    assert (await cluster.ipam.check()).ok
