"""Docker's API as it is spoken: which version, what counts as absent, refused and away, and a stream that says it is
open before anything happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import pytest

from worker.runtimes.docker.engine import DockerEngine, parse_network
from worker.runtimes.docker.ports import EngineAway, EngineRefused

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Answer:
    """A list that is told as one."""

    body: Sequence[Any]


class FakeDocker:
    """Answers by "METHOD /path"; a list is told line by line, and then nothing more comes until `ends`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.versions = {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.ends = asyncio.Event()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, str(self.path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                length = next(int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length"))
                await reader.readexactly(length)
                await self._answer(unquote(first.rpartition(" ")[0]), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: str, writer: asyncio.StreamWriter) -> None:
        self.asked.append(request)
        answer = self.versions if request == "GET /version" else self.answers.get(request.partition("?")[0], 404)
        if isinstance(answer, list):
            await self._stream(answer, writer)
            return
        if answer == 304:
            writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            return
        status, body = (answer, {"message": "no such thing"}) if isinstance(answer, int) else (200, answer)
        body = body.body if isinstance(body, Answer) else body
        data = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)

    async def _stream(self, lines: list[Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for line in lines:
            data = json.dumps(line).encode() + b"\n"
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.ends.wait()
        writer.write(b"0\r\n\r\n")


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[FakeDocker]:
    made = FakeDocker(tmp_path / "docker.sock")
    server = await made.serve()
    yield made
    made.ends.set()
    server.close()


@pytest.fixture
async def engine(docker: FakeDocker) -> AsyncIterator[DockerEngine]:
    made = DockerEngine(docker.path)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "agreed"),
    [("1.41", "1.12", (1, 41)), ("1.52", "1.44", (1, 51)), ("1.60", "1.55", (1, 55)), ("1.24", "1.12", (1, 24))],
)
async def test_a_version_is_agreed_upon_and_spoken(
    docker: FakeDocker, engine: DockerEngine, newest: str, oldest: str, agreed: tuple[int, int]
) -> None:
    docker.versions = {"ApiVersion": newest, "MinAPIVersion": oldest}
    docker.answers[f"GET /v{agreed[0]}.{agreed[1]}/networks"] = {}
    assert await engine.version() == agreed
    assert await engine.networks() == []


async def test_a_daemon_that_is_too_old_or_no_daemon_at_all_is_refused(
    docker: FakeDocker, engine: DockerEngine
) -> None:
    docker.versions = {"ApiVersion": "1.20"}
    with pytest.raises(EngineRefused, match=r"1\.24"):
        await engine.version()
    docker.versions = cast(Any, ["not", "docker"])
    docker.ends.set()
    with pytest.raises(EngineRefused, match="not Docker"):
        await engine.version()


async def test_what_is_not_there_is_none_and_removing_it_is_no_error(docker: FakeDocker, engine: DockerEngine) -> None:
    assert await engine.network("x") is None
    assert await engine.container("x", 1.0) is None
    await engine.remove_network("x")
    docker.answers["DELETE /v1.41/networks/x"] = 403
    with pytest.raises(EngineRefused, match="no such thing") as refused:
        await engine.remove_network("x")
    assert refused.value.http == 403


async def test_the_containers_of_a_network_are_also_those_that_know_it_by_name_only(
    docker: FakeDocker, engine: DockerEngine
) -> None:
    place = {"IPAMConfig": None, "Aliases": None, "NetworkID": "", "EndpointID": "", "DNSNames": None}  # of engine 29
    created = {"Id": "c1", "State": "created", "NetworkSettings": {"Networks": {"web": place}}}
    docker.answers["GET /v1.41/containers/json"] = Answer([created])
    assert await engine.containers_of("n1", "web") == ["c1"]
    assert docker.asked[-1] == 'GET /v1.41/containers/json?all=1&filters={"network":["n1","web"]}'


async def test_a_start_of_what_runs_already_or_has_gone_is_no_error(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.answers["POST /v1.41/containers/c1/start"] = 304
    async with asyncio.timeout(5.0):
        await engine.start_container("c1")
    await engine.start_container("gone")
    docker.answers["POST /v1.41/containers/c2/start"] = 500
    with pytest.raises(EngineRefused):
        await engine.start_container("c2")


async def test_no_daemon_is_away(tmp_path: Path) -> None:
    with pytest.raises(EngineAway, match=r"nobody\.sock"):
        await DockerEngine(tmp_path / "nobody.sock").version()


async def test_a_container_that_is_being_started_is_not_waited_for_longer_than_said(
    docker: FakeDocker, engine: DockerEngine
) -> None:
    docker.answers["GET /v1.41/containers/x/json"] = []
    with pytest.raises(EngineAway, match=r"0\.05"):
        await engine.container("x", 0.05)


async def test_the_stream_says_that_it_is_open_then_tells_events_and_ends_with_the_daemon(
    docker: FakeDocker, engine: DockerEngine
) -> None:
    told = {"Type": "network", "Action": "create", "Actor": {"ID": "d1", "Attributes": {"name": "web"}}}
    docker.answers["GET /v1.41/events"] = [told, {"status": "an old form"}]
    async with aclosing(engine.events()) as events:
        assert await anext(events) is None
        event = await anext(events)
        assert event is not None
        assert (event.kind, event.action, event.id, event.attributes) == ("network", "create", "d1", {"name": "web"})
        docker.ends.set()
        with pytest.raises(EngineAway):
            await anext(events)


def test_nulls_of_dockers_are_empty() -> None:
    found = parse_network({"Id": "d1", "Name": "web", "IPAM": {"Config": None, "Options": None}, "Options": None})
    assert (found.subnets, found.options, found.ipam_options, found.labels, found.endpoints) == ((), {}, {}, {}, {})
