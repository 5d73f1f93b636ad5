"""Several hosts do the same thing to Docker's networks at the same moment: it ends as one network, or as none."""

from __future__ import annotations

import asyncio

import pytest

from lab.docker_hosts import DockerFailed
from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 3}
ROUNDS = 10


async def created(site: Site, host: str, network: str, options: str = "") -> str:
    """Docker's id of it, or its words."""
    try:
        return await site.create(host, network, options)
    except DockerFailed as error:
        return error.detail


async def until_one(site: Site, network: str) -> None:
    """One network of the name is left, and every Docker shows it once, with its subnet."""

    async def is_one() -> bool:
        ours = [n async for n in site.lab.lab.client.networks()]
        wanted = [(n["name"], [s["cidr"] for s in n["subnets"]]) for n in ours if n["state"] == "active"]
        return len(ours) == 1 and all([await shown(site, host) == wanted for host in site.hosts])

    await site.until(is_one, f"there is one {network}")


async def shown(site: Site, host: str) -> list[tuple[str, list[str]]]:
    _, found = await site.hosts[host].api("GET", "/networks")
    return [(n["Name"], [c["Subnet"] for c in n["IPAM"]["Config"]]) for n in found if n["Driver"] == "kvnet"]


@pytest.mark.parametrize("hosts", [("h1", "h2"), ("h1", "h2", "h3")], ids=["two", "three"])
async def test_the_same_name_at_once_ends_as_one_network(site: Site, hosts: tuple[str, ...]) -> None:
    for round_ in range(ROUNDS):
        name = f"race{round_}"
        answers = await asyncio.gather(*(created(site, host, name) for host in hosts))
        for answer in answers:
            assert len(answer) == 64 or name in answer, answer
        assert any(len(answer) == 64 for answer in answers)

        await until_one(site, name)
        await site.docker(hosts[-1], f"network rm {name}")
        await site.until_unlisted(name)


@pytest.mark.parametrize(
    "subnets",
    [
        ("10.90.0.0/24",) * 3,
        ("10.90.0.0/24", "10.91.0.0/24", "10.92.0.0/24"),
        ("10.90.0.0/16", "10.90.1.0/24", "10.90.2.0/24"),
    ],
    ids=["same", "different", "overlapping"],
)
async def test_the_same_name_with_subnets(site: Site, subnets: tuple[str, ...]) -> None:
    for round_ in range(4):
        name = f"race{round_}"
        calls = (created(site, host, name, f"--subnet {s}") for host, s in zip(site.hosts, subnets, strict=True))
        answers = await asyncio.gather(*calls)
        assert any(len(answer) == 64 for answer in answers), answers

        await until_one(site, name)
        await site.docker("h1", f"network rm {name}")
        await site.until_unlisted(name)


async def test_many_names_at_once_never_overlap(site: Site) -> None:
    names = [f"n{number}" for number in range(12)]
    hosts = [f"h{number % 3 + 1}" for number in range(12)]
    answers = await asyncio.gather(*(created(site, h, n) for h, n in zip(hosts, names, strict=True)))
    assert all(len(answer) == 64 for answer in answers), answers

    for name in names:
        await site.until_listed(name)
    networks = [n async for n in site.lab.lab.client.networks()]
    assert len({s["cidr"] for n in networks for s in n["subnets"]}) == 12


async def test_removal_against_a_start_elsewhere(site: Site) -> None:
    """Either the start wins and the network stays everywhere, or the removal does and the start fails."""
    for round_ in range(6):
        name = f"net{round_}"
        await site.create("h1", name)
        await site.until_listed(name)

        async def start(name: str = name, delay_s: float = round_ * 0.02) -> bool:
            await asyncio.sleep(delay_s)  # what is tried is another moment each time
            try:
                await site.run("h2", f"c-{name}", name)
            except DockerFailed:
                return False
            return True

        is_started, _ = await asyncio.gather(start(), _removed(site, "h1", name))
        if is_started:
            await site.until_listed(name)
            await site.run("h1", f"d-{name}", name)
            await site.until_reaches("h1", f"d-{name}", f"c-{name}")
        else:
            await site.until_unlisted(name)
        await site.clean()


async def _removed(site: Site, host: str, name: str) -> None:
    try:
        words = await site.docker(host, f"network rm {name}")
    except DockerFailed as error:
        words = error.detail
    assert words == name or "active endpoints" in words or "not found" in words


async def test_forty_containers_at_once_on_two_hosts(site: Site) -> None:
    await site.create("h1", "crowd", "--subnet 10.93.0.0/24")
    await site.until_listed("crowd")

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(site.run(f"h{number % 2 + 1}", f"c{number}", "crowd"))

    endpoints = await site.endpoints("crowd")
    assert len({e["address"] for e in endpoints}) == 40
    await site.until_reaches("h1", "c0", "c39")
    await site.until_reaches("h2", "c39", "c0")
