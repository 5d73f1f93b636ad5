"""The follower over a Docker in memory, in virtual time: what it does, how soon, and how often when it is refused."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from kvnet.errors import ControllerUnreachable
from kvnet.model import Network, NetworkState
from tests.unit.worker.docker_follower.fakes import (
    EPOCH,
    FakeCatalogue,
    FakeController,
    FakeEngine,
    FakePlugin,
    FakeWorkloads,
    box,
)
from tests.unit.worker.docker_follower.test_everywhere import NET
from tests.unit.worker.kit import until
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.events import Events
from worker.runtimes.docker.follower import Follower
from worker.runtimes.docker.ledger import Ledger, OwnCalls
from worker.runtimes.docker.ports import Workloads
from worker.runtimes.docker.steps import Steps
from worker.settings import Settings
from worker.underlay import Underlay

pytestmark = pytest.mark.anyio

SUBNETS = ("10.1.0.0/24",)
NAMELESS = replace(NET, name="docker-0123456789ab", state=NetworkState.NAMING)


@dataclass
class Bench:
    engine: FakeEngine
    catalogue: FakeCatalogue
    ledger: Ledger
    controller: FakeController
    workloads: FakeWorkloads
    follower: Follower
    events: Events
    log: io.StringIO
    is_believed: bool = True

    def names(self) -> list[str]:
        return sorted(known.name for known in self.engine.there.values())

    def add(self, network: Network) -> None:
        for subnet in network.subnets:
            self.engine.of_subnet[str(subnet.cidr)] = network.id
        self.catalogue.put(network)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    loop, log = asyncio.get_running_loop(), io.StringIO()
    time = Time(lambda: EPOCH + loop.time(), loop.time, asyncio.sleep, random.Random(1))
    logger = Log(log, now=time.now)
    state = StateDir.open(tmp_path)
    ledger = Ledger(state, logger)
    engine, catalogue, workloads = FakeEngine(ledger), FakeCatalogue(), FakeWorkloads()
    controller = FakeController(catalogue)

    async def is_gone(network: str) -> bool:
        return network not in catalogue.networks

    plugin = FakePlugin(ledger, controller)
    spoken = cast(Controller, controller)
    steps = Steps(engine, catalogue, ledger, OwnCalls(), spoken, plugin, "h1", is_gone=is_gone, time=time, log=logger)
    settings = Settings("http://c", "h1", Underlay(None, "eth0"), tmp_path)
    follower = Follower(
        engine,
        steps,
        catalogue,
        ledger,
        cast(Workloads, workloads),
        settings,
        is_believed=lambda: made.is_believed,
        time=time,
        log=logger,
    )

    async def opened() -> None:
        await follower.read_anew(events.version)

    def heard(event: Any) -> None:
        if event.kind == "network":
            follower.on_event(event)

    events = Events(engine, on_open=opened, on_close=follower.lose_sight, on_event=heard, time=time, log=logger)
    made = Bench(engine, catalogue, ledger, controller, workloads, follower, events, log)
    tasks = [asyncio.create_task(follower.run()), asyncio.create_task(events.run())]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    state.close()


async def test_a_network_of_the_cluster_appears_and_goes_with_it(bench: Bench) -> None:
    bench.add(NET)
    await until(lambda: bench.names() == ["web"])
    bench.catalogue.drop(NET.id)
    await until(lambda: bench.names() == [])
    assert list(bench.ledger.bindings()) == []


async def test_a_network_of_a_user_gets_its_name_as_soon_as_docker_tells_it(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.add(NAMELESS)
    began = asyncio.get_running_loop().time()
    await bench.engine.appear("web", SUBNETS, network=NET.id)
    await until(lambda: bench.catalogue.named("web") is not None)
    assert asyncio.get_running_loop().time() - began < 0.02
    assert bench.engine.log == []


async def test_who_comes_second_with_a_name_gets_the_firsts_network(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.add(replace(NET, id="aaaaaaaaaaaa", name="docker-aaaaaaaaaaaa", state=NetworkState.NAMING))
    winner = replace(NET, id="bbbbbbbbbbbb")
    bench.engine.of_subnet["10.1.0.0/24"] = winner.id
    bench.catalogue.put(winner)
    lost = await bench.engine.appear("web", ("10.2.0.0/24",), network="aaaaaaaaaaaa")
    await until(lambda: bench.names() == ["web"] and lost not in bench.engine.there)
    assert set(bench.catalogue.networks) == {winner.id}
    assert [binding.network for binding in bench.ledger.bindings()] == [winner.id]


async def test_a_name_that_is_taken_here_is_tried_for_ever_more_rarely_and_told_of(bench: Bench) -> None:
    bench.engine.foreign.add("web")
    bench.add(NET)
    await until(lambda: bench.events.is_open)
    before = bench.engine.asked
    await asyncio.sleep(600)
    assert 20 < bench.engine.asked - before < 45
    (condition,) = bench.follower.conditions().values()
    assert "web" in condition.detail
    assert condition.code == "docker-refused"

    bench.engine.foreign.clear()
    bench.engine.tell("network", "destroy", "f" * 64, name="web", type="bridge")
    await until(lambda: bench.names() == ["web"], seconds=0.1)
    await until(lambda: bench.follower.conditions() == {})


async def test_a_name_is_told_when_the_controller_is_back(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.controller.away = ControllerUnreachable("no answer")
    bench.add(NAMELESS)
    await bench.engine.appear("web", SUBNETS, network=NET.id)
    await asyncio.sleep(30)
    assert bench.catalogue.named("web") is None
    bench.controller.away = None
    await until(lambda: bench.catalogue.named("web") is not None, seconds=3.5)


async def test_a_docker_that_is_away_for_days_costs_one_line_and_an_attempt_every_few_seconds(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.engine.die()
    lines = bench.log.getvalue().count("\n")
    before = bench.engine.asked
    await asyncio.sleep(24 * 3600)
    assert bench.log.getvalue().count("\n") == lines + 1
    assert bench.engine.asked - before < 24 * 3600 / 3
    bench.add(NET)
    bench.engine.away = False
    await until(lambda: bench.names() == ["web"], seconds=6)


async def test_nothing_is_removed_because_the_store_lost_it(bench: Bench) -> None:
    bench.add(NET)
    await until(lambda: bench.names() == ["web"])
    bench.is_believed = False
    bench.catalogue.drop(NET.id)
    await asyncio.sleep(60)
    assert bench.names() == ["web"]


async def test_a_network_that_docker_lost_while_nobody_listened_is_removed_from_the_cluster(bench: Bench) -> None:
    bench.add(NET)
    await until(lambda: bench.names() == ["web"])
    bench.engine.there.clear()
    bench.engine.die()
    bench.engine.away = False
    await until(lambda: not bench.catalogue.networks, seconds=3)
    assert list(bench.ledger.bindings()) == []


async def test_an_unused_automatic_network_is_made_anew_and_a_used_one_is_not(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.add(NAMELESS)
    bench.workloads.put("e1", "d" * 64)
    first = await bench.engine.appear("web", SUBNETS, network=NET.id, is_automatic=True)
    await asyncio.sleep(10)
    assert list(bench.engine.there) == [first]
    bench.workloads.kept.clear()
    bench.follower.kick()
    await until(lambda: len(bench.engine.there) == 1 and first not in bench.engine.there)
    assert bench.names() == ["web"]


async def test_a_network_for_which_a_container_was_made_that_has_not_started_yet_is_not_made_anew(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.add(NAMELESS)
    bench.engine.boxes["c1"] = box("c1", "one", "", network="web")
    first = await bench.engine.appear("web", SUBNETS, network=NET.id, is_automatic=True)
    await asyncio.sleep(10)
    assert list(bench.engine.there) == [first]


async def test_an_automatic_network_that_is_used_after_all_leaves_no_second_one_of_its_name(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.add(NAMELESS)
    first = await bench.engine.appear("web", SUBNETS, network=NET.id, is_automatic=True)
    bench.engine.there[first] = replace(bench.engine.there[first], endpoints={"e1": "c1"})
    await until(lambda: "create web" in bench.engine.log)
    await until(lambda: list(bench.engine.there) == [first], seconds=0.1)


async def test_a_catalogue_that_is_in_step_again_is_looked_at_though_nothing_changed(bench: Bench) -> None:
    await until(lambda: bench.events.is_open)
    bench.catalogue.is_in_step = False
    bench.add(NET)
    await asyncio.sleep(5)
    assert bench.names() == []

    bench.catalogue.is_in_step = True

    await until(lambda: bench.names() == ["web"], seconds=2)


async def test_where_docker_has_no_two_of_a_name_the_automatic_one_goes_first(bench: Bench) -> None:
    bench.engine.api = (1, 51)
    bench.engine.die()
    bench.engine.away = False
    await until(lambda: bench.events.is_open and bench.events.version == (1, 51))
    bench.add(NAMELESS)
    first = await bench.engine.appear("web", SUBNETS, network=NET.id, is_automatic=True)
    await until(lambda: bench.names() == ["web"] and first not in bench.engine.there)
    assert bench.engine.log[-2:] == ["remove web", "create web"]
