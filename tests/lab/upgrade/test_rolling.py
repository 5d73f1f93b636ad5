"""From one version to the next on real hosts: side by side, one after the other, back and forth, and not a packet lost.

The next version is made here, of this one (`tests.upgrade.next`): its schema is newer, and so are fields of endpoints
and hosts. Both read each other's values, and nobody is asked to understand more than it does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.open import open_store
from kvnet import codec, keys
from kvnet.client import Client
from kvnet.errors import KvnetError, UpgradeUnfinished
from lab import processes
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET, Process
from tests.upgrade import next as newer

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

PING_S = 0.02
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return newer.make(tmp_path_factory.mktemp("next"))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
            await made.until_ready(name)
        yield made


@dataclass(slots=True)
class Pings:
    sent: int = 0
    lost: list[str] = field(default_factory=list)


@asynccontextmanager
async def pinging(lab: Lab, source: str, address: str) -> AsyncIterator[Pings]:
    """One after the other, all the while, and each is waited for."""
    pings = Pings()

    async def one() -> None:
        answer = await lab.ping(source, address, timeout_s=PATIENCE_S)
        if not answer.ok:
            pings.lost.append(answer.reason)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(one())
                pings.sent += 1
                await asyncio.sleep(PING_S)

    over = asyncio.Event()
    running = asyncio.create_task(all_of_them())
    try:
        yield pings
    finally:
        over.set()
        await running


async def start_controller(lab: Lab, name: str, environment: dict[str, str]) -> Process:
    command = [*KVNET, "controller", "--store", lab.store_url, "--listen", "127.0.0.1:0", "--insecure", "--name", name]
    command += ["--listen-unix", str(lab.directory / f"{name}.sock")]
    return await processes.start(name, command, logs=lab.directory, environment=environment)


async def answering(process: Process, client: Client) -> None:
    async def answers() -> bool:
        try:
            await client.version()
        except KvnetError:
            return False
        return True

    await until(answers, f"{process.name} answers", watched=process)


async def restart(lab: Lab, host: str, environment: dict[str, str] | None = None) -> None:
    worker = lab.hosts[host].worker
    assert worker is not None
    await worker.stop()
    await lab.start_worker(host, environment=environment)
    await lab.until_ready(host)


async def stored(lab: Lab, key: str) -> dict[str, Any]:
    async with await open_store(lab.store_url) as store:
        entry = await store.get(key)
        assert entry is not None, key
        found: dict[str, Any] = json.loads(entry.value)
        return found


async def plan(lab: Lab, host: str) -> list[str]:
    answer = await lab.hosts[host].local.plan()
    return list(answer["operations"])


async def until_seen(client: Client, controllers: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_seen() -> bool:
        nonlocal found
        found = await client.upgrade()
        return len(found["controllers"]) == controllers

    await until(is_seen, f"{controllers} controllers are here")
    return found


async def test_versions_change_under_running_workloads_without_a_lost_packet(
    lab: Lab, next_version: dict[str, str]
) -> None:
    network = await lab.client.create_network({"name": "n", "driver": "overlay"})
    for name, host in (("a", "h1"), ("b", "h2")):
        await lab.add_workload(name, host)
        await lab.attach("n", name)
    newest = max([e["version"] async for e in lab.client.endpoints(network="n")])
    await lab.until_applied(network["id"], newest)
    async with pinging(lab, "a", lab.address_of("b", "n")) as pings:
        other = await start_controller(lab, "next", next_version)
        async with Client(f"unix://{lab.directory / 'next.sock'}", attempts=1) as after:
            await answering(other, after)
            await side_by_side(lab, after, network["id"], next_version)
            await the_old_controller_goes(lab, after)
            await raised(lab, after, network["id"], next_version)
        await asyncio.sleep(PING_S)
    assert pings.sent > 100
    assert pings.lost == [], f"{len(pings.lost)} of {pings.sent}"


async def side_by_side(lab: Lab, after: Client, network: str, next_version: dict[str, str]) -> None:
    """Two controllers, two kinds of workers; what either writes the other reads, and the way back is open."""
    seen = await until_seen(after, 2)
    assert (seen["level"], seen["newest"], seen["finished"]) == (codec.SCHEMA, newer.SCHEMA, False)
    assert "host h1" in seen["behind"]
    with pytest.raises(UpgradeUnfinished, match="h1"):
        await after.finish_upgrade()

    by_the_new = await after.create_endpoint(network, {"host": "h1", "name": "by-the-new"})
    by_the_old = await lab.client.create_endpoint(network, {"host": "h1", "name": "by-the-old"})
    written = await stored(lab, keys.endpoint(network, by_the_new["id"]))
    assert written["v"] == codec.SCHEMA
    assert "note" not in written
    for client in (after, lab.client):

        async def is_read(client: Client = client) -> bool:
            names = {e["name"] async for e in client.endpoints(network="n")}
            return {"by-the-new", "by-the-old"} <= names

        await until(is_read, "both read what both wrote")
    await after.delete_endpoint(network, by_the_old["id"])
    await lab.client.delete_endpoint(network, by_the_new["id"])

    for host in ("h1", "h2"):
        await restart(lab, host, next_version)
        assert await plan(lab, host) == []
    assert "note" not in await stored(lab, keys.host("h1"))
    await restart(lab, "h1")  # back again
    assert await plan(lab, "h1") == []
    await restart(lab, "h1", next_version)


async def the_old_controller_goes(lab: Lab, after: Client) -> None:
    with pytest.raises(UpgradeUnfinished, match="controller"):
        await after.finish_upgrade()
    assert lab.controller is not None
    await lab.controller.stop()
    (lab.directory / "c.sock").symlink_to(lab.directory / "next.sock")  # one address for both, as a proxy has it
    await until_seen(after, 1)


async def raised(lab: Lab, after: Client, network: str, next_version: dict[str, str]) -> None:
    """The new is written from now on, and whoever is older says why it does nothing, and leaves everything as it is."""
    assert (await after.finish_upgrade())["level"] == newer.SCHEMA
    assert (await after.finish_upgrade())["finished"]
    made = await after.create_endpoint(network, {"host": "h1", "name": "later"})
    written = await stored(lab, keys.endpoint(network, made["id"]))
    assert (written["v"], written["note"]) == (newer.SCHEMA, newer.NOTE)

    old = await start_controller(lab, "old", {})
    await asyncio.wait_for(old.child.wait(), 30)
    assert "upgrade this kvnet" in old.last_words()

    worker = lab.hosts["h2"].worker
    assert worker is not None
    await worker.stop()
    before = await stored(lab, keys.host("h2"))
    await lab.start_worker("h2")

    async def says_why() -> bool:
        try:
            told = await lab.hosts["h2"].local.status()
        except KvnetError:
            return False
        return "store-too-new" in json.dumps(told) or "knows up to" in json.dumps(told)

    await until(says_why, "the older worker says why it does nothing", watched=lab.hosts["h2"].worker)
    assert (await lab.ping("a", lab.address_of("b", "n"))).ok
    assert await stored(lab, keys.host("h2")) == before
    await restart(lab, "h2", next_version)
    await until(partial(is_planned, lab, "h2"), "the new worker has nothing to change")


async def is_planned(lab: Lab, host: str) -> bool:
    return await plan(lab, host) == []
