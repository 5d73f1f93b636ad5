"""A request's head has a limit, for whoever sends it: what nobody has judged yet does not fill the memory."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controller.api.heads import MAX_HEAD_BYTES
from tests import stores
from tests.api.under_test import Api

pytestmark = pytest.mark.anyio

DEADLINE_S = 20.0
FAR_TOO_MUCH = 32 * 1024 * 1024
GET = b"GET /v1/version HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/networks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b'e\r\n{"name":"web"}\r\n'


@pytest.fixture(scope=stores.module_loop_scope)
def anyio_backend() -> str:
    return "asyncio"


async def sent_until_refused(api: Api, begin: bytes, again: bytes) -> int:
    """How much of a request that never ends was taken."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = len(begin)
    try:
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                writer.write(begin)
                while taken < FAR_TOO_MUCH:
                    writer.write(again)
                    await writer.drain()
                    taken += len(again)
                await reader.read()
    finally:
        writer.close()
    return taken


async def answered(api: Api, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(request)
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (GET, b"x: a\r\n" * 10_000),
        (GET + b"x: ", b"a" * 60_000),
        (GET, b"a" * 60_000),
        (b"GET /", b"a" * 60_000),
        (b"GET /?", b"label=a&" * 8_000),
        (POST + b"e;", b"a" * 60_000),
        (POST, b"0" * 60_000),
        (POST + BODY + b"0\r\n", b"x: a\r\n" * 10_000),
        (POST + BODY + b"0\r\nx: ", b"a" * 60_000),
    ],
    ids=["fields", "field", "name", "path", "query", "extension", "length", "trailers", "trailer"],
)
async def test_what_never_ends_is_let_go_before_it_fills_anything(api: Api, begin: bytes, again: bytes) -> None:
    # What the two kernels keep between them is taken too.
    assert await sent_until_refused(api, begin, again) < FAR_TOO_MUCH
    assert (await api.http.get("/v1/version")).status_code == 200


@pytest.mark.parametrize("field", [b"x: a\r\n", b"x: %b\r\n" % (b"a" * MAX_HEAD_BYTES)], ids=["many", "one"])
async def test_a_head_that_is_too_long_is_told_so(api: Api, field: bytes) -> None:
    head = GET + field * (MAX_HEAD_BYTES // len(field) + 1) + b"\r\n"
    assert (await answered(api, head)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_is_long_is_served_again_and_again(api: Api) -> None:
    head = GET + b"x: %b\r\n\r\n" % (b"a" * (MAX_HEAD_BYTES - 100))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(5):
                writer.write(head)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readuntil(b"}")
    finally:
        writer.close()


async def test_what_stands_behind_a_body_is_no_field_of_the_request(api: Api) -> None:
    told = await answered(api, POST + BODY + b"0\r\nx-request-id: smuggled\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 201 ")
    assert b"smuggled" not in told
