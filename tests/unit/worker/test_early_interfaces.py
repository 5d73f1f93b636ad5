"""What a claim costs its runtime: one request and no wait for a disk; the interface is ready when it is asked for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from datapath.names import handed_name
from datapath.objects import CreateLink, DeleteLink, Failure, Operation, Veth
from kvnet.errors import KernelRefused
from tests.unit.worker.kit import Running, World, until, veth
from tests.unit.worker.life import NET
from worker.attachments import CONTAINER, Attachments, Phase, Record
from worker.disk import PAGE, StateDir

pytestmark = pytest.mark.anyio
C1, C2 = "/run/docker/netns/c1", "/run/docker/netns/c2"


async def claimed(worker: Running, name: str) -> Record:
    return await worker.workloads.claim(NET, {"name": name}, runtime="docker")


@pytest.fixture
async def h1(world: World) -> Running:
    """With an endpoint, so that it knows the network."""
    made = await world.start()
    made.host.add_namespace(C1)
    made.host.add_namespace(C2)
    first = await claimed(made, "first")
    await made.workloads.hand_over(first.endpoint, C1)
    made.host.move(handed_name(first.endpoint), C1, "eth0")
    await made.workloads.settle(first.endpoint)
    return made


async def test_the_interface_waits_before_its_runtime_asks_for_it(h1: Running) -> None:
    record = await claimed(h1, "c2")
    await until(lambda: h1.host.waiting() == {handed_name(record.endpoint)}, seconds=1.0)
    await asyncio.sleep(5)
    applied = len(h1.kernel.applied)

    record = await h1.workloads.hand_over(record.endpoint, C2)

    assert (record.phase, record.netns) == (Phase.ATTACHED, C2)
    assert len(h1.kernel.applied) == applied
    h1.host.move(record.interface, C2, "eth0")
    await h1.workloads.settle(record.endpoint)
    assert await h1.plan() == []


async def test_what_could_not_be_made_early_is_tried_again_when_it_is_asked_for(h1: Running) -> None:
    def is_veth(operation: Operation) -> bool:
        return isinstance(operation, CreateLink) and isinstance(operation.link, Veth)

    h1.kernel.refuses = is_veth
    record = await claimed(h1, "c2")
    await asyncio.sleep(0.1)
    with pytest.raises(KernelRefused):
        await h1.workloads.hand_over(record.endpoint, C2)
    h1.kernel.refuses = lambda _: False

    await h1.workloads.hand_over(record.endpoint, C2)

    assert h1.host.waiting() == {handed_name(record.endpoint)}


async def test_a_claim_that_is_given_up_leaves_no_interface(world: World, h1: Running) -> None:
    record = await claimed(h1, "c2")
    await until(lambda: bool(h1.host.waiting()), seconds=1.0)
    assert await h1.workloads.release(record.endpoint)
    assert record.endpoint not in world.endpoints()
    await until(lambda: not h1.host.waiting(), seconds=1.0)
    assert veth(record.endpoint) not in h1.veths()


async def test_a_claim_that_outlives_its_worker_has_its_interface_made_anew(world: World, h1: Running) -> None:
    record = await claimed(h1, "c2")
    await until(lambda: bool(h1.host.waiting()), seconds=1.0)
    await world.crash()
    second = await world.start()
    await until(lambda: not second.host.waiting(), seconds=5.0)

    await second.workloads.hand_over(record.endpoint, C2)

    assert second.host.waiting() == {handed_name(record.endpoint)}


async def test_an_endpoint_whose_record_the_power_took_is_released(world: World, h1: Running, tmp_path: Path) -> None:
    await world.create_endpoint("of-somebody-else", "h1")
    record = await claimed(h1, "c2")
    await world.crash()
    (world.directory / "h1" / "attachments" / record.endpoint).unlink()
    h1.host.reboot()

    await world.start()

    await until(lambda: record.endpoint not in world.endpoints(), seconds=5.0)
    assert "e-of-somebody-else" in world.endpoints()


async def test_endpoints_of_containers_do_not_outlive_a_state_directory_that_was_lost(
    world: World, h1: Running
) -> None:
    await world.create_endpoint("of-somebody-else", "h1")
    record = await claimed(h1, "c2")
    await h1.workloads.change(record.endpoint, {"labels": {CONTAINER: "0123456789ab"}})
    await world.crash()
    shutil.rmtree(world.directory / "h1")

    await world.start()

    await until(lambda: record.endpoint not in world.endpoints(), seconds=60.0)
    assert "e-of-somebody-else" in world.endpoints()


async def test_a_record_that_was_never_finished_is_released(world: World, h1: Running) -> None:
    record = await claimed(h1, "c2")
    await world.crash()
    (world.directory / "h1" / "attachments" / record.endpoint).write_bytes(b"")
    await world.start()
    await until(lambda: record.endpoint not in world.endpoints(), seconds=60.0)


async def test_ids_of_one_state_directory_have_its_mark(h1: Running) -> None:
    one, other = await claimed(h1, "c2"), await claimed(h1, "c3")
    attachments: Attachments = h1.worker.attachments
    assert one.endpoint != other.endpoint
    assert attachments.bears_mark(one.endpoint)
    assert attachments.bears_mark(other.endpoint)
    assert not attachments.bears_mark("e-of-somebody-else")


def test_a_file_with_room_is_written_in_place_as_long_as_it_fits(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    place = tmp_path / "records" / "one"

    state.write("records/one", b"{}", durable=False, room=64)
    first = place.stat()
    state.write("records/one", b'{"a":1}', durable=False, room=64)
    assert (place.stat().st_ino, place.stat().st_size) == (first.st_ino, 64)
    assert (state.read("records/one") or b"").rstrip() == b'{"a":1}'

    large = b"x" * (PAGE + 1)
    state.write("records/one", large, durable=False, room=64)
    assert state.read("records/one") == large
    state.write("records/one", b"{}", durable=False, room=64)
    assert (state.read("records/one") or b"").rstrip() == b"{}"
    assert state.names("records") == ["one"]
    state.close()


def test_what_has_gone_needs_no_sync(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    state.sync("nothing")
    state.write("one", b"1", durable=False)
    state.sync("one")
    assert state.read("one") == b"1"
    state.close()


async def test_a_release_is_answered_before_the_kernel_is_done_and_nothing_is_forgotten_until_then(
    world: World, h1: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await claimed(h1, "c2")
    await h1.workloads.hand_over(record.endpoint, C2)
    prompt, may_go = h1.kernel.apply, asyncio.Event()

    async def apply(operations: Sequence[Operation]) -> list[Failure]:
        if any(isinstance(operation, DeleteLink) for operation in operations):
            await may_go.wait()
        return await prompt(operations)

    monkeypatch.setattr(h1.kernel, "apply", apply)
    async with asyncio.timeout(0.1):
        assert await h1.workloads.release(record.endpoint)
        assert await h1.workloads.release(record.endpoint)

    assert record.endpoint not in world.endpoints()
    left = h1.workloads.record(record.endpoint)
    assert left is not None
    assert left.phase is Phase.DETACHING
    assert record.endpoint in h1.state.names("attachments")
    may_go.set()
    await until(lambda: record.endpoint not in h1.state.names("attachments"), seconds=1.0)
    assert veth(record.endpoint) not in h1.veths()


async def test_interfaces_that_go_soon_after_one_another_go_together(h1: Running) -> None:
    for number in range(5):
        record = await claimed(h1, f"c{number}")
        await h1.workloads.hand_over(record.endpoint, C2)
        assert await h1.workloads.release(record.endpoint)
    before = len(h1.veths())
    assert before > 1
    await asyncio.sleep(1)
    assert len(h1.veths()) == 1
    assert not h1.host.waiting()
    assert await h1.plan() == []
