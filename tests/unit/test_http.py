"""The HTTP client between several controllers: who answers is asked, and who does not is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kvnet.client.places import targets_of
from kvnet.errors import Invalid
from kvnet.http import HttpClient, Lost, NotSent, Target

pytestmark = pytest.mark.anyio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def client_of(*urls: str) -> AsyncIterator[HttpClient]:
    client = HttpClient(Target.parse_all(",".join(urls)), {})
    try:
        yield client
    finally:
        await client.close()


async def closed_port() -> str:
    server = await asyncio.start_server(is_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}"


async def test_one_that_does_not_listen_is_passed_over() -> None:
    async with listening(answers) as good, client_of(await closed_port(), good) as client:
        assert (await client.request("GET", "/", b"", 5.0)).body == b"ok"


async def test_one_that_does_not_answer_is_left_for_the_other_after_one_loss() -> None:
    async with listening(is_silent) as silent, listening(answers) as good, client_of(silent, good) as client:
        with pytest.raises(Lost, match=r"no answer within 0\.05 s"):
            await client.request("GET", "/", b"", 0.05)
        assert (await client.request("GET", "/", b"", 5.0)).body == b"ok"


async def test_the_only_one_is_asked_again_whatever_it_did() -> None:
    async with listening(is_silent) as silent, client_of(silent) as client:
        for _ in range(2):
            with pytest.raises(Lost):
                await client.request("GET", "/", b"", 0.05)


async def test_that_nobody_listens_is_told_of_each() -> None:
    first, second = await closed_port(), await closed_port()
    async with client_of(first, second) as client:
        with pytest.raises(NotSent) as told:
            await client.request("GET", "/", b"", 1.0)

    for url in (first, second):
        assert url.removeprefix("http://") in str(told.value)


def test_several_controllers_are_one_address_if_their_paths_are_the_same() -> None:
    targets, prefix = targets_of("http://a:7480/kv, http://b:7480/kv")

    assert [(target.host, target.port) for target in targets] == [("a", 7480), ("b", 7480)]
    assert prefix == "/kv"
    with pytest.raises(Invalid, match="different paths"):
        targets_of("http://a:7480/kv,http://b:7480")
    with pytest.raises(Invalid, match="not the address"):
        targets_of("http://a:7480,")
