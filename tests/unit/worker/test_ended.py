"""A controller that was held up makes an endpoint again that was attached and detached meanwhile: for nobody."""

from __future__ import annotations

import asyncio
import copy
import io
import random

import pytest

from backends.store import Entry
from kvnet import keys
from tests.simulation.disk import Disk, SimulatedDir
from tests.unit.worker.kit import Running, World, until
from tests.unit.worker.life import NET
from worker.ended import Ended
from worker.log import Log
from worker.ports import Time

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


async def test_what_ended_is_synced_a_moment_later_and_what_ends_together_at_once(world: World) -> None:
    h1 = await started(world)
    synced, sync = list[str](), h1.state.sync
    h1.state.sync = lambda name: (synced.append(name), sync(name))  # type: ignore[method-assign, assignment]
    for endpoint in ("e1", "e2", "e3"):
        h1.host.add_namespace(f"/run/netns/{endpoint}")
        await h1.attach(endpoint, id=endpoint)
    synced.clear()
    await asyncio.gather(*(h1.detach(id=endpoint) for endpoint in ("e1", "e2", "e3")))

    await asyncio.sleep(5)
    assert synced.count("ended.json") == 1


def known(disk: Disk, entries: dict[str, Entry], uptime_s: float) -> Ended:
    time = Time(monotonic=lambda: uptime_s)
    return Ended(SimulatedDir(disk), "h1", entries, time, Log(io.StringIO(), now=lambda: 0.0))


async def test_what_was_settled_is_known_after_any_power_failure_and_boot() -> None:
    disk, entries = Disk(), dict[str, Entry]()
    known(disk, entries, 5_000.0).add("e1", 7)
    settled = known(disk, entries, 5_001.0)
    settled.add("e2", 8)
    await settled.settle()
    entries |= {keys.local("h1", name): Entry(keys.local("h1", name), b"", 9) for name in ("e1", "e2", "e3")}

    for seed in range(20):
        found = copy.deepcopy(disk)
        found.lose_power(random.Random(seed))
        assert sorted(known(found, entries, 30.0).there_again()) == ["e1", "e2"]
        assert known(found, entries, 1_000.0).there_again() == [], "so long after a boot it may be made again"


async def test_what_is_surely_from_before_a_boot_is_forgotten_first() -> None:
    disk, entries = Disk(), dict[str, Entry]()
    known(disk, entries, 40.0).add("early", 1)
    known(disk, entries, 500.0).add("late", 2)
    booted = known(disk, entries, 60.0)
    for number in range(499):
        booted.add(f"e{number}", 3)
    entries |= {keys.local("h1", name): Entry(keys.local("h1", name), b"", 9) for name in ("early", "late", "e0")}

    assert known(disk, entries, 60.0).there_again() == ["early", "e0"]
