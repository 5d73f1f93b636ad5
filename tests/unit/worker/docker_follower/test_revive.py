"""What Docker tried once, and we refused, is started again: that and nothing else, and never into the void."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest

from kvnet.errors import ControllerUnreachable
from tests.unit.worker.docker_follower.fakes import FakeCatalogue, FakeController, FakeEngine
from tests.unit.worker.kit import until
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.follower import Follower
from worker.runtimes.docker.ports import EngineNetwork, EngineRefused
from worker.runtimes.docker.revive import DOUBT_S, LONGEST_PAUSE_S, MOST_TRIES, Failure, Reviver, failure_of

NID = "a" * 64
WEB = EngineNetwork(NID, "web", ("10.1.0.0/24",))
REFUSED = "remote: this worker has not heard from the controller at http://10.0.0.5:7480 for 6 s; start the controller"
RAN_AT = "2026-11-29T15:42:11.276986702Z"


def down(
    name: str = "bob",
    *,
    policy: str = "always",
    error: str = REFUSED,
    status: str = "exited",
    started: str = RAN_AT,
    network: str = NID,
) -> dict[str, Any]:
    """As `GET /containers/{id}/json` of Docker 20.10 has it."""
    return {
        "Id": name,
        "Name": f"/{name}",
        "State": {"Status": status, "Error": error, "StartedAt": started},
        "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}},
        "NetworkSettings": {"Networks": {"web": {"NetworkID": network, "EndpointID": ""}}},
    }


@pytest.mark.parametrize(
    "container",
    [
        down(),
        down(policy="unless-stopped"),
        down(network=""),
        down(error=f"failed to set up container networking: {REFUSED}"),  # of engine 29
        down(error='Post "http://%2Frun%2Fdocker%2Fplugins%2Fkvnet.sock/NetworkDriver.Join": EOF'),
        down(error="dial unix /run/docker/plugins/kvnet.sock: connect: connection refused"),
        down(error="NetworkDriver.CreateEndpoint: kvnet's worker failed"),
        down(error='error looking up the plugin: legacy plugin: plugin "kvnet" not found'),
        down(
            error="driver failed programming external connectivity on endpoint bob (8a58): remote: port 80/tcp is held"
        ),
    ],
)
def test_what_failed_on_us_and_is_to_be_kept_running_is_ours_to_start(container: Mapping[str, Any]) -> None:
    assert failure_of(container, [WEB]) == Failure("bob", container["State"]["Error"])


@pytest.mark.parametrize(
    "container",
    [
        down(policy="no"),
        down(policy=""),
        down(policy="on-failure"),
        down(error=""),  # a user has stopped it, or it has ended
        down(error='OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown'),
        down(error="cannot join network of a non running container: 1234"),
        down(status="created", started="0001-01-01T00:00:00Z"),
        down(started="0001-01-01T00:00:00Z"),
        down(status="running"),
        down(status="restarting"),
        down(network="b" * 64),
        {},
        {"State": None, "HostConfig": {"RestartPolicy": None}, "NetworkSettings": {"Networks": {"web": None}}},
    ],
)
def test_anything_else_is_left_alone(container: Mapping[str, Any]) -> None:
    assert failure_of(container, [WEB]) is None


@dataclass
class Seen:
    """What the follower knows of Docker."""

    is_synchronous: bool = True
    docker: dict[str, EngineNetwork] = field(default_factory=lambda: {NID: WEB})


@dataclass
class Bench:
    engine: FakeEngine
    seen: Seen
    catalogue: FakeCatalogue
    controller: FakeController
    reviver: Reviver
    log: io.StringIO

    def put(self, *containers: dict[str, Any]) -> None:
        self.engine.boxes.update({container["Id"]: container for container in containers})

    def is_up(self, name: str) -> bool:
        return bool(self.engine.boxes[name]["State"]["Status"] == "running")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    loop, log = asyncio.get_running_loop(), io.StringIO()
    time = Time(loop.time, loop.time, asyncio.sleep, random.Random(1))
    engine, seen, catalogue = FakeEngine(), Seen(), FakeCatalogue()
    controller = FakeController(catalogue)
    reviver = Reviver(engine, cast(Follower, seen), catalogue, cast(Controller, controller), time=time, log=Log(log))
    task = asyncio.create_task(reviver.run())
    yield Bench(engine, seen, catalogue, controller, reviver, log)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.anyio
async def test_it_is_started_within_seconds_of_the_controllers_return(bench: Bench) -> None:
    bench.put(down("bob"), down("cat", policy="unless-stopped"), down("off", error=""))
    bench.controller.away = ControllerUnreachable("no answer")
    bench.reviver.begin_anew()
    await asyncio.sleep(3600)
    assert bench.engine.asked == 0  # nothing while there is nobody to ask

    bench.controller.away = None
    await until(lambda: bench.is_up("bob") and bench.is_up("cat"), seconds=DOUBT_S)
    await asyncio.sleep(3600)
    assert sorted(bench.engine.log) == ["start /bob", "start /cat"]
    assert bench.log.getvalue().count("docker-container-revived") == 2


@pytest.mark.anyio
async def test_nothing_is_started_while_the_catalogue_is_behind_or_docker_is_away(bench: Bench) -> None:
    bench.put(down())
    bench.catalogue.is_in_step = False
    bench.reviver.kick()
    await asyncio.sleep(600)
    assert bench.engine.asked == 0

    bench.seen.is_synchronous, bench.catalogue.is_in_step = False, True
    await asyncio.sleep(600)
    assert bench.engine.asked == 0

    bench.seen.is_synchronous = True
    bench.reviver.begin_anew()  # as whenever the stream of events has opened
    await until(lambda: bench.is_up("bob"), seconds=2)


@pytest.mark.anyio
async def test_docker_that_goes_in_the_middle_is_asked_again_when_it_is_back(bench: Bench) -> None:
    bench.put(down())
    bench.engine.away = True
    bench.reviver.begin_anew()
    await asyncio.sleep(5)
    bench.engine.away = False
    await until(lambda: bench.is_up("bob"), seconds=DOUBT_S)


@pytest.mark.anyio
async def test_what_goes_on_failing_is_given_up_with_growing_pauses(bench: Bench) -> None:
    loop, at = asyncio.get_running_loop(), list[float]()
    bench.put(down())
    bench.engine.problem = EngineRefused("remote: 10.1.0.9 of network web is held by endpoint ann", 500)
    bench.reviver.begin_anew()
    for number in range(1, MOST_TRIES + 1):
        await until(lambda number=number: len(bench.engine.log) == number, seconds=LONGEST_PAUSE_S + 5)  # type: ignore[misc]
        at.append(loop.time())
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert all(later > earlier for earlier, later in pairwise(pauses[:6])), pauses

    bench.reviver.kick()
    await asyncio.sleep(3600)
    assert len(bench.engine.log) == MOST_TRIES
    assert bench.log.getvalue().count("given_up=True") == 1
    ((network, condition),) = bench.reviver.conditions()
    assert (network, condition.code) == (NID, "docker-container-given-up")
    assert "bob stays down" in condition.detail

    bench.engine.problem = None
    bench.reviver.begin_anew()  # dockerd was started again, and has tried once itself
    await until(lambda: bench.is_up("bob"), seconds=2)
    assert list(bench.reviver.conditions()) == []


@pytest.mark.anyio
async def test_one_that_docker_does_not_tell_of_yet_is_looked_at_later(bench: Bench) -> None:
    bench.put(down())
    bench.engine.starting["bob"] = asyncio.Event()
    bench.reviver.begin_anew()
    await asyncio.sleep(4)
    assert bench.engine.log == []
    bench.engine.starting.pop("bob").set()
    await until(lambda: bench.is_up("bob"), seconds=10)


@pytest.mark.anyio
async def test_one_that_cannot_be_looked_at_costs_no_more_than_a_look_now_and_then(bench: Bench) -> None:
    bench.put(down())
    bench.engine.problem = EngineRefused("remote: no", 500)
    bench.reviver.begin_anew()
    await until(lambda: bool(bench.engine.log))
    bench.engine.starting["bob"] = asyncio.Event()
    before = bench.engine.asked
    await asyncio.sleep(600)
    assert bench.engine.asked - before < 2 * 600


@pytest.mark.anyio
async def test_a_start_that_we_refuse_later_on_is_seen_too(bench: Bench) -> None:
    bench.reviver.begin_anew()
    await asyncio.sleep(600)
    bench.put(down())
    bench.reviver.kick()
    await until(lambda: bench.is_up("bob"), seconds=2)


@pytest.mark.anyio
async def test_one_that_its_user_lets_rest_meanwhile_is_not_started(bench: Bench) -> None:
    bench.put(down())
    bench.engine.problem = EngineRefused("remote: no", 500)
    bench.reviver.begin_anew()
    await until(lambda: len(bench.engine.log) == 3)
    bench.engine.boxes["bob"]["HostConfig"]["RestartPolicy"]["Name"] = "no"  # docker update --restart=no
    await asyncio.sleep(3600)
    assert len(bench.engine.log) == 3
