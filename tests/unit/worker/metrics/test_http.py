"""Where a worker's metrics are asked for: what is answered, and what is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from kvnet.errors import Invalid, PortInUse
from worker.metrics.http import MAX_CONNECTIONS, MetricsServer, bind
from worker.ports import Time

pytestmark = pytest.mark.anyio


class Served:
    def __init__(self, port: int) -> None:
        self.port = port
        self.why = ""
        self.renders = 0

    def render(self) -> str:
        self.renders += 1
        return "kvnet_x 1\n"

    async def raw(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(5):
            found = await reader.read()
        writer.close()
        return found

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        head, _, body = (await self.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    listening = bind("127.0.0.1:0")
    made = Served(listening.getsockname()[1])
    server = MetricsServer(listening, made.render, lambda: made.why, time=Time())
    task = asyncio.create_task(server.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_metrics_and_health_are_answered(served: Served) -> None:
    assert await served.ask("/metrics") == (200, "kvnet_x 1\n")
    assert await served.ask("/metrics?x=1") == (200, "kvnet_x 1\n")
    assert await served.ask("/livez") == (200, "ok\n")
    assert await served.ask("/readyz") == (200, "ok\n")
    served.why = "no session"
    assert await served.ask("/readyz") == (503, "no session\n")
    assert await served.ask("/livez") == (200, "ok\n")
    assert await served.ask("/metrics", "HEAD") == (200, "")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("DELETE", "/livez", 405), ("GET", "/", 404), ("GET", "/x", 404)],
)
async def test_nothing_else_is(served: Served, method: str, path: str, status: int) -> None:
    assert (await served.ask(path, method))[0] == status
    assert served.renders == 0


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /metrics HTTP/2\r\n\r\n"])
async def test_nonsense_is_refused(served: Served, sent: bytes) -> None:
    assert (await served.raw(sent)).startswith(b"HTTP/1.1 400 ")


async def test_a_head_without_end_ends_its_own_connection_only(served: Served) -> None:
    found = await served.raw(b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 20_000)
    assert not found or found.startswith(b"HTTP/1.1 400 ")
    assert (await served.ask("/livez"))[0] == 200


async def test_many_scrapes_at_once_cost_one(served: Served) -> None:
    found = await asyncio.gather(*(served.ask("/metrics") for _ in range(20)))
    assert {status for status, _ in found} == {200}
    assert served.renders <= 3


async def test_whoever_holds_connections_open_does_not_grow_the_worker(served: Served) -> None:
    held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(MAX_CONNECTIONS)]
    await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    for _, other in held:
        other.close()


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} is in use"):
            bind(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "listen",
    ["", ":", "7482", "host", "127.0.0.1:", "127.0.0.1:99999", "::1:7482", "127.0.0.1:x", "no.such.host.invalid:1"],
)
async def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(Invalid):
        bind(listen)


async def test_ipv6_is_an_address_too() -> None:
    made = bind("[::1]:0")
    assert made.family == socket.AF_INET6
    made.close()
