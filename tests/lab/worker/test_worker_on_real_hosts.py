"""The worker as a process, on a real kernel, with a real controller: what outlives whom, and who cleans up."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datapath.names import veth_name
from kvnet.errors import AlreadyAttached, ControllerUnreachable, KvnetError
from lab import namespaces, processes
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET
from tests.lab.eye import look
from worker.kernel.messages import delete_link
from worker.kernel.netlink import Netlink

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
NETWORK = "my-net"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Two hosts, c1 on the first and c2 on the second, attached."""
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
        for name in made.hosts:
            await made.until_ready(name)
        await made.client.create_network({"name": NETWORK, "driver": "overlay"})
        for workload, host in (("c1", "h1"), ("c2", "h2")):
            await made.add_workload(workload, host)
            await made.attach(NETWORK, workload)
        await until_reached(made)
        yield made


def endpoint(lab: Lab, workload: str) -> dict[str, Any]:
    return dict(lab.workloads[workload].endpoints[NETWORK])


async def until_reached(lab: Lab, seconds: float = 2.0) -> None:
    async def is_reached() -> bool:
        c2 = endpoint(lab, "c2")
        answers = [await lab.ping("c1", str(c2[family]), timeout_s=0.2) for family in ("address", "address6")]
        return all(answer.ok for answer in answers)

    await until(is_reached, "c1 reaches c2", seconds=seconds)


def links(lab: Lab, host: str) -> dict[str, int]:
    return dict(look(lab.hosts[host].netns).links)


def delete_by_hand(lab: Lab, host: str, device: str) -> None:
    index = links(lab, host)[device]

    def delete() -> None:
        rtnetlink = Netlink(small=True)
        try:
            assert rtnetlink.one(delete_link(index)) is None
        finally:
            rtnetlink.close()

    namespaces.call(lab.hosts[host].netns, delete)


async def stop_worker(lab: Lab, host: str) -> None:
    worker = lab.hosts[host].worker
    assert worker is not None
    await worker.stop()
    assert worker.child.returncode == 0, worker.last_words()


async def test_a_workload_that_ends_is_gone_from_everywhere_within_a_second(lab: Lab) -> None:
    gone = endpoint(lab, "c2")
    began = time.monotonic()
    await lab.remove_workload("c2")

    async def is_gone() -> bool:
        there = [e["id"] async for e in lab.client.endpoints()]
        return gone["id"] not in there and not links(lab, "h2")

    await until(is_gone, "endpoint, interface, bridge and tunnel are gone", seconds=2.0)
    assert time.monotonic() - began < 1.2
    assert not list((lab.hosts["h2"].state_dir / "attachments").iterdir())


async def test_an_interface_deleted_by_hand_is_back_within_a_second(lab: Lab) -> None:
    veth = veth_name(str(endpoint(lab, "c1")["id"]))
    delete_by_hand(lab, "h1", veth)
    await until_reached(lab, seconds=1.0)
    assert veth in links(lab, "h1")


async def test_stopping_and_starting_the_worker_rebuilds_nothing(lab: Lab) -> None:
    before = look(lab.hosts["h1"].netns)
    await stop_worker(lab, "h1")
    assert look(lab.hosts["h1"].netns) == before
    await until_reached(lab)
    await lab.start_worker("h1")
    await lab.until_ready("h1")
    assert look(lab.hosts["h1"].netns) == before
    assert (await lab.hosts["h1"].local.plan())["operations"] == []
    with pytest.raises(AlreadyAttached):
        await lab.attach(NETWORK, "c1")


async def test_without_a_controller_a_started_worker_restores_what_was_there(lab: Lab) -> None:
    controller = lab.controller
    assert controller is not None

    async def is_saved() -> bool:
        return (lab.hosts["h1"].state_dir / "lastknown.json").exists()

    await until(is_saved, "the last known state is on disk", seconds=5.0)
    await stop_worker(lab, "h1")
    await controller.stop()
    for device in [name for name in links(lab, "h1") if name.startswith(("kvx", "kvb"))]:
        delete_by_hand(lab, "h1", device)
    await lab.start_worker("h1")
    await until_reached(lab, seconds=6.0)
    with pytest.raises(ControllerUnreachable):
        await lab.hosts["h1"].local.attach(NETWORK, str(lab.workloads["c1"].netns), "another")
    await lab.start_controller()
    await lab.until_ready("h1")
    await until_reached(lab)


async def test_a_detach_without_a_controller_is_finished_later(lab: Lab) -> None:
    controller = lab.controller
    assert controller is not None
    gone = endpoint(lab, "c1")
    await controller.stop()
    answer = await lab.hosts["h1"].local.detach(id=str(gone["id"]))
    assert answer == {"detached": [], "queued": [gone["id"]]}
    assert veth_name(str(gone["id"])) not in links(lab, "h1")
    await lab.start_controller()

    async def is_gone() -> bool:
        return gone["id"] not in [e["id"] async for e in lab.client.endpoints()]

    await until(is_gone, "the endpoint is deleted", seconds=20.0)


async def test_a_killed_worker_undoes_its_half_done_attaches(lab: Lab) -> None:
    """Kills it at whatever point ten attaches at once happen to be."""
    import asyncio

    for number in range(10):
        await lab.add_workload(f"w{number}", "h1")
    tasks = [asyncio.create_task(lab.attach(NETWORK, f"w{number}")) for number in range(10)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    worker = lab.hosts["h1"].worker
    assert worker is not None
    worker.signal(signal.SIGKILL)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, dict | KvnetError) for answer in answers)
    await worker.child.wait()
    await lab.start_worker("h1")
    await lab.until_ready("h1")
    acknowledged = {answer["endpoint"]["id"] for answer in answers if isinstance(answer, dict)}
    acknowledged.add(endpoint(lab, "c1")["id"])

    async def is_settled() -> bool:
        status = await lab.hosts["h1"].local.status()
        attached = {a["endpoint"] for a in status["attachments"]}
        there = {e["id"] async for e in lab.client.endpoints(host="h1")}
        veths = {name for name in links(lab, "h1") if name.startswith("kve")}
        phases = {a["phase"] for a in status["attachments"]}
        return phases == {"attached"} and attached == there and veths == {veth_name(e) for e in there}

    await until(is_settled, "store, kernel and records agree", seconds=20.0)
    assert acknowledged <= {e["id"] async for e in lab.client.endpoints(host="h1")}
    assert (await lab.client.check())["ok"]
    assert done


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--underlay", "192.0.2.77"], "192.0.2.77"),
        (["--socket", "{dir}/h1/w.sock"], "answering"),
        (["--state-dir", "{dir}/h1"], "another worker"),
        (["--state-dir", "/proc/nowhere"], "state directory"),
        (["--ttl", "1s"], "TTL"),
        (["--controller", "gopher://x"], "gopher"),
    ],
)
async def test_a_worker_that_cannot_start_says_why(lab: Lab, options: list[str], words: str) -> None:
    directory, host = lab.directory, lab.hosts["h1"]
    command = [*KVNET, "worker", "--controller", lab.controller_url, "--host", "h9"]
    command += ["--underlay", str(host.port.underlay), "--state-dir", str(directory / "h9")]
    command += ["--socket", str(directory / "h9.sock"), *(o.replace("{dir}", str(directory)) for o in options)]
    worker = await processes.start("worker-h9", command, logs=directory, netns=host.netns)

    async def is_over() -> bool:
        return not worker.is_running

    try:
        await until(is_over, "it gives up", seconds=5.0)
    finally:
        await worker.kill()
    said = worker.last_words()
    assert worker.child.returncode not in (0, None)
    assert words in said
    assert "Fix:" in said
    assert "Traceback" not in said


async def test_without_the_capability_it_says_so(lab: Lab) -> None:
    host = lab.hosts["h1"]
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", *KVNET, "worker"]
    command += ["--controller", lab.controller_url, "--host", "h9", "--underlay", str(host.port.underlay)]
    command += ["--state-dir", str(lab.directory / "h9"), "--socket", str(lab.directory / "h9.sock")]
    worker = await processes.start("worker-h9", command, logs=lab.directory, netns=host.netns)

    async def is_over() -> bool:
        return not worker.is_running

    await until(is_over, "it gives up", seconds=5.0)
    assert "CAP_NET_ADMIN" in worker.last_words()
