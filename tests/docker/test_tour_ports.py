"""The seventh tour: published ports, and reaching the host."""

from __future__ import annotations

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2, "outside": True}


def underlay(site: Site, host: str) -> str:
    return str(site.hosts[host].host.port.underlay)


async def test_published_ports(site: Site) -> None:
    await site.create("h1", "net")
    await site.run("h1", "web", "net", "--hostname web -p 8090:8080 -p 127.0.0.1:8091:8080 -p 9000-9001:9000-9001/udp")
    h1 = underlay(site, "h1")

    assert await site.page("h2", h1, 8090) == "web"
    assert await site.page("h1", "127.0.0.1", 8091) == "web"
    assert await site.page("h2", h1, 8091) == "", "bound to the loopback only"


async def test_containers_reach_a_service_of_their_host_by_a_stable_name(site: Site) -> None:
    await site.create("h1", "net")
    await site.until_listed("net")
    for host in ("h1", "h2"):
        await site.lab.lab.serve(host)
        await site.run(host, f"on-{host}", "net")
        for name in ("host.docker.internal", "host.kvnet"):
            said = await site.inside(host, f"on-{host}", f"nc -w 2 {name} 8080")
            assert host in said


async def test_a_taken_port_is_a_clear_refusal_and_nothing_is_left(site: Site) -> None:
    await site.create("h1", "net")
    await site.run("h1", "one", "net", "-p 8092:8080")

    refused = await site.refusal("h1", "run -d --name two --network net -p 8092:8080 busybox")

    assert "8092" in refused
    assert len(await site.endpoints("net")) == 1


async def test_ports_through_dockers_own_bridge(site: Site) -> None:
    await site.create("h1", "net", "-o egress=gwbridge")
    await site.until_listed("net")
    await site.run("h1", "web", "net", "--hostname web -p 8093:8080")
    await site.run("h2", "client", "net")

    assert "8093->8080" in await site.docker("h1", "ps")
    assert await site.page("h2", underlay(site, "h1"), 8093) == "web"
    await site.until_reaches("h2", "client", "web")
    assert await site.gets_out("h2", "client")


async def test_published_without_a_number_and_all_exposed(site: Site) -> None:
    await site.create("h1", "net")
    await site.run("h1", "web", "net", "--hostname web --expose 8080 -P")

    (endpoint,) = await site.endpoints("net")
    (port,) = endpoint["ports"]
    assert port["port"] == 8080
    assert await site.page("h2", underlay(site, "h1"), int(port["host_port"])) == "web"


async def test_addresses_of_containers_are_not_reached_from_other_machines(site: Site) -> None:
    await site.create("h1", "net")
    await site.run("h1", "web", "net")
    address = await site.address("h1", "web", "net")
    assert not (await site.lab.lab.ping_from("outside", address, timeout_s=0.5)).ok
