"""Who reaches a controller at all: loopback, beyond it, a socket file; and the first token of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backends.memory import MemoryState, MemoryStore
from backends.open import open_store
from controller.exposure import prepare
from controller.server import Listening, ServerSettings, serve
from kvnet import keys
from kvnet.errors import InsecureListen, Invalid, StateUnusable
from kvnet.security import parse_token
from tests.api.under_test import DEADLINE_S, problem_of
from tests.security.admitted import ADMIN, bearer
from tests.unit.controller.kit import opened
from tests.unit.controller.test_late_ports import Late

pytestmark = pytest.mark.anyio
EVERYWHERE = "0.0.0.0:0"


@contextlib.asynccontextmanager
async def serving(store: str, listen: str = EVERYWHERE, **more: Any) -> AsyncIterator[str]:
    ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(serve(ServerSettings(store, listen, **more), ready=ready.set_result, stop=stop))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait((server, ready), return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server
        yield ready.result().url
    finally:
        stop.set()
        if not server.done():
            await server


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def get(url: str, path: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/kvnet.db"


async def test_beyond_loopback_a_cluster_without_tokens_is_not_served_and_nothing_is_written(store: str) -> None:
    with pytest.raises(InsecureListen) as refused:
        async with serving(store):
            pass
    assert "--insecure" in refused.value.fix
    async with await open_store(store) as opened:
        assert await opened.get(keys.CLUSTER) is None


async def test_told_so_it_is_and_everybody_is_heard_until_there_is_a_token(store: str) -> None:
    async with serving(store, is_insecure=True) as url:
        there = url.replace("0.0.0.0", own_address())
        assert (await get(there, "/v1/networks")).status_code == 200
        async with httpx2.AsyncClient(base_url=there, timeout=DEADLINE_S) as client:
            token = (await client.post("/v1/tokens", json=ADMIN)).json()["token"]
        problem_of(await get(there, "/v1/networks"), 401, "unauthenticated")
        problem_of(await get(url.replace("0.0.0.0", "127.0.0.1"), "/v1/networks"), 401, "unauthenticated")
    # The word of the cluster outlasts every option, in words of its own or without any.
    for insecure in (True, False):
        async with serving(store, is_insecure=insecure) as url:
            there = url.replace("0.0.0.0", own_address())
            problem_of(await get(there, "/v1/networks"), 401, "unauthenticated")
            assert (await get(there, "/v1/networks", **bearer(token))).status_code == 200
            (warning,) = (await get(there, "/v1/status", **bearer(token))).json()["warnings"]
            assert warning["code"] == "tokens-in-clear"


async def test_a_cluster_that_asks_nobody_any_more_hears_its_own_machine_alone(store: str) -> None:
    async with serving(store, is_insecure=True) as url:
        here = url.replace("0.0.0.0", "127.0.0.1")
        async with httpx2.AsyncClient(base_url=here, timeout=DEADLINE_S) as client:
            client.headers.update(bearer((await client.post("/v1/tokens", json=ADMIN)).json()["token"]))
            made = str(client.headers["authorization"])
    async with serving(store) as url:
        here, there = url.replace("0.0.0.0", "127.0.0.1"), url.replace("0.0.0.0", own_address())
        async with httpx2.AsyncClient(base_url=here, headers={"Authorization": made}, timeout=DEADLINE_S) as client:
            assert (await client.put("/v1/authentication", json={"required": False})).status_code == 200
        assert (await get(here, "/v1/networks")).status_code == 200
        told = problem_of(await get(there, "/v1/networks"), 403, "authentication-required")
        assert "--insecure" in told["fix"]
        assert (await get(there, "/v1/networks", Authorization=made)).status_code == 200
        assert (await get(there, "/livez")).status_code == 200
    with pytest.raises(InsecureListen):
        async with serving(store):
            pass


async def test_who_may_open_the_socket_file_is_an_admin_by_that(store: str, tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    async with serving(store, "127.0.0.1:0", listen_unix=path) as url:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            await client.post("/v1/tokens", json=ADMIN)
            assert (await client.get("/v1/whoami")).status_code == 401
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(base_url="http://local", transport=transport, timeout=DEADLINE_S) as client:
            who = (await client.get("/v1/whoami")).json()
            assert (who["name"], who["role"], who["via"]) == ("local", "admin", "unix")
            assert (await client.post("/v1/networks", json={"name": "n"})).status_code == 201
            item = (await client.get("/v1/journal?network=n")).json()["items"][0]
            assert item["actor"] == "local"
            assert (await client.get("/v1/whoami", headers=bearer("x"))).status_code == 401


async def test_who_is_gone_before_he_is_asked_is_nobody_and_not_the_one_at_the_socket_file(store: str) -> None:
    """The address of a peer that reset its connection cannot be read any more; that of a socket file never could."""
    async with serving(store, "127.0.0.1:0") as url:
        async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            token = (await client.post("/v1/tokens", json=ADMIN)).json()["token"]
        host, port = url.removeprefix("http://").split(":")
        body = b'{"name": "ghost"}'
        head = f"POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        for _ in range(50):
            with socket.create_connection((host, int(port))) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                raw.sendall(head.encode() + b"\r\n\r\n" + body)
        await asyncio.sleep(0)
        assert (await get(url, "/v1/networks/ghost", **bearer(token))).status_code == 404


async def test_the_first_token_comes_from_a_file_or_goes_there_once(store: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with serving(store, bootstrap_token=file) as url:
        text = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert parse_token(text) is not None
        there = url.replace("0.0.0.0", own_address())
        assert (await get(there, "/v1/whoami", **bearer(text))).json()["role"] == "admin"
        assert (await get(there, "/v1/whoami")).status_code == 401
    async with serving(store, bootstrap_token=tmp_path / "another") as url:
        assert not (tmp_path / "another").exists()
        assert (await get(url.replace("0.0.0.0", "127.0.0.1"), "/v1/whoami", **bearer(text))).status_code == 200


async def test_a_token_that_is_in_the_file_already_is_the_first_one(store: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    text = f"kvnet_0123456789ab_{'s' * 43}"
    file.write_text(text + "\n")
    file.chmod(0o600)
    async with serving(store, bootstrap_token=file) as url:
        who = (await get(url.replace("0.0.0.0", "127.0.0.1"), "/v1/whoami", **bearer(text))).json()
        assert (who["name"], who["token"]) == ("bootstrap", "0123456789ab")


@pytest.mark.parametrize(
    ("content", "mode"), [("kvnet_x_y", 0o600), (f"kvnet_0123456789ab_{'s' * 43}", 0o644), ("", 0o600)]
)
async def test_a_file_that_holds_no_token_or_is_open_to_others_makes_none(
    store: str, tmp_path: Path, content: str, mode: int
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(Invalid):
        async with serving(store, bootstrap_token=file):
            pass
    async with serving(store, "127.0.0.1:0") as url:
        assert (await get(url, "/v1/authentication")).json()["tokens"] == 0


async def test_a_file_that_cannot_be_written_makes_none(store: str, tmp_path: Path) -> None:
    with pytest.raises(StateUnusable):
        async with serving(store, bootstrap_token=tmp_path / "not" / "here"):
            pass
    assert os.listdir(tmp_path) != []


async def test_a_second_controller_makes_no_second_first_token(store: str, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    async with serving(store, bootstrap_token=files[0]) as one, serving(store, bootstrap_token=files[1]) as two:
        text = files[0].read_text().strip()
        for url in (one, two):
            listed = await get(url.replace("0.0.0.0", "127.0.0.1"), "/v1/tokens", **bearer(text))
            assert [item["name"] for item in listed.json()["items"]] == ["bootstrap"]


async def test_a_replica_that_has_not_heard_of_the_first_token_yet_waits_for_it(tmp_path: Path) -> None:
    """Two that start at once on a new store: one makes it, and the other one must not end for want of it."""
    state, place = MemoryState(), Listening("https://0.0.0.0:7480", None)
    late = Late(state)
    wanted = ServerSettings("memory://", EVERYWHERE, bootstrap_token=tmp_path / "admin")
    async with opened(MemoryStore(state)) as one, opened(late) as other:
        late.is_late = True
        await prepare(one, wanted, place)
        assert not other.credentials.are_required
        asyncio.get_running_loop().call_later(0.05, setattr, late, "is_late", False)
        await prepare(other, wanted, place)
        assert other.credentials.are_required
