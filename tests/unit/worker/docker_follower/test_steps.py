"""A step that is interrupted ends at once: a worker that stops does not wait for what Docker still has to do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.worker.docker_follower.fakes import EPOCH, FakeCatalogue, FakeController, FakeEngine, FakePlugin
from tests.unit.worker.docker_follower.test_everywhere import NET
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.everywhere import Replace
from worker.runtimes.docker.ledger import Binding, Ledger, OwnCalls
from worker.runtimes.docker.ports import EngineNetwork
from worker.runtimes.docker.steps import Steps

pytestmark = pytest.mark.anyio
MINUTE_S = 60.0


class SlowEngine(FakeEngine):
    async def create_network(self, body: Mapping[str, Any]) -> str:
        await asyncio.sleep(MINUTE_S)
        return await super().create_network(body)


async def test_a_replacement_that_is_cancelled_is_over_at_once(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    time, log, state = Time(lambda: EPOCH, loop.time, asyncio.sleep, random.Random(1)), Log(), StateDir.open(tmp_path)
    ledger, catalogue = Ledger(state, log), FakeCatalogue()
    controller, engine = FakeController(catalogue), SlowEngine(ledger)
    catalogue.put(replace(NET, name="web"))
    engine.there["d1"] = EngineNetwork("d1", "web", ("10.1.0.0/24",))
    await ledger.bind(Binding("d1", NET.id, ("10.1.0.0/24",), is_automatic=True))

    async def is_gone(_: str) -> bool:
        return False

    plugin, spoken = FakePlugin(ledger, controller), cast(Controller, controller)
    steps = Steps(engine, catalogue, ledger, OwnCalls(), spoken, plugin, "h1", is_gone=is_gone, time=time, log=log)
    task = asyncio.create_task(steps.do(Replace(NET.id, "d1")))
    await asyncio.sleep(1.0)
    began = loop.time()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert loop.time() - began < 1.0
    assert task.cancelled()
    state.close()
