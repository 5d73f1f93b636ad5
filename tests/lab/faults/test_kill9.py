"""kill -9 of the controller or of a worker in the middle of everything, on real processes and the real kernel.

Whatever moment it hits: what was acknowledged is still so, `kvnet check` finds nothing, and every endpoint has its
interface and every interface its endpoint once the survivors have caught up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datapath.names import veth_name
from kvnet.errors import KvnetError
from lab.lab import Lab, open_lab, until
from tests.lab.eye import look

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

KILL_POINTS = 10
# Longer than any of the operations takes, so that some are hit before, some in and some after it.
LATEST_S = {"create": 0.012, "attach": 0.045, "detach": 0.03, "delete": 0.015}
# An attach whose fate nobody knows is watched for ten seconds before it is forgotten.
SETTLED_S = 25.0
BASE = "base"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
        for name in made.hosts:
            await made.until_ready(name)
        yield made


@dataclass
class Story:
    """What the clients were told. What was asked for and not answered is in none of these."""

    networks: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    attached: dict[str, str] = field(default_factory=dict)  # workload -> endpoint id
    detached: set[str] = field(default_factory=set)
    unanswered: int = 0


class Client:
    """Does one thing after the other, and notes what came of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.story = Story()
        self._made = 0

    async def prepare(self, operation: str) -> Callable[[], Awaitable[None]]:
        """Everything that the operation needs; what it returns is what is to be interrupted."""
        self._made += 1
        name = f"k{self._made}"
        if operation in ("attach", "detach"):
            await self.lab.add_workload(name, "h1")
        if operation == "detach":
            await self._attach(name)
        if operation == "delete":
            await self._create(name)
        return partial(getattr(self, f"_{operation}"), name)

    async def _create(self, name: str) -> None:
        await self.lab.client.create_network({"name": name})
        self.story.networks.add(name)

    async def _delete(self, name: str) -> None:
        self.story.networks.discard(name)
        await self.lab.client.delete_network(name)
        self.story.gone.add(name)

    async def _attach(self, name: str) -> None:
        answer = await self.lab.attach(BASE, name)
        self.story.attached[name] = answer["endpoint"]["id"]

    async def _detach(self, name: str) -> None:
        endpoint = self.story.attached.pop(name)
        await self.lab.detach(BASE, name)
        self.story.detached.add(endpoint)


async def interrupted(
    client: Client, action: Callable[[], Awaitable[None]], kill: Callable[[], Awaitable[None]]
) -> None:
    running = asyncio.ensure_future(action())
    await kill()
    try:
        async with asyncio.timeout(30):
            await running
    except KvnetError:
        client.story.unanswered += 1


async def restart(lab: Lab, victim: str) -> None:
    if victim == "controller":
        await lab.start_controller()
    else:
        await lab.start_worker("h1")
    await lab.until_ready("h1")

    async def hears_the_store() -> bool:
        return bool((await lab.hosts["h1"].local.status())["store"]["in_step"])

    await until(hears_the_store, "the worker of h1 hears the store again")


@pytest.mark.parametrize("victim", ["controller", "worker"])
async def test_nothing_acknowledged_is_lost_and_nothing_leaks(lab: Lab, victim: str) -> None:
    rng = random.Random(f"kill -9 {victim}")
    client = Client(lab)
    await client._create(BASE)
    for host in lab.hosts:
        await lab.add_workload(f"{BASE}-{host}", host)
        await lab.attach(BASE, f"{BASE}-{host}")

    operations = ["attach", "detach"] if victim == "worker" else ["create", "attach", "detach", "delete"]
    for number in range(KILL_POINTS):
        operation = operations[number % len(operations)]
        action = await client.prepare(operation)
        process = lab.controller if victim == "controller" else lab.hosts["h1"].worker
        assert process is not None
        pause = rng.uniform(0, LATEST_S[operation])

        async def kill(pause: float = pause, process: Any = process) -> None:
            await asyncio.sleep(pause)
            await process.kill()

        await interrupted(client, action, kill)
        await restart(lab, victim)

    await until(partial(is_settled, lab), "endpoints and interfaces are the same", seconds=SETTLED_S)
    await require(lab, client.story)
    assert client.story.unanswered > 0, "no kill hit anything: the pauses are too long"


async def is_settled(lab: Lab) -> bool:
    stored = {veth_name(e["id"]) async for e in lab.client.endpoints(host="h1")}
    there = {name for name in look(lab.hosts["h1"].netns).links if name.startswith("kve")}
    attachments = (await lab.hosts["h1"].local.status())["attachments"]
    return stored == there and all(a["phase"] == "attached" for a in attachments)


async def require(lab: Lab, story: Story) -> None:
    report = await lab.client.check()
    assert report["ok"], report["findings"]
    networks = {n["name"] async for n in lab.client.networks()}
    assert story.networks <= networks
    assert not story.gone & networks
    endpoints = {e["id"] async for e in lab.client.endpoints()}
    assert set(story.attached.values()) <= endpoints
    assert not story.detached & endpoints
    addresses = [a async for e in lab.client.endpoints() for a in e["addresses"]]
    assert len(addresses) == len(set(addresses))
    for name, endpoint in story.attached.items():
        there = await lab.client.get_endpoint(BASE, endpoint)
        # A worker that has lost its controller a few times in a row takes up to two seconds to hear from it again.
        await lab.until_applied(there["network"], there["version"])
        answer = await lab.ping(f"{BASE}-h2", str(there["address"]))
        assert answer.ok, f"h2 -> {name}: {answer.reason}"
