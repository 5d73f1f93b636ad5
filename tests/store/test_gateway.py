"""The gateway's own troubles: what lies between it and the controller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backends.gateway import GatewayStore
from backends.mirror import Mirror
from backends.open import open_store
from backends.store import Broken, Put, Refused, SessionLost, Store, Unavailable, Unknown
from kvnet.errors import Invalid
from tests.store.clock import VirtualClock
from tests.store.harness import Controller
from tests.store.proxy import Proxy
from tests.store.watching import until, watching

pytestmark = pytest.mark.anyio


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    clock = VirtualClock()
    controller = Controller(tmp_path / "store.db", tmp_path / "server", clock)
    await controller.start()
    yield controller
    await controller.stop()


@pytest.fixture
async def proxy(controller: Controller, tmp_path: Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(tmp_path / "s", tmp_path / "server")
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def store(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Store]:
    async with GatewayStore(f"unix://{tmp_path / 's'}", silence_s=1) as store:
        yield store


@asynccontextmanager
async def answering(folder: Path, answer: bytes) -> AsyncIterator[GatewayStore]:
    """A client of a server that says the same to everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / "fake"))
    async with server, GatewayStore(f"unix://{folder / 'fake'}") as store:
        yield store


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_nobody_there_is_unavailable_and_nothing_was_written(tmp_path: Path) -> None:
    async with GatewayStore(f"unix://{tmp_path / 'nobody'}") as store:
        for call in _calls(store):
            with pytest.raises(Unavailable, match="nobody"):
                await call()


def _calls(store: Store) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: store.get("k"),
        lambda: store.list("k"),
        lambda: store.commit([], [Put("k", b"")]),
        lambda: store.session(10),
        lambda: anext(store.watch("k", 0)),
    ]


async def test_a_connection_that_breaks_under_a_commit_is_unknown_and_under_a_read_unavailable(tmp_path: Path) -> None:
    async with answering(tmp_path, b"") as store:
        with pytest.raises(Unknown):
            await store.commit([], [Put("k", b"")])
        with pytest.raises(Unavailable):
            await store.get("k")


@pytest.mark.parametrize(
    ("answer", "of_commit", "of_get"),
    [
        (http("502 Bad Gateway", b"<html>"), Unknown, Unavailable),
        (http("500 Internal Server Error", b"oops"), Unknown, Unavailable),
        (http("200 OK", b"not json"), Unknown, Unavailable),
        (http("200 OK", b'{"hello":1}'), Unknown, None),
        (http("401 Unauthorized", b"{}"), Refused, Refused),
        (http("429 Too Many Requests", b'{"code":"rate-limited"}'), Unavailable, Unavailable),
        (http("404 Not Found", b"nginx"), Broken, Broken),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Unknown, Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut", Unknown, Unavailable),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Unknown, Unavailable),
    ],
)
async def test_answers_of_something_else_are_never_taken_for_the_stores(
    tmp_path: Path, answer: bytes, of_commit: type[Exception], of_get: type[Exception] | None
) -> None:
    async with answering(tmp_path, answer) as store:
        with pytest.raises(of_commit):
            await store.commit([], [Put("k", b"")])
        if of_get is not None:
            with pytest.raises(of_get):
                await store.get("k")


async def test_a_lost_answer_is_unknown_and_the_write_is_there(proxy: Proxy, store: Store) -> None:
    proxy.loses = 1
    with pytest.raises(Unknown):
        await store.commit([], [Put("k", b"1")])

    entry = await store.get("k")
    assert entry is not None
    assert entry.value == b"1"


async def test_a_half_open_watch_is_noticed(proxy: Proxy, store: Store) -> None:
    async with watching(store, "", 0) as watcher:
        assert watcher.error is None
        proxy.is_silent = True
        await watcher.until(lambda: watcher.error is not None)

        assert isinstance(watcher.error, Unavailable)


async def test_a_quiet_watch_hears_that_the_controller_is_there(store: Store) -> None:
    async with watching(store, "", 0) as watcher:
        await watcher.until(lambda: len(watcher.batches) >= 8)  # longer than the silence it bears

        assert watcher.error is None


async def test_a_mirror_survives_a_restart_of_the_controller(controller: Controller, store: Store) -> None:
    mirror = Mirror(store, "m/")
    task = asyncio.create_task(mirror.run())
    await store.commit([], [Put("m/a", b"")])
    await until(lambda: "m/a" in mirror.entries)
    await controller.stop()
    await until(lambda: mirror.stale_since is not None)
    await controller.start()
    assert controller.store is not None
    await controller.store.commit([], [Put("m/b", b"")])

    await until(lambda: "m/b" in mirror.entries)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_next_controller_serves_when_the_first_is_gone(controller: Controller, tmp_path: Path) -> None:
    async with GatewayStore(f"unix://{tmp_path / 'gone'},unix://{tmp_path / 'server'}") as store:
        session = await store.session(10)
        await store.commit([], [Put("k", b"", session.id)])
        await session.close()

        assert await store.get("k") is None


async def test_a_session_that_another_replica_opened_is_refreshed(controller: Controller, tmp_path: Path) -> None:
    clock = VirtualClock()
    replica = Controller(tmp_path / "store.db", tmp_path / "replica", clock)
    await replica.start()
    async with GatewayStore(f"unix://{tmp_path / 'server'}") as first:
        session = await first.session(10)
        async with GatewayStore(f"unix://{tmp_path / 'replica'}") as second:
            resumed = await second.session(10, resume=session.id)
            await resumed.close()
        with pytest.raises(SessionLost):
            await first.session(10, resume=session.id)
    await replica.stop()


@pytest.mark.parametrize("url", ["http://", "ftp://h", "http://h/path", "unix://", "h:80", "http://h:port"])
async def test_what_is_not_a_controller_url_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        GatewayStore(url)


@pytest.mark.parametrize("url", ["nothing", "", "redis://h", "sqlite://h/x.db", "sqlite:///", "http://h/x"])
async def test_what_is_not_a_store_url_is_refused_with_a_fix(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        await open_store(url)

    assert refused.value.fix


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("get", b""),
        ("get", b"{}"),
        ("get", b"[]"),
        ("get", b'{"key": 7}'),
        ("list", b'{"prefix": null}'),
        ("commit", b'{"checks": [], "writes": [{"write": "put", "key": "k", "value": "%%%"}]}'),
        ("commit", b'{"checks": [], "writes": [{"write": "move", "key": "k"}]}'),
        ("commit", b'{"checks": [{"check": "unchanged", "key": "k", "version": true}], "writes": []}'),
        ("commit", b'{"checks": [], "writes": [{"write": "put", "key": "/k", "value": ""}]}'),
        ("commit", b"\xff\xfe"),
        ("watch", b'{"prefix": "k"}'),
        ("watch", b'{"watches": []}'),
        ("watch", b'{"watches": [{"prefix": "k", "after": 0}]}'),
        ("watch", b'{"watches": [{"id": 1, "prefix": "k", "after": 0}, {"id": 1, "prefix": "m", "after": 0}]}'),
        ("watch", b'{"watches": {"id": 1}}'),
        ("sessions", b'{"ttl_s": 1}'),
        ("sessions", b'{"ttl_s": "10"}'),
    ],
)
async def test_malformed_requests_are_refused_and_change_nothing(
    controller: Controller, tmp_path: Path, path: str, body: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "server"))
    writer.write(b"POST /v1/store/%s HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()

    assert head.split()[1] == b"422"
    assert b"application/problem+json" in head
    problem = json.loads(answer)
    assert (problem["code"], problem["status"]) == ("invalid", 422)
    assert problem["detail"]
    assert controller.store is not None
    assert (await controller.store.list("")).entries == ()
