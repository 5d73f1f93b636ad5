"""Docker's sequences from the creation of a network to its end, whole and interrupted anywhere."""

from __future__ import annotations

import asyncio

import pytest

from kvnet.errors import KernelRefused
from tests.unit.worker.docker.kit import Cluster, DockerError, Host, until
from worker.runtimes.docker import plugin

pytestmark = pytest.mark.anyio


async def test_a_network_and_a_container_come_and_go_and_leave_nothing(cluster: Cluster, h1: Host) -> None:
    assert (await h1.docker.ask("Plugin.Activate"))["Implements"] == ["NetworkDriver", "IpamDriver"]
    network = await h1.made("web", subnets=("10.90.1.0/24", "fd00:90::/64"), ipv6=True)
    (shown,) = await cluster.networks()
    container = await h1.docker.run(network)
    (endpoint,) = await cluster.endpoints("web")

    assert shown["docker"]["ipv6"]
    assert {s["cidr"]: s["gateway"] for s in shown["subnets"]} == {
        "10.90.1.0/24": "10.90.1.1",
        "fd00:90::/64": "fd00:90::1",
    }
    assert [endpoint["address"], endpoint["address6"]] == [container.address, container.address6]
    assert container.joined["Gateway"] == "10.90.1.1"
    assert container.joined["GatewayIPv6"] == "fd00:90::1"

    await h1.docker.stop(container)
    assert not await cluster.endpoints("web")
    await h1.docker.remove(network)
    assert not await cluster.leftovers()
    assert not list(h1.ledger.bindings())
    assert not list(h1.ledger.wants())


async def test_a_worker_that_is_restarted_before_every_call_changes_nothing(cluster: Cluster, h1: Host) -> None:
    h1.docker.before = h1.restart
    network = await h1.made("web", subnets=("10.90.1.0/24", "6"), ip_range="10.90.1.128/25", aux={"nas": "10.90.1.9"})
    container = await h1.docker.run(network)
    (endpoint,) = await cluster.endpoints("web")
    await h1.docker.stop(container)
    after = await cluster.endpoints("web")
    await h1.docker.remove(network)

    assert endpoint["address"] == container.address
    assert int(container.address.rpartition(".")[2]) >= 128
    assert not after
    assert not await cluster.leftovers()


async def test_every_call_may_come_twice(cluster: Cluster, h1: Host) -> None:
    calls: list[tuple[str, object]] = []
    plain = h1.caller.call

    async def twice(method: str, body: object = None, *, verb: str = "POST") -> object:
        calls.append((method, body))
        first = await plain(method, body, verb=verb)
        second = await plain(method, body, verb=verb)
        assert first == second, method
        return second

    h1.docker.caller.call = twice  # type: ignore[method-assign,assignment]
    network = await h1.made("web", subnets=("10.90.1.0/24", "fd00:90::/64"), aux={"nas": "10.90.1.9"})
    ports = [{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]
    container = await h1.docker.run(network, ports=ports)
    (endpoint,) = await cluster.endpoints("web")
    await h1.docker.stop(container)
    await h1.docker.remove(network)

    assert endpoint["ports"][0]["host_port"] == 8080
    assert len({method for method, _ in calls}) == 13
    assert not await cluster.leftovers()


TEARDOWN = (
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Leave",
    "NetworkDriver.RevokeExternalConnectivity",
    "IpamDriver.ReleasePool",
    "IpamDriver.ReleaseAddress",
)


@pytest.mark.parametrize("method", TEARDOWN)
async def test_what_was_never_there_is_torn_down_all_the_same(h1: Host, method: str) -> None:
    ids = {"NetworkID": "a" * 64, "EndpointID": "b" * 64, "PoolID": "10.99.0.0/24", "Address": "10.99.0.7"}

    reply = await h1.caller.call(method, ids)

    assert (reply.status, reply.json) == (200, {})


async def test_an_endpoint_that_nobody_knows_has_no_operational_facts(h1: Host) -> None:
    reply = await h1.caller.call("NetworkDriver.EndpointOperInfo", {"NetworkID": "a" * 64, "EndpointID": "b" * 64})

    assert reply.json == {"Value": {}}


async def test_an_endpoint_that_never_left_is_deleted(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)

    await h1.docker.ask("NetworkDriver.DeleteEndpoint", container.ids)

    assert not await cluster.endpoints("web")


async def test_an_address_whose_endpoint_was_deleted_unheard_is_given_back(cluster: Cluster, h1: Host) -> None:
    """Leave and DeleteEndpoint came while nobody listened; the last call of three found a worker again."""
    network = await h1.made("web")
    container = await h1.docker.run(network)

    await h1.docker.ask("IpamDriver.ReleaseAddress", {"PoolID": container.pool, "Address": container.address})

    assert not await cluster.endpoints("web")
    assert not h1.workloads.records()


async def test_a_container_that_could_not_join_leaves_nothing(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    h1.workloads.refuses = KernelRefused("the kernel refused: no buffer space", fix="free some memory")

    with pytest.raises(DockerError, match="no buffer space; free some memory"):
        await h1.docker.run(network)

    assert not await cluster.endpoints("web")


async def test_a_container_starts_on_a_network_whose_name_is_still_to_come(cluster: Cluster, h1: Host) -> None:
    network = await h1.docker.create()
    start = asyncio.create_task(h1.docker.run(network))
    await until(lambda: "IpamDriver.RequestAddress" in h1.docker.calls[2:])
    await h1.name_it(network, "web")

    container = await start

    assert (await cluster.endpoints("web"))[0]["address"] == container.address


async def test_docker_creates_again_what_it_was_not_told_of(cluster: Cluster, h1: Host) -> None:
    """CreateNetwork was done, the answer lost; Docker repeats it with an empty body, gives up, and rolls back."""
    asked = {"AddressSpace": "kvnet", "Pool": "10.90.1.0/24", "SubPool": "", "Options": {}, "V6": False}
    await h1.docker.ask("IpamDriver.RequestPool", asked)
    data = [{"AddressSpace": "kvnet", "Pool": "10.90.1.0/24", "Gateway": "10.90.1.1/24"}]
    made = {"NetworkID": "c" * 64, "Options": {}, "IPv4Data": data, "IPv6Data": []}
    await h1.docker.ask("NetworkDriver.CreateNetwork", made)

    empty = await h1.caller.call("NetworkDriver.CreateNetwork", b"")
    again = await h1.caller.call("NetworkDriver.CreateNetwork", made)

    assert empty.status == 400
    assert again.json == {}
    assert len(await cluster.networks()) == 1


@pytest.mark.parametrize("count", [40])
async def test_parallel_containers_and_networks_get_what_no_other_has(cluster: Cluster, count: int) -> None:
    h1, h2 = cluster.hosts["h1"], cluster.hosts["h2"]
    networks = await asyncio.gather(*(host.docker.create() for host in (h1, h2) for _ in range(count // 2)))
    shared = await h1.made("web", subnets=("10.90.0.0/24",))
    await until(lambda: h2.catalogue.of_subnet("10.90.0.0/24") is not None)
    copy = await h2.docker.create(subnets=("10.90.0.0/24",))
    runs = [host.docker.run(net) for host, net in ((h1, shared), (h2, copy)) for _ in range(count // 2)]
    containers = await asyncio.gather(*runs)

    assert len({network.pools[0][0] for network in networks}) == count
    assert len({container.address for container in containers}) == count
    assert len(await cluster.networks()) == count + 1


async def test_the_kernel_s_time_passes_while_docker_clears_the_sandbox(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)
    h1.workloads.removal_s = 0.1
    began = asyncio.get_running_loop().time()
    await h1.docker.ask("NetworkDriver.Leave", container.ids)
    left = asyncio.get_running_loop().time()
    await h1.docker.ask("NetworkDriver.DeleteEndpoint", container.ids)
    deleted = asyncio.get_running_loop().time()

    assert left - began < 0.1 <= deleted - began
    assert (await cluster.api.get("/v1/networks/web/endpoints")).json()["items"] == []


async def test_what_docker_no_longer_waits_for_is_waited_for_by_who_needs_its_place(
    cluster: Cluster, h1: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker rm -f web && docker run --ip ... -p 8080:80`, and `docker network rm` at the end."""
    monkeypatch.setattr(plugin, "TEARDOWN_S", 0.02)
    ports = [{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]
    network = await h1.made("web", subnets=("10.90.1.0/24",))
    for _ in range(3):
        container = await h1.docker.run(network, ip="10.90.1.50", mac="02:42:aa:bb:cc:dd", ports=ports)
        h1.workloads.removal_s = 0.3
        await h1.docker.stop(container)
    await h1.docker.remove(network)

    await until(lambda: not list(h1.ledger.bindings()))
    assert not await cluster.leftovers()


async def test_a_removal_that_fails_is_logged(h1: Host) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)
    h1.workloads.refuses = KernelRefused("the kernel refused")
    await h1.docker.stop(container)

    assert "docker-departure-failed" in h1.said.getvalue()
