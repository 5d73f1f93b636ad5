"""Names of containers: learnt from events before anything can be asked, told once, owed while nobody answers."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.errors import ControllerUnreachable
from kvnet.rules import MAX_ALIASES, NAME
from tests.unit.worker.docker_follower.fakes import FakeEngine, FakeWorkloads, box
from tests.unit.worker.kit import until
from worker.log import Log
from worker.ports import Time
from worker.runtimes.docker.containers import names_of
from worker.runtimes.docker.names import Namer
from worker.runtimes.docker.ports import DRIVER, EngineEvent, EngineNetwork, Workloads
from worker.runtimes.fitting import as_name

CID = "33b279001441" + "0" * 52
EID = "e" * 64
NID = "a" * 64


@given(st.text(min_size=1, max_size=300))
def test_every_name_of_dockers_fits_and_one_that_fits_is_kept(text: str) -> None:
    found = as_name(text)
    assert NAME.match(found)
    assert found == text or not NAME.match(text)


@given(st.text("ab-_.", min_size=60, max_size=80), st.text("ab-_.", min_size=60, max_size=80))
def test_different_names_stay_different(one: str, two: str) -> None:
    assert (as_name(one) == as_name(two)) == (one == two)


def test_an_endpoint_has_its_containers_name_hostname_aliases_and_short_id() -> None:
    found = names_of(box(CID, "c1", EID, aliases=["db", "c1"], hostname="box"), "web")
    assert (found.name, found.hostname, found.aliases) == ("c1", "box", ("db", CID[:12]))
    assert found.labels == {"docker.container": CID[:12]}


def test_composes_labels_are_kept_and_a_name_that_was_cut_is_told_in_full() -> None:
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "s", "else": "x"}
    found = names_of(box(CID, "n" * 70, EID, labels=labels), "web")
    assert found.labels == {
        "docker.container": CID[:12],
        "com.docker.compose.project": "p",
        "com.docker.compose.service": "s",
        "docker.name": "n" * 70,
    }


def test_there_are_never_more_aliases_than_an_endpoint_can_have() -> None:
    found = names_of(box(CID, "c1", EID, aliases=[f"a{n}" for n in range(99)]), "web")
    assert len(found.aliases) == MAX_ALIASES


@dataclass
class Bench:
    engine: FakeEngine
    workloads: FakeWorkloads
    namer: Namer
    log: io.StringIO

    def hear(self, kind: str, action: str, id: str, **attributes: str) -> None:
        self.namer.on_event(EngineEvent(kind, action, id, attributes))

    def connect(self) -> None:
        """Docker has given the container its interface."""
        self.engine.there[NID] = EngineNetwork(NID, "web", ("10.1.0.0/24",), endpoints={EID: CID})
        self.hear("network", "connect", NID, container=CID, type=DRIVER)

    def names(self) -> list[str]:
        return [body["name"] for _, body in self.workloads.changes]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    loop, log = asyncio.get_running_loop(), io.StringIO()
    time = Time(loop.time, loop.time, asyncio.sleep, random.Random(1))
    engine, workloads = FakeEngine(), FakeWorkloads()
    namer = Namer(engine, cast(Workloads, workloads), time=time, log=Log(log))
    task = asyncio.create_task(namer.run())
    await asyncio.sleep(0)
    yield Bench(engine, workloads, namer, log)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.anyio
async def test_a_container_that_was_seen_to_be_created_is_named_while_it_starts(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", "", aliases=["db"])
    bench.hear("container", "create", CID)
    await asyncio.sleep(0.01)
    bench.engine.starting[CID] = asyncio.Event()
    bench.workloads.put("e1", EID, is_handed_over=True)
    bench.connect()
    await until(lambda: bench.names() == ["c1"], seconds=0.02)
    assert list(bench.workloads.changes[0][1]["aliases"]) == ["db"]
    assert bench.workloads.changes[0][1]["hostname"] == CID[:12]


@pytest.mark.anyio
async def test_one_that_was_not_is_named_from_a_list_and_gets_its_aliases_when_it_has_started(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID, aliases=["db"])
    bench.engine.starting[CID] = asyncio.Event()
    bench.workloads.put("e1", EID)
    bench.connect()
    await until(lambda: bench.names() == ["c1"], seconds=0.02)
    assert "db" not in bench.workloads.changes[0][1]["aliases"]

    bench.engine.starting.pop(CID).set()
    bench.hear("container", "start", CID)
    await until(lambda: len(bench.workloads.changes) == 2, seconds=0.02)
    assert "db" in bench.workloads.changes[1][1]["aliases"]


@pytest.mark.anyio
async def test_a_running_container_that_is_connected_is_asked_for_the_aliases_of_that_connection(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", "", network="bridge")
    bench.hear("container", "create", CID)
    await asyncio.sleep(0.01)
    bench.engine.boxes[CID] = box(CID, "c1", EID, aliases=["late"])
    bench.workloads.put("e1", EID)
    bench.connect()
    await until(lambda: bench.names() == ["c1"], seconds=0.02)
    assert "late" in bench.workloads.changes[0][1]["aliases"]


@pytest.mark.anyio
async def test_a_new_name_is_told_and_the_same_name_is_not_told_twice(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID)
    await bench.namer.read_anew()
    await until(lambda: bench.names() == ["c1"])
    await bench.namer.read_anew()
    bench.hear("container", "start", CID)
    await asyncio.sleep(1)
    assert bench.names() == ["c1"]

    bench.engine.boxes[CID] = box(CID, "fresh", EID)
    bench.hear("container", "rename", CID, name="fresh", oldName="/c1")
    await until(lambda: bench.names() == ["c1", "fresh"], seconds=0.1)


@pytest.mark.anyio
async def test_names_are_owed_while_the_controller_is_away_and_those_of_the_dead_are_not(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID)
    bench.workloads.problem = ControllerUnreachable("no answer")
    bench.connect()
    await asyncio.sleep(60)
    bench.workloads.problem = None
    await until(lambda: bench.names() == ["c1"], seconds=6)

    bench.workloads.kept["e1"] = replace(bench.workloads.kept["e1"], answer={})
    bench.workloads.problem = ControllerUnreachable("no answer")
    bench.hear("container", "start", CID)
    await asyncio.sleep(1)
    bench.hear("container", "destroy", CID)
    bench.workloads.problem = None
    await asyncio.sleep(60)
    assert bench.names() == ["c1"]


@pytest.mark.anyio
async def test_an_interface_is_settled_soon_after_docker_has_moved_it(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID, is_handed_over=True)
    bench.connect()
    await until(lambda: bench.workloads.settled == ["e1"], seconds=0.2)


@pytest.mark.anyio
async def test_docker_going_away_in_the_middle_loses_nothing(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID)
    bench.engine.away = True
    bench.connect()
    await asyncio.sleep(1)
    bench.engine.away = False
    await bench.namer.read_anew()
    await until(lambda: bench.names() == ["c1"], seconds=0.1)


@pytest.mark.anyio
async def test_a_container_that_comes_back_to_a_network_has_the_aliases_of_that_time(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID, aliases=["old"])
    bench.workloads.put("e1", EID)
    bench.hear("container", "start", CID)
    await until(lambda: bench.names() == ["c1"])
    assert "old" in bench.workloads.changes[0][1]["aliases"]

    again = "f" * 64
    bench.engine.boxes[CID] = box(CID, "c1", again, aliases=["new"])
    bench.workloads.put("e2", again)
    bench.engine.there[NID] = EngineNetwork(NID, "web", ("10.1.0.0/24",), endpoints={again: CID})
    bench.hear("network", "connect", NID, container=CID, type=DRIVER)
    await until(lambda: len(bench.workloads.changes) == 2, seconds=0.02)
    assert "new" in bench.workloads.changes[1][1]["aliases"]
    assert "old" not in bench.workloads.changes[1][1]["aliases"]


@pytest.mark.anyio
async def test_containers_that_docker_hangs_at_hold_up_no_others(bench: Bench) -> None:
    for number in range(4):
        hung = f"{number:064x}"
        bench.engine.boxes[hung] = box(hung, f"hung{number}", "")
        bench.engine.starting[hung] = asyncio.Event()
        bench.hear("container", "start", hung)
    await asyncio.sleep(300)

    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID)
    bench.hear("container", "start", CID)
    await until(lambda: bench.names() == ["c1"], seconds=0.1)


@pytest.mark.anyio
async def test_a_fault_about_one_container_costs_no_other_its_name(bench: Bench) -> None:
    bench.engine.boxes[CID] = box(CID, "c1", EID)
    bench.workloads.put("e1", EID)
    bench.workloads.problem = TimeoutError("nobody expected it")
    bench.hear("container", "start", CID)
    await asyncio.sleep(1)
    bench.workloads.problem = None
    bench.hear("container", "start", CID)
    await until(lambda: bench.names() == ["c1"], seconds=0.1)
    assert "docker-name-failed" in bench.log.getvalue()
