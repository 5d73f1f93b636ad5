"""Many hosts in one network: each has exactly its entries, and one more endpoint is a few messages for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from lab import namespaces
from lab.crowd import Member, open_crowd, operations_meanwhile, until_applied
from lab.exact import missing_and_extra
from lab.lab import Lab, open_lab, until
from tests.lab.eye import look

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

HOSTS = 20
EACH = 5
NETWORK = "many"
SUBNET = "10.77.0.0/16"
BUILT_S = 60.0
DELETED = 500
DELETED_S = 60.0  # the figure is the bench's; here it only has to end, on whatever machine
# A tunnel entry, a forwarding entry, a neighbour for each of two families.
MESSAGES = 4


@pytest.fixture
async def lab(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=request.param) as made:
        await made.start_controller()
        await made.client.create_network({"name": NETWORK, "driver": "overlay", "subnets": [{"cidr": SUBNET}]})
        yield made
        for netns in namespaces.FOLDER.glob("many-*"):
            namespaces.destroy(netns)


async def attach(member: Member, *numbers: int) -> None:
    names = [f"many-{member.host.name}-{number}" for number in numbers]
    for name in names:
        namespaces.create(name)
    asked = (member.ask("attach", network=NETWORK, netns=str(namespaces.FOLDER / n), name=n) for n in names)
    await asyncio.gather(*asked)


async def require_exact(lab: Lab, crowd: Mapping[str, Member]) -> None:
    endpoints = [endpoint async for endpoint in lab.client.endpoints(network=NETWORK)]
    await until_applied(crowd, endpoints[0]["network"], max(e["version"] for e in endpoints), BUILT_S)
    for member in crowd.values():
        assert await missing_and_extra(endpoints, lab.hosts, member.host) == (set(), set()), member.host.name


@pytest.mark.parametrize("lab", [HOSTS], indirect=True)
async def test_every_host_has_exactly_its_entries_and_one_more_endpoint_is_a_few_messages(lab: Lab) -> None:
    async with open_crowd(lab) as crowd:
        await asyncio.gather(*(attach(member, *range(EACH)) for member in crowd.values()))
        await require_exact(lab, crowd)

        first = crowd["h1"]
        done = await operations_meanwhile(crowd, attach(first, EACH))

        await require_exact(lab, crowd)
        there = {name: kinds for name, kinds in done.items() if name != first.host.name}
        assert all(sum(kinds.values()) <= MESSAGES for kinds in there.values()), there


@pytest.mark.parametrize("lab", [1], indirect=True)
async def test_five_hundred_endpoints_of_a_host_go_together(lab: Lab) -> None:
    async with open_crowd(lab) as crowd:
        for start in range(0, DELETED, 50):
            await attach(crowd["h1"], *range(start, start + 50))
        ids = [endpoint["id"] async for endpoint in lab.client.endpoints(network=NETWORK)]
        netns = lab.hosts["h1"].netns
        assert sum(name.startswith("kve") for name in look(netns).links) == DELETED
        counted = crowd["h1"].kernel.counted
        applies = counted.applies

        await asyncio.gather(*(lab.client.delete_endpoint(NETWORK, id_) for id_ in ids))

        async def are_gone() -> bool:
            await asyncio.sleep(0.2)  # a dump by another's hand takes its time
            return not look(netns).links

        await until(are_gone, "no interface is left, nor the network's own", seconds=DELETED_S)
        assert counted.applies - applies < DELETED / 2, "they are deleted many to a pass"
