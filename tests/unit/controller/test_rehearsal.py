"""A rehearsed change writes nothing, refuses what the real one would, and tells what the hosts would do."""

from __future__ import annotations

import pytest

from backends.store import Store
from controller.cluster import Cluster
from controller.requests import EndpointRequest, Features, NetworkRequest, SubnetRequest
from kvnet.errors import NameTaken, NetworkInUse, NotFound, SubnetTaken
from tests.unit.controller.kit import ME, add_host, eventually

OWN = (SubnetRequest("10.77.0.0/24"),)


async def everything(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.list("")).entries}


async def test_a_network_that_is_only_rehearsed_is_not_there_and_its_name_and_subnet_stay_free(
    cluster: Cluster, store: Store
) -> None:
    await add_host(store, "h1")
    before = await everything(store)
    for _ in range(2):
        made, told = await cluster.rehearse(lambda c: c.networks.create(NetworkRequest("n", subnets=OWN), ME))
        assert made.value.name == "n"
        assert told.hosts == ()
        assert told.first is not None
        assert {type(op).__name__ for op in told.first.operations} >= {"CreateLink", "SetFirewall"}
    assert await everything(store) == before

    real = await cluster.networks.create(NetworkRequest("n", subnets=OWN), ME)
    assert real.value.subnets == made.value.subnets


async def test_the_automatic_subnet_of_a_rehearsal_is_the_one_that_is_chosen_then(cluster: Cluster) -> None:
    told, _ = await cluster.rehearse(lambda c: c.networks.create(NetworkRequest("n"), ME))
    real = await cluster.networks.create(NetworkRequest("n"), ME)
    assert real.value.subnets == told.value.subnets


async def test_what_cannot_be_done_cannot_be_rehearsed(cluster: Cluster) -> None:
    await cluster.networks.create(NetworkRequest("n", subnets=OWN), ME)
    with pytest.raises(NameTaken):
        await cluster.rehearse(lambda c: c.networks.create(NetworkRequest("n"), ME))
    part = (SubnetRequest("10.77.0.0/25"),)
    with pytest.raises(SubnetTaken):
        await cluster.rehearse(lambda c: c.networks.create(NetworkRequest("m", subnets=part), ME))
    with pytest.raises(NotFound):
        await cluster.rehearse(lambda c: c.networks.delete("nowhere", ME))


async def test_an_endpoint_is_told_to_every_host_of_its_network(cluster: Cluster, store: Store) -> None:
    for host in ("h1", "h2", "h3"):
        await add_host(store, host)
    net = await cluster.networks.create(NetworkRequest("n", subnets=OWN), ME)
    there = await cluster.endpoints.create("n", EndpointRequest("h1", "one"), ME)
    before = await everything(store)

    made, told = await cluster.rehearse(lambda c: c.endpoints.create("n", EndpointRequest("h2", "two"), ME))
    assert [one.host for one in told.hosts] == ["h1", "h2"]
    assert await everything(store) == before

    real = await cluster.endpoints.create("n", EndpointRequest("h2", "two"), ME)
    assert real.value.addresses == made.value.addresses

    _, told = await cluster.rehearse(lambda c: c.endpoints.delete("n", there.value.id, ME))
    assert [(w.code, w.host) for w in told.warnings if w.code == "endpoints-cut"] == [("endpoints-cut", "h1")]
    with pytest.raises(NetworkInUse):
        await cluster.rehearse(lambda c: c.networks.delete(net.value.id, ME))


async def test_a_host_that_is_away_is_named(cluster: Cluster, store: Store) -> None:
    await add_host(store, "h9", alive=False)
    await cluster.networks.create(NetworkRequest("n", subnets=OWN), ME)
    await eventually(lambda: any(host.host.name == "h9" for host in cluster.hosts.list()))
    _, told = await cluster.rehearse(lambda c: c.endpoints.create("n", EndpointRequest("h9", "one"), ME))
    assert "host-down" in [warning.code for warning in told.warnings]


async def test_a_routed_network_is_rehearsed_with_its_blocks(cluster: Cluster, store: Store) -> None:
    await add_host(store, "h1")
    request = NetworkRequest("n", "routed", OWN, features=Features(block_prefix_length=28))
    await cluster.networks.create(request, ME)
    made, told = await cluster.rehearse(lambda c: c.endpoints.create("n", EndpointRequest("h1", "one"), ME))
    assert str(made.value.address) == "10.77.0.2"
    assert {type(op).__name__ for op in told.hosts[0].operations} >= {"CreateLink", "AddAddress", "ReplaceRoute"}
