"""The socket and HTTP as Docker's client speaks it, and as nobody should."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.errors import PortInUse, Unfit
from tests.unit.worker.docker.kit import read_reply, until
from worker.log import Log
from worker.runtimes.docker import http
from worker.runtimes.docker.http import HttpServer, Reply, Request, listen_for_docker, passed_socket

pytestmark = pytest.mark.anyio

HEAD = b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\n"


class Served:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.held = asyncio.Event()
        self.held.set()
        self.writers: list[asyncio.StreamWriter] = []

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        await self.held.wait()
        return Reply(200, request.body or b"{}")

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self.writers.append(writer)
        return reader, writer

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        reader, writer = await self.open()
        writer.write(raw)
        async with asyncio.timeout(5):
            status, body, _ = await read_reply(reader)
        writer.close()
        return status, body


@contextlib.asynccontextmanager
async def _serving(path: Path) -> AsyncIterator[Served]:
    listening = await listen_for_docker(path, {})
    served = Served(path)
    task = asyncio.create_task(HttpServer(listening, served.answer, log=Log()).run())
    try:
        yield served
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for writer in served.writers:
            writer.close()
        listening.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with _serving(tmp_path / "plugins" / "kvnet.sock") as made:
        yield made


async def test_an_empty_host_and_an_empty_body_are_fine(served: Served) -> None:
    assert await served.ask(HEAD + b"Content-Length: 0\r\n\r\n") == (200, b"{}")
    assert served.requests == [Request("POST", "/Plugin.Activate", b"")]


async def test_a_connection_serves_one_request_after_the_other(served: Served) -> None:
    reader, writer = await served.open()
    for number in range(100):
        body = json.dumps({"n": number}).encode()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert await read_reply(reader) == (200, body, True)
    writer.close()


async def test_requests_that_are_sent_at_once_are_answered_in_turn(served: Served) -> None:
    reader, writer = await served.open()
    writer.write(b"".join(HEAD + b"Content-Length: 1\r\n\r\n%d" % number for number in range(9)))

    assert [(await read_reply(reader))[1] for _ in range(9)] == [b"%d" % number for number in range(9)]


async def test_a_body_may_come_in_chunks(served: Served) -> None:
    chunks = b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'

    assert await served.ask(HEAD + chunks) == (200, b'{"a":1}')


NONSENSE = (
    (b"\x00\x01\x02\r\n\r\n", 400),
    (b"GET\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\n\r\n", 400),  # no Host at all
    (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    (HEAD + b"Content-Length: 99999999999\r\n\r\n" + b"x" * (2 << 20), 413),
    (HEAD + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n", 431),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
)


@pytest.mark.parametrize(("raw", "status"), NONSENSE)
async def test_nonsense_is_refused_and_ends_only_its_own_connection(served: Served, raw: bytes, status: int) -> None:
    got, body = await served.ask(raw)

    assert got == status
    assert json.loads(body)["Err"]
    assert await served.ask(HEAD + b"Content-Length: 0\r\n\r\n") == (200, b"{}")


async def test_who_leaves_in_the_middle_harms_nobody(served: Served) -> None:
    for part in (b"PO", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"):
        _, writer = await served.open()
        writer.write(part)
        await writer.drain()
        writer.close()

    assert await served.ask(HEAD + b"Content-Length: 0\r\n\r\n") == (200, b"{}")
    assert len(served.requests) == 1


async def test_who_dawdles_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RECEIVE_S", 0.05)
    reader, writer = await served.open()
    writer.write(HEAD)

    async with asyncio.timeout(5):
        assert await reader.read() == b""


async def test_one_connection_too_many_is_told_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)
    held = [await served.open() for _ in range(3)]
    for reader, writer in held:
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await read_reply(reader)

    status, body = await served.ask(HEAD + b"Content-Length: 0\r\n\r\n")

    assert (status, "already" in json.loads(body)["Err"]) == (503, True)


async def test_what_was_begun_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    async with _serving(tmp_path / "kvnet.sock") as served:
        served.held.clear()
        reader, writer = await served.open()
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
        await until(lambda: bool(served.requests))
        asyncio.get_running_loop().call_later(0.05, served.held.set)
        answered = asyncio.create_task(read_reply(reader))

    assert (await answered)[:2] == (200, b"{}")


async def test_a_socket_that_a_dead_worker_left_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "kvnet.sock"
    (await listen_for_docker(path, {})).close()

    async with _serving(path) as served:
        with pytest.raises(PortInUse, match="another driver answers") as caught:
            await listen_for_docker(path, {})
        assert await served.ask(HEAD + b"Content-Length: 0\r\n\r\n") == (200, b"{}")

    assert "--docker-plugin" in caught.value.fix
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.sock"
    path.write_text("precious")

    with pytest.raises(Unfit):
        await listen_for_docker(path, {})

    assert path.read_text() == "precious"


# what systemd passes


@contextlib.contextmanager
def _listening(path: Path) -> AsyncIterator[socket.socket]:  # type: ignore[misc]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(path))
        made.listen()
        yield made


def _environment(monkeypatch: pytest.MonkeyPatch, first: int, names: str, count: int = 1) -> dict[str, str]:
    monkeypatch.setattr(http, "FIRST_PASSED", first)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}


@pytest.mark.parametrize("name", ["docker", "unknown", ""])
async def test_a_passed_socket_is_served_and_stays_when_the_worker_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "kvnet.sock"
    with _listening(path) as made:
        environment = _environment(monkeypatch, os.dup(made.fileno()), name)
        early = asyncio.create_task(Served(path).ask(HEAD + b"Content-Length: 0\r\n\r\n"))
        listening = await listen_for_docker(path, environment)
        served = Served(path)
        task = asyncio.create_task(HttpServer(listening, served.answer, log=Log()).run())
        answered = await early
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
        waits = asyncio.create_task(served.open())
        _, writer = await asyncio.wait_for(waits, 5)  # in the backlog, for the next worker
        writer.close()

    assert answered == (200, b"{}")
    assert path.exists()


async def test_what_was_passed_to_somebody_else_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kvnet.sock"
    with _listening(path) as made:
        mine = _environment(monkeypatch, made.fileno(), "docker")
        for other in ({}, {**mine, "LISTEN_PID": "1"}, {**mine, "LISTEN_FDNAMES": "cni"}, {**mine, "LISTEN_FDS": "x"}):
            assert passed_socket(other, path) is None
        assert passed_socket({**mine, "LISTEN_FDNAMES": ""}, tmp_path / "other.sock") is None


async def test_what_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        environment = _environment(monkeypatch, os.dup(made.fileno()), "docker")
        with pytest.raises(Unfit, match="not a listening unix stream socket"):
            await listen_for_docker(tmp_path / "kvnet.sock", environment)
        os.close(http.FIRST_PASSED)
