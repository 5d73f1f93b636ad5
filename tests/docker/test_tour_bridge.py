"""The second tour: Docker's default bridge and user-defined bridges on one host, with kvnet's bridge beside them."""

from __future__ import annotations

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 1, "outside": True}


async def test_the_default_bridge_is_as_it_always_was(site: Site) -> None:
    names = (await site.docker("h1", 'network ls --format "{{.Name}}"')).split()
    assert {"bridge", "host", "none"} <= set(names)
    for name in ("alpine1", "alpine2"):
        await site.run("h1", name, "bridge")
    assert (await site.docker("h1", 'network inspect -f "{{len .Containers}}" bridge')) == "2"

    assert await site.reaches("h1", "alpine1", await site.address("h1", "alpine2", "bridge"))
    assert not await site.reaches("h1", "alpine1", "alpine2"), "no names on the default bridge, as in Docker"
    assert await site.gets_out("h1", "alpine1")
    assert "pre-defined" in await site.refusal("h1", "network rm bridge")


async def test_a_bridge_of_the_users(site: Site) -> None:
    await site.create("h1", "alpine-net", "-o driver=bridge")
    for name in ("alpine1", "alpine2"):
        await site.run("h1", name, "alpine-net")
    await site.run("h1", "alpine3", "bridge")
    await site.run("h1", "alpine4", "alpine-net")
    await site.docker("h1", "network connect bridge alpine4")

    assert (await site.network("alpine-net"))["driver"] == "bridge"
    assert (await site.docker("h1", 'network inspect -f "{{len .Containers}}" alpine-net')) == "3"
    assert await site.reaches("h1", "alpine1", "alpine2"), "by name"
    assert await site.reaches("h1", "alpine1", "alpine4")
    assert not await site.reaches("h1", "alpine1", "alpine3"), "another network"
    assert not await site.reaches("h1", "alpine1", await site.address("h1", "alpine3", "bridge"))
    assert await site.reaches("h1", "alpine4", await site.address("h1", "alpine3", "bridge")), "it is on both"
    for name in ("alpine1", "alpine2", "alpine3", "alpine4"):
        assert await site.gets_out("h1", name), name


async def test_who_reaches_a_container_on_a_bridge_of_dockers_own_driver_is_for_docker_to_say(site: Site) -> None:
    """And it reaches ours by their published ports, and gets the answers."""
    await site.create("h1", "alpine-net", "-o driver=bridge")
    await site.run("h1", "ours", "alpine-net", "--hostname ours -p 8101:8080")
    assert await site.gets_out("h1", "ours")
    await site.docker("h1", "network create theirs")  # while ours runs
    await site.run("h1", "other", "theirs", "--hostname other -p 8102:8080")
    address, host = await site.address("h1", "other", "theirs"), site.hosts["h1"].host.port.underlay

    assert not await site.reaches("h1", "ours", address)
    assert not await site.reaches("h1", "other", await site.address("h1", "ours", "alpine-net"))
    assert await site.greeting("h1", "other", str(host), 8101) == "ours"
    assert await site.greeting("h1", "ours", str(host), 8102) == "other", "published by Docker"
    assert await site.gets_out("h1", "ours")
    assert await site.gets_out("h1", "other")

    await site.docker("h1", "network connect theirs ours")
    assert await site.reaches("h1", "ours", address), "it is on both"


async def test_a_running_container_is_connected_to_networks_and_disconnected(site: Site) -> None:
    for network in ("front", "back", "side"):
        await site.create("h1", network, "-o driver=bridge")
    await site.run("h1", "web", "front")
    await site.run("h1", "db", "back")
    await site.run("h1", "log", "side")
    assert not await site.reaches("h1", "web", "db")
    assert not await site.reaches("h1", "web", await site.address("h1", "db", "back"))

    await site.docker("h1", "network connect --alias www back web")
    await site.docker("h1", "network connect side web")

    interfaces = await site.inside("h1", "web", "ls /sys/class/net")
    assert interfaces.split() == ["eth0", "eth1", "eth2", "lo"]
    assert await site.reaches("h1", "web", "db")
    assert await site.reaches("h1", "web", "log")
    assert await site.reaches("h1", "db", "www")
    assert await site.gets_out("h1", "web")

    await site.docker("h1", "network disconnect front web")  # the first one: names and the way out go on
    assert await site.reaches("h1", "web", "db")
    assert await site.gets_out("h1", "web")
    await site.docker("h1", "network disconnect back web")
    assert not await site.reaches("h1", "web", "db")
    assert len(await site.endpoints("back")) == 1
    await site.docker("h1", "network connect front web")
    assert len(await site.endpoints("front")) == 1


async def test_many_connects_and_disconnects_leave_one_address_each(site: Site) -> None:
    await site.create("h1", "busy", "-o driver=bridge")
    await site.run("h1", "web", "none")
    await site.docker("h1", "network disconnect none web")
    for _ in range(5):
        await site.docker("h1", "network connect busy web")
        assert len(await site.endpoints("busy")) == 1
        await site.docker("h1", "network disconnect busy web")
    assert await site.endpoints("busy") == []
