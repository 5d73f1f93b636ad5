"""Workers that have a host's credential and no store, on a real kernel: nothing that they need is refused to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.errors import HostInUse, NotFound
from lab.lab import Lab, open_lab, until
from tests.lab.eye import look
from tests.lab.security.joined import as_hosts, credited, refusals
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


async def test_a_cluster_begins_to_ask_for_tokens_and_a_host_is_removed_and_comes_back(lab: Lab) -> None:
    await lab.client.create_network({"name": "a", "driver": "overlay"})
    for name, host in (("c1", "h1"), ("c2", "h2")):
        await lab.add_workload(name, host)
        await lab.attach("a", name)
    before = look(lab.hosts["h1"].netns)

    for name in ("h1", "h2"):  # as if they had run without credentials until now, under sessions of the store's own
        worker = lab.hosts[name].worker
        assert worker is not None
        await worker.stop()
        known = lab.hosts[name].state_dir / "session.json"
        known.write_text(known.read_text().replace('"session": "', '"session": "of-the-store-'))
        await lab.start_worker(name)
    for name in ("h1", "h2"):
        await lab.until_ready(name)
    assert look(lab.hosts["h1"].netns) == before
    assert await reaches(lab, "c1", "c2", "a")

    await lab.detach("a", "c2")
    worker = lab.hosts["h2"].worker
    assert worker is not None
    await worker.stop()
    await until(lambda: removed(lab, "h2"), "the host is removed", seconds=40)
    hosts = [token["host"] for token in await lab.client.tokens() if token["host"] is not None]
    assert hosts == ["h1", "h3"], "its credential went with it"
    await credited(lab, "h2")
    await lab.start_worker("h2")
    await lab.until_ready("h2")
    await lab.attach("a", "c2")
    await until(lambda: reaches(lab, "c1", "c2", "a"), "a host that was removed is back, with another credential")


async def removed(lab: Lab, host: str) -> bool:
    try:
        await lab.client.delete_host(host)
    except HostInUse:
        return False
    return True


async def test_a_hosts_scope_says_which_networks_it_may_join(tmp_path: Path) -> None:
    async with open_lab(tmp_path, hosts=1) as lab:
        await lab.start_controller()
        await as_hosts(lab, scope={"team": "red"})
        for name, team in (("mine", "red"), ("others", "blue")):
            await lab.client.create_network({"name": name, "driver": "overlay", "labels": {"team": team}})
        await lab.add_workload("c1", "h1")
        await lab.attach("mine", "c1")
        for network in ("others", "nobodys"):
            with pytest.raises(NotFound) as refused:
                await lab.attach(network, "c1")
            assert refused.value.detail == f"there is no network '{network}'"
        await lab.detach("mine", "c1")


async def reaches(lab: Lab, source: str, target: str, network: str) -> bool:
    return (await lab.ping(source, lab.address_of(target, network), timeout_s=0.3)).ok
