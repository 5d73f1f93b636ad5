"""The first tour: an overlay between standalone containers on two hosts, as Docker's own with a store was used."""

from __future__ import annotations

import pytest

from lab.docker_hosts import DockerFailed
from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.mark.parametrize(("one", "two"), [("h1", "h2"), ("h2", "h1")])
async def test_an_overlay_between_standalone_containers(site: Site, one: str, two: str) -> None:
    await site.create(one, "my-net", "--attachable")
    await site.run(one, "alpine1", "my-net")

    # The other host lists it at once; in its kernel there is nothing of it yet.
    await site.until_listed("my-net", two)
    assert site.kernel(two) == set()

    await site.run(two, "alpine2", "my-net")
    assert site.kernel(two) != set()
    network = await site.network("my-net")
    assert network["driver"] == "overlay"
    assert sorted(network["hosts"]) == ["h1", "h2"]
    for host in (one, two):
        assert await site.docker(host, 'network inspect -f "{{(index .IPAM.Config 0).Subnet}}" my-net') == str(
            network["subnets"][0]["cidr"]
        )

    await site.until_reaches(one, "alpine1", "alpine2")
    await site.until_reaches(two, "alpine2", "alpine1")

    await site.run(two, "alpine3", "my-net", "--rm")
    await site.until_reaches(one, "alpine1", "alpine3")
    assert len(await site.endpoints("my-net")) == 3
    await site.docker(two, "stop alpine3")
    await site.until_named(one, "alpine1", "alpine3", [])
    assert len(await site.endpoints("my-net")) == 2

    await site.docker(two, "stop alpine2")
    await site.docker(two, "rm alpine2")
    await site.until_kernel_empty(two)
    await site.docker(one, "stop alpine1")
    await site.docker(one, "rm alpine1")
    await site.docker(two, "network rm my-net")
    await site.until_unlisted("my-net")
    await site.until_kernel_empty()


async def test_a_network_that_was_made_through_the_api_is_there_for_docker(site: Site) -> None:
    await site.lab.lab.client.create_network({"name": "from-api", "subnets": [{"cidr": "10.60.0.0/24"}]})
    await site.until_listed("from-api")

    await site.run("h1", "ann", "from-api", "--ip 10.60.0.77")
    await site.run("h2", "bob", "from-api")

    await site.until_reaches("h2", "bob", "10.60.0.77")
    await site.docker("h1", "rm -f ann")
    await site.docker("h2", "rm -f bob")
    await site.lab.lab.client.delete_network("from-api")
    await site.until_unlisted("from-api")


async def test_a_container_of_docker_and_one_without_it_share_a_network(site: Site) -> None:
    await site.create("h1", "mixed")
    await site.run("h1", "inside-docker", "mixed")
    plain = await site.lab.lab.add_workload("plain", "h2", serve=True)
    await site.lab.lab.attach("mixed", plain.name)
    try:
        await site.until_reaches("h1", "inside-docker", site.lab.lab.address_of("plain", "mixed"))
        await site.until_reaches("h1", "inside-docker", "plain")
        address = await site.address("h1", "inside-docker", "mixed")
        assert (await site.lab.lab.ping("plain", address)).ok
    finally:
        await site.lab.lab.detach("mixed", "plain")
        await site.lab.lab.remove_workload("plain")


async def test_fixed_addresses_work_on_every_host_also_on_a_subnet_that_was_chosen(site: Site) -> None:
    await site.create("h1", "chosen")
    await site.until_listed("chosen")
    subnet = str((await site.network("chosen"))["subnets"][0]["cidr"])
    prefix = subnet.rsplit(".", 1)[0]

    async def is_taken(host: str, number: int) -> bool:
        try:
            await site.run(host, f"c{number}", "chosen", f"--ip {prefix}.{number}")
        except DockerFailed:
            await site.docker(host, f"rm -f c{number}")
            return False
        return True

    await site.until(lambda: is_taken("h1", 50), "a fixed address on the host where the network was made")
    assert await is_taken("h2", 60)
    assert await site.address("h2", "c60", "chosen") == f"{prefix}.60"
    await site.until_reaches("h1", "c50", f"{prefix}.60")
    refused = await site.refusal("h2", f"run -d --name again --network chosen --ip {prefix}.50 busybox")
    assert f"{prefix}.50" in refused
