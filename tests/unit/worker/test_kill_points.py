"""kill -9 of the worker at every call that it makes to the outside, and then a new one.

Whatever was acknowledged is there afterwards, and nothing is there that nobody knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from datapath.objects import Uplink
from kvnet.model import Driver, Network, Subnet
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import Running, World, a_world, until, veth
from tests.unit.worker.life import EPOCH, NET, Killed
from worker.attachments import Phase

pytestmark = pytest.mark.anyio
C1, C2 = "/run/netns/c1", "/run/netns/c2"
MOST_CALLS = 200

Action = Callable[[Running], Awaitable[object]]


async def attach_first(worker: Running) -> object:
    return await worker.attach("c1", id="e1")


async def attach_second(worker: Running) -> object:
    return await worker.attach("c2", name="c2", id="e2")


async def detach(worker: Running) -> object:
    return await worker.detach(id="e1")


async def killed_during(action: Action, worker: Running, after: int) -> bool | None:
    """Run it and die at the `after`-th call. True: it was acknowledged first; None: it ended without that many."""
    worker.life.arm(after)
    task = asyncio.ensure_future(action(worker))
    try:
        await until(lambda: task.done() or worker.life.is_dead)
        acknowledged = task.done() and not task.cancelled() and task.exception() is None
    except Killed:
        acknowledged = False
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if acknowledged and not worker.life.is_dead:
        return None
    return acknowledged


def require_no_leak(world: World, worker: Running) -> None:
    attached = {record.endpoint for record in worker.worker.attachments}
    assert all(record.phase is Phase.ATTACHED for record in worker.worker.attachments)
    assert world.endpoints() == attached, "endpoints in the store that no host knows of, or the reverse"
    inside = sum(len(interfaces) for interfaces in worker.host.tables.namespaces.values())
    assert inside == len(attached), "an interface in a workload that nobody knows of, or none where one should be"
    if worker.veths():
        assert worker.veths() == {veth(endpoint) for endpoint in attached}
    if not attached:
        assert not worker.host.tables.links, "a network without endpoints is in no kernel"
    assert set(worker.state.names("attachments")) == attached


NAMED = replace(overlay(), bridge_name="br-mine", interface_prefix="wan")
LAN = Network(
    NET,
    "my-net",
    Driver.TRANSPARENT,
    (Subnet(ip_network("192.0.3.0/24"), ip_address("192.0.3.1")),),
    EPOCH,
    uplink="lan0",
)


async def survivors(
    directory: Path, action: Action, after: int, *, prepared: bool, network: Network
) -> set[str] | None:
    """The endpoints that are left after a crash at that point and a restart; None when there is no such point."""
    async with a_world(directory, network) as world:
        world.host("h1").set_uplink(Uplink("lan0", 1500, up=True))
        first = await world.start()
        first.host.add_namespace(C1)
        first.host.add_namespace(C2)
        if prepared:
            await first.attach("c1", id="e1")
            await asyncio.sleep(5)
        acknowledged = await killed_during(action, first, after)
        if acknowledged is None:
            return None
        await world.crash()
        second = await world.start()
        await asyncio.sleep(60)
        require_no_leak(world, second)
        assert await second.plan() == []
        left = world.endpoints()
        if acknowledged and action is not detach:
            assert len(left) == (2 if prepared else 1), "an acknowledged attach is gone"
        if acknowledged and action is detach:
            assert not left
        return left


@pytest.mark.parametrize("network", [overlay(), NAMED, LAN], ids=["overlay", "with names", "transparent"])
@pytest.mark.parametrize(("action", "prepared"), [(attach_first, False), (attach_second, True), (detach, True)])
async def test_a_crash_at_any_point_loses_nothing_acknowledged_and_leaks_nothing(
    tmp_path: Path, action: Action, prepared: bool, network: Network
) -> None:
    points = 0
    for after in range(1, MOST_CALLS):
        left = await survivors(tmp_path / str(after), action, after, prepared=prepared, network=network)
        if left is None:
            break
        if prepared and action is attach_second:
            assert "e1" in left, "an older attachment was lost"
        points += 1
    assert 5 <= points < MOST_CALLS - 1


async def test_a_crash_in_the_middle_of_a_detach_does_not_bring_the_interface_back(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    world.outages.controller = True
    await h1.detach(id="e1")
    await world.crash()
    again = await world.start()
    assert not again.veths()
    world.outages.controller = False
    await until(lambda: not world.endpoints(), seconds=30)
