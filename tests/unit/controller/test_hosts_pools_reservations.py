"""Hosts, pools and reservations."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from controller.requests import PoolRequest, ReservationRequest, SubnetRequest
from kvnet import codec, keys
from kvnet.errors import (
    AddressTaken,
    Conflicting,
    HostInUse,
    NameTaken,
    NotFound,
    PoolInUse,
    PreconditionFailed,
    SubnetTaken,
)
from kvnet.model import Host, Inventory, NetworkObserved, Observed
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network

pytestmark = pytest.mark.anyio


async def leave(cluster: Cluster, store: MemoryStore, host: str) -> None:
    await store.commit([], [Delete(keys.alive(host))])
    await eventually(lambda: not cluster.hosts.get(host).alive)


async def test_a_host_shows_what_it_carries_and_how_far_behind_it_is(cluster: Cluster, store: MemoryStore) -> None:
    made = await cluster.networks.create(network(), ME)
    one = await cluster.endpoints.create("my-net", endpoint(), ME)
    seen = Observed("h1", 5.0, {made.value.id: NetworkObserved(one.version - 1)})
    await store.commit(
        [], [Put(keys.observed("h1"), codec.encode(seen)), Put(keys.inventory("h1"), codec.encode(Inventory("h1")))]
    )
    await eventually(lambda: cluster.hosts.get("h1").inventory is not None)

    status = cluster.hosts.get("h1")

    assert (status.alive, status.endpoints, status.networks) == (True, 1, ("my-net",))
    assert status.lag == {made.value.id: 1}
    assert cluster.hosts.list() == (status,)


async def test_a_host_that_went_was_last_seen_when_it_went(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await eventually(lambda: cluster.status().hosts_alive == 1)
    await leave(cluster, store, "h1")
    went = time.now()
    time.pass_by(100.0)

    assert cluster.hosts.get("h1").last_seen == went


async def test_a_controller_that_was_not_there_when_a_host_went_knows_it_from_its_last_report(
    cluster: Cluster, store: MemoryStore
) -> None:
    # The mark on the host (`reclaims/`) comes later; until then its report is all that there is.
    late = codec.encode(Host("late", ip_address("192.0.2.77"), 1500))
    report = codec.encode(Observed("late", 42.0))
    await store.commit([], [Put(keys.host("late"), late), Put(keys.observed("late"), report)])
    await eventually(lambda: "late" in {one.host.name for one in cluster.hosts.list()})
    await eventually(lambda: cluster.hosts.get("late").observed is not None)

    told = cluster.hosts.get("late")

    assert (told.alive, told.last_seen) == (False, 42.0)
    assert cluster.statuses.look().host(told)[0].detail == "its worker gives no sign of life"


async def test_a_living_host_is_not_removed(cluster: Cluster) -> None:
    with pytest.raises(HostInUse, match="alive"):
        await cluster.hosts.delete("h1", ME, force=True)


async def test_a_dead_host_with_endpoints_is_removed_only_by_force(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await leave(cluster, store, "h1")

    with pytest.raises(HostInUse, match="c1"):
        await cluster.hosts.delete("h1", ME)
    assert cluster.hosts.get("h1").endpoints == 1
    await cluster.hosts.delete("h1", ME, force=True)

    with pytest.raises(NotFound):
        cluster.hosts.get("h1")
    assert cluster.endpoints.list() == ()
    assert (await cluster.ipam.check()).findings == ()


async def test_a_host_that_registers_again_is_active_again(cluster: Cluster, store: MemoryStore) -> None:
    await leave(cluster, store, "h1")
    await cluster.hosts.delete("h1", ME)
    await add_host(store, "h1")

    await cluster.networks.create(network(), ME)
    assert await cluster.endpoints.create("my-net", endpoint(), ME)


async def test_pools_do_not_overlap(cluster: Cluster) -> None:
    await cluster.pools.create(PoolRequest("mine", "172.20.0.0/16", 24, ("172.20.0.0/24",)), ME)

    with pytest.raises(SubnetTaken, match="mine"):
        await cluster.pools.create(PoolRequest("other", "172.20.128.0/17", 24), ME)
    with pytest.raises(NameTaken):
        await cluster.pools.create(PoolRequest("mine", "172.30.0.0/16", 24), ME)


async def test_the_same_pool_again_is_the_same_pool(cluster: Cluster) -> None:
    wanted = PoolRequest("mine", "172.20.0.0/16", 24)

    assert await cluster.pools.create(wanted, ME) == await cluster.pools.create(wanted, ME)


async def test_a_pool_is_deleted_when_nothing_is_cut_from_it(cluster: Cluster) -> None:
    made = await cluster.pools.create(PoolRequest("mine", "172.20.0.0/16", 24, ("172.20.0.0/24",)), ME)
    net = await cluster.networks.create(network(pool="mine"), ME)
    assert net.value.subnets[0].cidr == ip_network("172.20.1.0/24")

    with pytest.raises(PoolInUse, match=r"172\.20\.1\.0/24"):
        await cluster.pools.delete("mine", ME)
    await cluster.networks.delete("my-net", ME)
    with pytest.raises(PreconditionFailed):
        await cluster.pools.delete("mine", ME, if_version=made.version + 1)
    await cluster.pools.delete("mine", ME, if_version=made.version)

    with pytest.raises(NotFound):
        cluster.pools.get("mine")


async def test_a_reserved_address_is_never_handed_out(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.1.0.0/29"), ME)
    held = await cluster.reservations.create("my-net", ReservationRequest("printer", "10.1.0.3"), ME)

    made = await cluster.endpoints.create_many("my-net", [endpoint(f"c{i}") for i in range(4)], ME)

    addresses = {str(e.value.address) for e in made if not isinstance(e, Exception)}
    assert addresses == {"10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"}
    assert cluster.reservations.list("my-net") == (held,)
    with pytest.raises(AddressTaken, match="printer"):
        await cluster.endpoints.create("my-net", endpoint(address="10.1.0.3"), ME)


async def test_names_of_reservations_are_unique_in_their_network(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    first = await cluster.reservations.create("my-net", ReservationRequest("printer"), ME)

    assert await cluster.reservations.create("my-net", ReservationRequest("printer"), ME) == first
    with pytest.raises(NameTaken):
        await cluster.reservations.create("my-net", ReservationRequest("printer", "10.1.0.99"), ME)


async def test_a_released_reservation_can_be_used(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    await cluster.reservations.create("my-net", ReservationRequest("printer", "10.1.0.9"), ME)

    await cluster.reservations.delete("my-net", "10.1.0.9", ME)

    assert cluster.reservations.list("my-net") == ()
    assert await cluster.endpoints.create("my-net", endpoint(address="10.1.0.9"), ME)
    with pytest.raises(NotFound):
        await cluster.reservations.delete("my-net", "printer", ME)


async def test_reservations_of_the_specification_are_shown_and_stay(cluster: Cluster) -> None:
    spec = SubnetRequest("10.1.0.0/24", reserved={"router": "10.1.0.254"})
    await cluster.networks.create(network("my-net").__class__("my-net", subnets=(spec,)), ME)

    (shown,) = cluster.reservations.list("my-net")

    assert (shown.name, str(shown.address), shown.fixed) == ("router", "10.1.0.254", True)
    with pytest.raises(Conflicting, match="specification"):
        await cluster.reservations.delete("my-net", "router", ME)


async def test_who_has_an_address_is_told_whatever_it_is(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)

    def kind_of(text: str) -> str:
        (holder,) = cluster.ipam.address(ip_address(text))
        return holder.kind

    assert [kind_of(f"10.1.0.{i}") for i in (0, 1, 2, 3, 255)] == [
        "network",
        "gateway",
        "endpoint",
        "free",
        "broadcast",
    ]
    (holder,) = cluster.ipam.address(ip_address("10.1.0.2"))
    assert holder.endpoint == made
    assert cluster.ipam.address(ip_address("8.8.8.8")) == []
    assert [h.kind for h in cluster.ipam.subnet(ip_network("10.0.0.0/8"))] == ["pool", "network"]
