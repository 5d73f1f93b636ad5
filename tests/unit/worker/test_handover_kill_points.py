"""kill -9 of the worker at every call that it makes to the outside while a runtime asks something; then a new one.

The runtime is told, or not; running workloads keep what they have; and nothing is there that nobody knows of.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from datapath.names import handed_name
from datapath.objects import Uplink
from kvnet.model import Network
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import Running, World, a_world
from tests.unit.worker.life import NET
from tests.unit.worker.test_kill_points import LAN, MOST_CALLS, Action, killed_during
from worker.attachments import Phase

pytestmark = pytest.mark.anyio
C1 = "/run/docker/netns/c1"
DNS = "169.254.53.53/32"


def endpoint(worker: Running) -> str:
    (record,) = worker.workloads.records()
    return record.endpoint


async def claim(worker: Running) -> object:
    return await worker.workloads.claim(NET, {"name": "c1"}, runtime="docker")


async def call_it(worker: Running) -> object:
    return await worker.workloads.call_it(endpoint(worker), "f" * 64)


async def hand_over(worker: Running) -> object:
    return await worker.workloads.hand_over(endpoint(worker), C1, [DNS])


async def settle(worker: Running) -> object:
    """By Docker, and then by us."""
    if worker.host.waiting():
        worker.host.move(handed_name(endpoint(worker)), C1, "eth0")
    return await worker.workloads.settle(endpoint(worker))


async def add_route(worker: Running) -> object:
    return await worker.workloads.add_route(endpoint(worker), "192.0.2.0/24")


async def change(worker: Running) -> object:
    return await worker.workloads.change(endpoint(worker), {"ports": [{"port": 80, "host_port": 8080}]})


async def take_back(worker: Running) -> object:
    return await worker.workloads.take_back(endpoint(worker))


async def release(worker: Running) -> object:
    return await worker.workloads.release(endpoint(worker))


# What a runtime asks in its order, and the phase that an acknowledged one leaves.
LIFE: tuple[tuple[Action, Phase | None], ...] = (
    (claim, Phase.CLAIMED),
    (call_it, Phase.CLAIMED),
    (hand_over, Phase.ATTACHED),
    (settle, Phase.ATTACHED),
    (add_route, Phase.ATTACHED),
    (change, Phase.ATTACHED),
    (take_back, Phase.CLAIMED),
    (release, None),
)


def require_no_leak(world: World, worker: Running) -> None:
    records = worker.workloads.records()
    assert all(record.phase in (Phase.CLAIMED, Phase.ATTACHED) for record in records)
    assert world.endpoints() == {record.endpoint for record in records}
    assert set(worker.state.names("attachments")) == {record.endpoint for record in records}
    having = [record for record in records if record.phase is Phase.ATTACHED]
    inside = sum(len(interfaces) for interfaces in worker.host.tables.namespaces.values())
    assert inside == len(having), "an interface that nobody knows of, or none where one should be"
    for record in records:
        assert bool(record.interface) is (record.phase is Phase.ATTACHED)
    if not records:
        assert not worker.host.tables.links


async def live_and_die(directory: Path, step: int, after: int, network: Network, *, moves_back: bool) -> bool:
    """False when the step ends before that many calls."""
    async with a_world(directory, network) as world:
        world.host("h1").set_uplink(Uplink("lan0", 1500, up=True))
        first = await world.start()
        first.host.add_namespace(C1)
        for action, _ in LIFE[:step]:
            await action(first)
            await asyncio.sleep(2)
        action, phase = LIFE[step]
        acknowledged = await killed_during(action, first, after)
        if acknowledged is None:
            return False
        await world.crash()
        if moves_back:  # as Docker does, told or not
            first.host.move_back(C1, "eth0", handed_name(endpoint(first)))
        second = await world.start()
        await asyncio.sleep(60)
        if not moves_back:
            require_no_leak(world, second)
            assert await second.plan() == []
        if acknowledged:
            assert [record.phase for record in second.workloads.records()] == ([phase] if phase else [])
        for record in second.workloads.records():
            assert await second.workloads.release(record.endpoint)
        await asyncio.sleep(5)
        require_no_leak(world, second)
        return True


@pytest.mark.parametrize("network", [overlay(), LAN], ids=["overlay", "transparent"])
@pytest.mark.parametrize("step", range(len(LIFE)), ids=[action.__name__ for action, _ in LIFE])  # type: ignore[attr-defined]
async def test_a_crash_at_any_point_loses_nothing_acknowledged_and_leaks_nothing(
    tmp_path: Path, step: int, network: Network
) -> None:
    points = 0
    for after in range(1, MOST_CALLS):
        if not await live_and_die(tmp_path / str(after), step, after, network, moves_back=False):
            break
        points += 1
    assert 1 <= points < MOST_CALLS - 1


@pytest.mark.parametrize("network", [overlay(), LAN], ids=["overlay", "transparent"])
async def test_what_docker_moves_back_while_the_worker_is_dead_goes_with_the_endpoint(
    tmp_path: Path, network: Network
) -> None:
    step = next(number for number, (action, _) in enumerate(LIFE) if action is take_back)
    for after in range(1, MOST_CALLS):
        if not await live_and_die(tmp_path / str(after), step, after, network, moves_back=True):
            break
    assert after > 3
