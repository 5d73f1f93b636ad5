"""A real controller on a free port, asked over real HTTP, and how its answers are judged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2

from backends.open import open_store
from backends.store import Put
from controller.server import Listening, ServerSettings, serve
from controller.settings import Settings
from kvnet import codec, keys
from kvnet.model import Host

DEADLINE_S = 10.0


@dataclass(frozen=True)
class SseEvent:
    type: str
    id: int | None
    data: dict[str, Any]


@dataclass
class Api:
    """A running controller and a client of it."""

    url: str
    http: httpx2.AsyncClient
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    names: int = 0

    def fresh(self, prefix: str = "n") -> str:
        """A name that no other test of this server uses."""
        self.names += 1
        return f"{prefix}-{self.names}"

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        return await self.http.post(path, json=body, headers=headers)

    async def delete(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.delete(path, headers=headers)

    async def network(self, **more: Any) -> dict[str, Any]:
        answer = await self.post("/v1/networks", {"name": self.fresh(), **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def endpoint(self, network: str, **more: Any) -> dict[str, Any]:
        answer = await self.post(f"/v1/networks/{network}/endpoints", {"host": "h1", "name": self.fresh("e"), **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    @asynccontextmanager
    async def events(self, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[SseEvent]]:
        async with self.http.stream("GET", f"/v1/events{query}", headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield parse(response.aiter_lines())


async def parse(lines: AsyncIterator[str]) -> AsyncIterator[SseEvent]:
    """Server-sent events by hand: an independent reading of the stream."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            position = int(fields["id"]) if "id" in fields else None
            yield SseEvent(fields.get("event", "message"), position, json.loads(fields.get("data", "{}")))
            fields = {}


async def until(events: AsyncIterator[SseEvent], accept: Callable[[SseEvent], bool]) -> list[SseEvent]:
    """The events up to the first accepted one; fails after the deadline."""
    seen: list[SseEvent] = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            seen.append(event)
            if accept(event):
                return seen
    raise AssertionError(f"the stream ended after {seen}")


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that only asking tells; fails after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


def problem_of(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, after it was held against what every problem must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"/problems/{code}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body


def pointers(problem: Mapping[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


async def register(url: str, *hosts: str) -> None:
    """What workers do: each host says who it is, through the gateway."""
    store = await open_store(url)
    async with store:
        for number, name in enumerate(hosts, start=1):
            host = Host(name, ip_address(f"192.0.2.{number}"), 1500)
            await store.commit([], [Put(keys.host(name), codec.encode(host))])


@asynccontextmanager
async def running(
    store: str,
    opener: Any = None,
    listen_unix: Path | None = None,
    hosts: Sequence[str] = ("h0", "h1", "h2"),
    **settings: Any,
) -> AsyncIterator[Api]:
    """A controller on a free port for as long as the context lasts; `settings` are those of the cluster."""
    ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    cluster = Settings(**{"cool_down_s": 1.0, **settings})
    wanted = ServerSettings(store, "127.0.0.1:0", listen_unix, cluster)
    more = {"opener": opener} if opener else {}
    server = asyncio.create_task(serve(wanted, ready=ready.set_result, stop=stop, **more))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait((server, ready), return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server
        url = ready.result().url
        async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            if hosts:
                await register(url, *hosts)
            yield Api(url, http, stop)
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await server
