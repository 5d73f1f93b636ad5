"""The controller is away or does not answer: Docker's users hear it soon and plainly, and nothing is half made."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2}
PLAIN_S = 10.0


@asynccontextmanager
async def away(site: Site, how: str) -> AsyncIterator[None]:
    lab = site.lab.lab
    controller = lab.controller
    assert controller is not None
    if how == "gone":
        await controller.kill()
    else:
        controller.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "gone":
            await lab.start_controller()
        else:
            controller.signal(signal.SIGCONT)
    for host in site.hosts:
        await lab.until_ready(host)


@pytest.mark.parametrize("how", ["gone", "frozen"])
async def test_refusals_are_plain_and_soon_and_everything_works_again(site: Site, how: str) -> None:
    await site.create("h1", "net")
    await site.until_listed("net")
    await site.run("h1", "ann", "net")
    await site.run("h2", "bob", "net")
    b = await site.address("h2", "bob", "net")
    async with away(site, how):
        refusals = asyncio.gather(
            site.refusal("h1", "network create -d kvnet --ipam-driver kvnet other", PLAIN_S),
            site.refusal("h1", "run -d --name cat --network net busybox", PLAIN_S),
            site.refusal("h2", "run -d --name dan --network net --ip 10.99.0.1 busybox", PLAIN_S),
        )
        for refused in await refusals:
            assert "nothing within" not in refused
            assert "controller" in refused or "10.99.0.1" in refused or "user configured subnets" in refused, refused
        assert await site.reaches("h1", "ann", b), "what runs goes on"
        await site.docker("h1", "rm -f cat", PLAIN_S)
        await site.docker("h2", "rm -f bob", PLAIN_S)

    async def is_released() -> bool:
        return len(await site.endpoints("net")) == 1

    await site.until(is_released, "what was removed meanwhile is released", seconds=30)
    await site.create("h1", "other")
    await site.until_listed("other")
    await site.run("h1", "cat", "net")
    await site.until_reaches("h1", "ann", "cat")


async def test_a_network_that_is_removed_while_the_controller_is_away(site: Site) -> None:
    await site.create("h1", "net")
    await site.until_listed("net")
    async with away(site, "gone"):
        await site.docker("h1", "network rm net", PLAIN_S)
    await site.until_unlisted("net", seconds=45.0)  # so young a network might be on its way into Docker


async def test_a_network_that_was_removed_by_force_from_docker_can_be_made_again(site: Site) -> None:
    for _ in range(3):
        await site.create("h1", "net", "--subnet 10.95.0.0/24")
        await site.until_listed("net")
        await site.docker("h2", "network rm net")
        await site.until_unlisted("net")
