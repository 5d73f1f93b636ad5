"""Starting and stopping a controller: every reason not to start is told before anything runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from controller.listen import bind_unix, parse_listen
from controller.server import ServerSettings, serve
from kvnet.errors import Invalid, KvnetError, NotSupported, PortInUse, StoreBroken
from tests.api.under_test import DEADLINE_S, running

pytestmark = pytest.mark.anyio


async def refusal(settings: ServerSettings) -> KvnetError:
    """Why the controller did not start."""
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(KvnetError) as raised:
            await serve(settings, ready=lambda _: pytest.fail("it started"))
    assert raised.value.detail
    assert raised.value.fix
    return raised.value


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


async def test_a_taken_port_is_told_and_the_store_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.db"
    with taken_port() as port:
        error = await refusal(ServerSettings(store=f"sqlite://{path}", listen=f"127.0.0.1:{port}"))

    assert isinstance(error, PortInUse)
    assert str(port) in error.detail
    assert not path.exists()


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1:99999", "127.0.0.1:-1", ":7480", "::1:80x", "203.0.113.77:0"]
)
async def test_an_address_that_is_none_is_told(listen: str) -> None:
    assert isinstance(await refusal(ServerSettings(store="memory://", listen=listen)), Invalid)


def test_listen_addresses_are_understood() -> None:
    assert parse_listen("7480") == ("127.0.0.1", 7480)
    assert parse_listen("0.0.0.0:1") == ("0.0.0.0", 1)
    assert parse_listen("[::1]:80") == ("::1", 80)
    assert parse_listen("localhost:80") == ("localhost", 80)


@pytest.mark.parametrize("url", ["kvnet.db", "mysql://x", "sqlite://"])
async def test_a_store_url_that_is_none_is_told(url: str) -> None:
    assert isinstance(await refusal(ServerSettings(store=url, listen="127.0.0.1:0")), Invalid)


async def test_a_store_without_its_adapter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backends.etcd", None)
    error = await refusal(ServerSettings(store="etcd://127.0.0.1:2379", listen="127.0.0.1:0"))

    assert isinstance(error, NotSupported)
    assert "kvnet[etcd]" in error.detail


async def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.db"
    path.write_text("precious notes\n" * 100)
    error = await refusal(ServerSettings(store=f"sqlite://{path}", listen="127.0.0.1:0"))

    assert isinstance(error, StoreBroken)
    assert str(path) in error.detail
    assert path.read_text() == "precious notes\n" * 100


async def test_somebody_elses_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("create table recipes (name text)")
    database.close()
    before = path.read_bytes()
    error = await refusal(ServerSettings(store=f"sqlite://{path}", listen="127.0.0.1:0"))

    assert isinstance(error, StoreBroken)
    assert path.read_bytes() == before


async def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    error = await refusal(ServerSettings(store=f"sqlite://{tmp_path}/not/here/kvnet.db", listen="127.0.0.1:0"))

    assert isinstance(error, StoreBroken)
    assert "not/here" in error.detail


async def test_a_broken_store_leaves_no_socket_file_behind(tmp_path: Path) -> None:
    sock = tmp_path / "api.sock"
    await refusal(ServerSettings(store=f"sqlite://{tmp_path}/not/kvnet.db", listen="", listen_unix=sock))

    assert not sock.exists()


async def test_a_socket_file_answers_too_and_only_its_owner_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with running("memory://", listen_unix=path) as api:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(base_url="http://controller", transport=transport) as local:
            made = await local.post("/v1/networks", json={"name": "by-socket"})
            assert made.status_code == 201
        assert (await api.get("/v1/networks/by-socket")).json() == made.json()
    assert not path.exists()


async def test_a_dead_socket_file_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    bind_unix(path).close()
    assert path.exists()
    with bind_unix(path), pytest.raises(PortInUse):
        bind_unix(path)
    path.unlink()
    path.write_text("mine")
    with pytest.raises(PortInUse):
        bind_unix(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_cleanly_within_a_second_with_a_stream_open(
    number: signal.Signals, tmp_path: Path
) -> None:
    code = (
        "import sys; from controller.server import ServerSettings, run; "
        f"run(ServerSettings(store='sqlite://{tmp_path}/kvnet.db', listen='127.0.0.1:0'), "
        "ready=lambda at: print(at.url, flush=True))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        url = (await process.stdout.readline()).decode().strip()
        async with httpx2.AsyncClient(base_url=url) as http, http.stream("GET", "/v1/events") as stream:
            await anext(stream.aiter_lines())
            started_at = asyncio.get_running_loop().time()
            process.send_signal(number)
            _, errors = await process.communicate()
    assert asyncio.get_running_loop().time() - started_at < 1.0
    assert process.returncode == 0, errors.decode()
    assert errors.decode() == ""
