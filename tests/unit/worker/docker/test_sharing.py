"""One network on several hosts' Dockers: adopted by its subnet, fought for, kept while somebody uses it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.worker.docker.kit import Cluster, DockerError, Host, a_cluster, until
from worker.settings import Removal

pytestmark = pytest.mark.anyio

SUBNET = "10.90.1.0/24"


async def _known(host: Host, subnet: str = SUBNET) -> None:
    await until(lambda: host.catalogue.of_subnet(subnet) is not None)


async def test_the_subnet_of_another_host_s_network_is_that_network(cluster: Cluster, h1: Host, h2: Host) -> None:
    first = await h1.made("web", subnets=(SUBNET,), gateway="10.90.1.254")
    await _known(h2)
    second = await h2.docker.create(subnets=(SUBNET,))
    one, two = await h1.docker.run(first), await h2.docker.run(second)

    (network,) = await cluster.networks()
    assert h2.ledger.binding(second.id).network == network["id"]  # type: ignore[union-attr]
    assert one.address != two.address
    assert two.joined["Gateway"] == "10.90.1.254"


async def test_a_subnet_that_another_host_is_about_to_use_is_waited_for(cluster: Cluster, h1: Host, h2: Host) -> None:
    both = await asyncio.gather(h1.docker.create(subnets=(SUBNET,)), h2.docker.create(subnets=(SUBNET,)))

    (network,) = await cluster.networks()
    bound = [host.ledger.binding(made.id) for host, made in zip((h1, h2), both, strict=True)]
    assert [binding.network for binding in bound if binding] == [network["id"]] * 2


async def test_a_hold_that_comes_to_nothing_ends_the_wait_with_its_holder(cluster: Cluster, h1: Host, h2: Host) -> None:
    asked = {"AddressSpace": "kvnet", "Pool": SUBNET, "SubPool": "", "Options": {}, "V6": False}
    await h1.docker.ask("IpamDriver.RequestPool", asked)

    with pytest.raises(DockerError, match="h1"):
        await h2.docker.create(subnets=(SUBNET,))

    await h1.docker.ask("IpamDriver.ReleasePool", {"PoolID": SUBNET})
    await h2.docker.create(subnets=(SUBNET,))
    assert len(await cluster.networks()) == 1


@pytest.mark.parametrize("subnet", ["10.90.1.0/25", "10.90.0.0/16"])
async def test_an_overlapping_subnet_is_refused_with_the_holder_s_name(
    cluster: Cluster, h1: Host, h2: Host, subnet: str
) -> None:
    await h1.made("web", subnets=(SUBNET,))

    for host in (h1, h2):
        with pytest.raises(DockerError, match=r"overlaps.*web"):
            await host.docker.create(subnets=(subnet,))

    assert await cluster.leftovers() == ["web"]


async def test_a_second_network_of_one_subnet_on_one_docker_is_refused(cluster: Cluster, h1: Host) -> None:
    await h1.made("web", subnets=(SUBNET,))
    await _known(h1)

    with pytest.raises(DockerError, match="the network web, which this host's Docker has already"):
        await h1.docker.create(subnets=(SUBNET,))

    assert await cluster.leftovers() == ["web"]


async def test_the_follower_may_put_a_copy_beside_the_original(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    (pool, _, _) = network.pools[0]
    await _known(h1, pool)
    with h1.own.posting([pool]):
        copy = await h1.docker.create(subnets=(pool,))
    await h1.docker.remove(network)
    container = await h1.docker.run(copy)

    assert [n["name"] for n in await cluster.networks()] == ["web"]
    assert not h1.ledger.binding(copy.id).is_automatic  # type: ignore[union-attr]
    assert (await cluster.endpoints("web"))[0]["address"] == container.address


async def test_a_copy_is_posted_without_asking_the_controller(cluster: Cluster, h1: Host, h2: Host) -> None:
    await h1.made("web", subnets=(SUBNET,), aux={"nas": "10.90.1.9"}, ip_range="10.90.1.128/25")
    await _known(h2)
    h2.line.state = "cut"

    with h2.own.posting([SUBNET]):
        await h2.docker.create(subnets=(SUBNET,), aux={"nas": "10.90.1.9"}, ip_range="10.90.1.128/25")

    assert len(list(h2.ledger.bindings())) == 1


async def test_a_copy_bears_the_options_that_its_subnet_was_chosen_by(cluster: Cluster, h1: Host, h2: Host) -> None:
    options = {"prefix_length": "28"}
    network = await h1.made("web", ipam_options=options)
    (pool, _, _) = network.pools[0]
    await _known(h2, pool)

    with h2.own.posting([pool]):
        copy = await h2.docker.create(subnets=(pool,), ipam_options=options)

    assert copy.pools[0][0] == pool
    assert len(await cluster.networks()) == 1


CONTRADICTIONS = (
    ({"options": {"driver": "bridge"}}, "is overlay, not bridge"),
    ({"internal": True}, "is not internal"),
    ({"gateway": "10.90.1.77"}, "gateway of the network web in 10.90.1.0/24 is 10.90.1.1"),
    ({"aux": {"nas": "10.90.1.9"}}, "does not keep 10.90.1.9 free"),
    ({"subnets": (SUBNET, "6")}, "has the subnets 10.90.1.0/24, all or none"),
)


@pytest.mark.parametrize(("said", "words"), CONTRADICTIONS)
async def test_what_contradicts_the_network_that_is_there_is_refused(
    cluster: Cluster, h1: Host, h2: Host, said: dict[str, object], words: str
) -> None:
    await h1.made("web", subnets=(SUBNET,))
    await _known(h2)

    with pytest.raises(DockerError, match=words):
        await h2.docker.create(**{"subnets": (SUBNET,), **said})  # type: ignore[arg-type]

    assert await cluster.leftovers() == ["web"]


async def test_the_network_s_own_egress_wins(cluster: Cluster, h1: Host, h2: Host) -> None:
    await h1.made("web", subnets=(SUBNET,), options={"egress": "gwbridge"})
    await _known(h2)
    copy = await h2.docker.create(subnets=(SUBNET,))

    container = await h2.docker.run(copy)

    assert "Gateway" not in container.joined


async def test_a_network_in_use_elsewhere_stays_in_the_cluster(cluster: Cluster, h1: Host, h2: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,))
    await _known(h2)
    copy = await h2.docker.create(subnets=(SUBNET,))
    await h2.docker.run(copy)

    await h1.docker.remove(network)

    assert await cluster.leftovers() == ["web"]
    assert not list(h1.ledger.bindings())
    assert "docker-network-stays" in h1.said.getvalue()


async def test_what_the_follower_removes_stays_in_the_cluster(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,))

    with h1.own.removing(network.id):
        await h1.docker.remove(network)

    assert await cluster.leftovers() == ["web"]
    assert not list(h1.ledger.bindings())


async def test_a_network_that_only_kvnet_removes_stays_in_the_cluster(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,), options={"removal": "kvnet"})
    await _known(h1)

    await h1.docker.remove(network)

    assert await cluster.leftovers() == ["web"]


async def test_a_host_that_may_not_remove_does_not(tmp_path: Path) -> None:
    async with a_cluster(tmp_path, "h1", removal=Removal.HERE) as cluster:
        network = await cluster.hosts["h1"].made("web")
        await cluster.hosts["h1"].docker.remove(network)

        assert await cluster.leftovers() == ["web"]


async def test_a_removed_subnet_is_there_for_the_next_network_at_once(cluster: Cluster, h1: Host) -> None:
    for round in range(5):
        network = await h1.made(f"web{round}", subnets=(SUBNET,))
        await h1.docker.remove(network)

    assert not await cluster.leftovers()
