"""A controller that was held up makes an endpoint again that was attached and detached meanwhile: for nobody."""

from __future__ import annotations

import asyncio

import pytest

from kvnet import keys
from tests.unit.worker.kit import Running, World, until
from tests.unit.worker.life import NET

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


async def started(world: World) -> Running:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    return h1


def is_there(world: World, endpoint: str) -> bool:
    return keys.local("h1", endpoint) in world.state.entries


async def made_late(h1: Running, endpoint: str) -> None:
    """By another controller, of a request that it got long ago."""
    await h1.controller.create_endpoint(NET, {"id": endpoint, "host": "h1", "name": "c1"})


async def test_it_is_released_again(world: World) -> None:
    h1 = await started(world)
    await h1.attach("c1", id="e1")
    await h1.detach(id="e1")
    await until(lambda: not is_there(world, "e1"))

    await made_late(h1, "e1")
    assert is_there(world, "e1")
    await until(lambda: not is_there(world, "e1"))
    assert NET not in h1.worker.view.local.items.values()


async def test_it_is_released_also_when_the_first_one_was_removed_through_the_api(world: World) -> None:
    h1 = await started(world)
    await h1.attach("c1", id="e1")
    await h1.controller.delete_endpoint(NET, "e1")
    await until(lambda: not is_there(world, "e1"))
    await until(lambda: h1.worker.attachments.get("e1") is None)

    await made_late(h1, "e1")
    await until(lambda: not is_there(world, "e1"))


async def test_it_is_released_also_by_a_worker_that_was_restarted_meanwhile(world: World) -> None:
    h1 = await started(world)
    await h1.attach("c1", id="e1")
    await h1.detach(id="e1")
    await until(lambda: not is_there(world, "e1"))
    await world.crash()
    h1 = await world.start()

    await made_late(h1, "e1")
    await until(lambda: not is_there(world, "e1"))


async def test_one_that_is_attached_with_the_same_id_stays(world: World) -> None:
    h1 = await started(world)
    for _ in range(2):
        await h1.attach("c1", id="e1")
        await asyncio.sleep(60)
        assert is_there(world, "e1")
        await h1.detach(id="e1")
    await h1.attach("c1", id="e1")
    await asyncio.sleep(60)
    assert is_there(world, "e1")


async def test_one_that_was_never_here_stays(world: World) -> None:
    h1 = await started(world)
    await made_late(h1, "e9")
    await asyncio.sleep(60)
    assert is_there(world, "e9")


async def test_what_ended_long_ago_may_be_made_again(world: World) -> None:
    h1 = await started(world)
    await h1.attach("c1", id="e1")
    await h1.detach(id="e1")
    await asyncio.sleep(1000)
    await h1.attach("c1", id="e2")
    await h1.detach(id="e2")
    await made_late(h1, "e1")
    await asyncio.sleep(60)
    assert is_there(world, "e1")
