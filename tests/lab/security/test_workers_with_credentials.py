"""Workers that have a host's credential and no store, on a real kernel: nothing that they need is refused to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import Lab, open_lab, until
from tests.lab.security.joined import as_hosts, refusals
from tests.lab.walk import walk

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=3) as made:
        await made.start_controller()
        await as_hosts(made)
        yield made


async def test_the_walk_of_a_first_day_with_hosts_credentials(lab: Lab) -> None:
    await walk(lab)
    assert refusals(lab) == []


async def test_peers_questions_pausing_and_a_restart_without_a_controller(lab: Lab) -> None:
    a, b = [await lab.client.create_network({"name": name, "driver": "overlay"}) for name in ("a", "b")]
    for name, network, host in (("c1", "a", "h1"), ("c2", "b", "h2"), ("c3", "a", "h3")):
        await lab.add_workload(name, host)
        await lab.attach(network, name)
    await lab.client.peer_networks("a", "b")
    await until(lambda: reaches(lab, "c1", "c2", "b"), "peers reach each other")

    looked = await lab.client.trace({"from": "c1", "to": "c2"})
    assert looked["whole"], looked
    report = await lab.client.examine_host("h2")
    failed = [check for check in report["checks"] if check["status"] == "fail"]
    assert not [check for check in failed if check["code"].startswith(("store.", "controller."))], failed
    assert (await lab.client.pause_repairs("h2", 30))["host"] == "h2"
    await lab.client.resume_repairs("h2")

    await lab.client.unpeer_networks("a", "b")

    async def is_apart() -> bool:
        return not await reaches(lab, "c1", "c2", "b")

    await until(is_apart, "those that are no peers any more do not reach each other")

    assert lab.controller is not None
    await lab.controller.kill()
    worker = lab.hosts["h1"].worker
    assert worker is not None
    await worker.kill()
    await lab.start_worker("h1")
    assert await reaches(lab, "c1", "c3", "a")
    await lab.start_controller()
    await lab.until_ready("h1")
    await lab.detach("a", "c1")
    assert refusals(lab) == []
    assert a["id"] != b["id"]


async def reaches(lab: Lab, source: str, target: str, network: str) -> bool:
    return (await lab.ping(source, lab.address_of(target, network), timeout_s=0.3)).ok
