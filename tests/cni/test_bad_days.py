"""What goes wrong around a call: the worker dies in it, the controller is away, the host's Docker shares the host."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import Lab, until
from tests.cni.calling import Programs, Runtime
from tests.lab.eye import everything
from tests.lab.worker.bench import workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with workers(tmp_path_factory.mktemp("lab"), hosts=1) as made:
        await made.client.create_network({"name": "pods", "driver": "overlay"})
        yield made


@pytest.fixture
def runtime(lab: Lab, programs: Programs) -> Runtime:
    return Runtime(programs.cni, lab.hosts["h1"].socket)


@pytest.fixture
def netns() -> Path:
    made = namespaces.create("blue")
    yield made
    namespaces.destroy(made)


async def restarted(lab: Lab) -> None:
    await lab.start_worker("h1")
    await lab.until_ready("h1")


async def until_quiet(lab: Lab, count: int) -> None:
    """Store, records and kernel agree upon that many endpoints."""

    async def is_quiet() -> bool:
        stored = {e["id"] async for e in lab.client.endpoints()}
        status = await lab.hosts["h1"].local.status()
        records = {a["endpoint"] for a in status["attachments"]}
        veths = [name for name in everything(lab.hosts["h1"].netns).links if name.startswith("kve")]
        return stored == records and len(stored) == len(veths) == count

    await until(is_quiet, f"{count} endpoints everywhere", seconds=20.0)


@pytest.mark.parametrize("delay_ms", [0, 5, 10, 15, 20, 30, 40, 60])
async def test_a_worker_killed_in_an_add_leaves_nothing_that_the_next_add_does_not_find(
    lab: Lab, runtime: Runtime, netns: Path, delay_ms: int
) -> None:
    worker = lab.hosts["h1"].worker
    assert worker is not None
    adding = asyncio.create_task(runtime.call("ADD", "c1", netns))
    await asyncio.sleep(0.02 + delay_ms / 1000)  # the program's own start, then into the worker's work
    await worker.kill()
    answer = await adding
    if answer.status:
        assert answer.code == 11
    await restarted(lab)

    result = await runtime.add("c1", netns)
    await until_quiet(lab, 1)
    (await runtime.call("CHECK", "c1", netns, prevResult=result)).require_quiet()
    await runtime.delete("c1", netns)
    await until_quiet(lab, 0)


async def test_a_worker_killed_in_an_add_that_is_deleted_leaves_nothing(
    lab: Lab, runtime: Runtime, netns: Path
) -> None:
    worker = lab.hosts["h1"].worker
    assert worker is not None
    adding = asyncio.create_task(runtime.call("ADD", "c1", netns))

    async def has_begun() -> bool:
        return bool(list((lab.hosts["h1"].state_dir / "attachments").glob("*")))

    await until(has_begun, "the attach has begun", seconds=3.0)
    await worker.kill()
    await adding
    await restarted(lab)
    await runtime.delete("c1", netns)
    await until_quiet(lab, 0)
    assert set(everything(netns).links) == {"lo"}


async def test_without_the_controller_del_succeeds_and_is_finished_later(
    lab: Lab, runtime: Runtime, netns: Path
) -> None:
    await runtime.add("c1", netns)
    assert lab.controller is not None
    await lab.controller.kill()
    await runtime.delete("c1", netns)
    assert set(everything(netns).links) == {"lo"}

    async def is_refused() -> bool:
        answer = await runtime.call("STATUS")
        return answer.status != 0 and answer.code == 50

    await until(is_refused, "STATUS tells", seconds=15.0)
    assert (await runtime.call("ADD", "c2", netns)).code == 11
    await lab.start_controller()
    await lab.until_ready("h1")
    await until_quiet(lab, 0)


async def test_adds_and_dels_of_many_containers_cross_without_a_trace(lab: Lab, runtime: Runtime) -> None:
    async def live(number: int) -> None:
        box = namespaces.create(f"box{number}")
        try:
            for _ in range(3):
                await runtime.add(f"c{number}", box)
                await runtime.delete(f"c{number}", box)
        finally:
            namespaces.destroy(box)

    await asyncio.gather(*map(live, itertools.islice(itertools.count(), 8)))
    await until_quiet(lab, 0)
