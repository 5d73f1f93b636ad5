"""The event stream: complete, in order, resumable across restarts, and ending when the server does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Unavailable
from controller.api.answers import EventOut
from tests.api.under_test import DEADLINE_S, Api, SseEvent, eventually, problem_of, running, until

pytestmark = pytest.mark.anyio


def created(event: SseEvent) -> str:
    """The name of the network whose creation this tells, or ""."""
    is_creation = event.type == "change" and event.data["kind"] == "network.created"
    return str(event.data["after"]["name"]) if is_creation else ""


async def revision(api: Api) -> int:
    return int((await api.get("/v1/status")).json()["revision"])


async def test_what_happens_is_told_as_it_happens(api: Api) -> None:
    async with api.events() as events:
        await until(events, lambda e: e.type == "bookmark")
        network = await api.network()
        told = await until(events, lambda e: created(e) == network["name"])

    event = EventOut.model_validate(told[-1].data)
    assert told[-1].id == event.revision
    assert event.before is None
    assert event.network == network["id"]


async def test_the_past_is_told_from_any_revision_and_then_a_bookmark(api: Api) -> None:
    start = await revision(api)
    names = [(await api.network())["name"] for _ in range(3)]

    async with api.events(f"?since={start}") as events:
        told = await until(events, lambda e: created(e) == names[-1])
    assert [name for name in map(created, told) if name in names] == names
    async with api.events(f"?since={told[-1].id}") as events:
        rest = await until(events, lambda e: e.type == "bookmark")
    assert [e.type for e in rest] == ["bookmark"]
    assert rest[0].id is not None
    assert rest[0].id >= (told[-1].id or 0)


async def test_last_event_id_goes_before_since(api: Api) -> None:
    first, second = await api.network(), await api.network()

    async with api.events("?since=0", **{"Last-Event-ID": str(first["version"])}) as events:
        told = await until(events, lambda e: created(e) == second["name"])
    assert created(told[0]) == second["name"]


async def test_filters_leave_out_the_rest(api: Api) -> None:
    start = await revision(api)
    mine, other = await api.network(), await api.network()
    endpoint = await api.endpoint(mine["id"])
    await api.endpoint(other["id"])

    async with api.events(f"?since={start}&network={mine['name']}") as events:
        told = await until(events, lambda e: e.data.get("kind") == "endpoint.created")
    assert {e.data["network"] for e in told if e.type == "change"} == {mine["id"]}
    async with api.events(f"?since={start}&network={mine['id']}&kind=endpoint") as events:
        told = [e for e in await until(events, lambda e: e.type == "change") if e.type == "change"]
    assert [e.data["kind"] for e in told] == ["endpoint.created"]
    assert told[0].data["after"]["id"] == endpoint["id"]


async def test_a_stream_resumes_across_a_restart_without_a_gap_or_a_repeat(shared_store: str) -> None:
    async with running(shared_store) as api:
        async with api.events() as events:
            await until(events, lambda e: e.type == "bookmark")
            before = await api.network()
            seen = (await until(events, lambda e: created(e) == before["name"]))[-1]
        missed = await api.network()
    async with running(shared_store) as api, api.events(**{"Last-Event-ID": str(seen.id)}) as events:
        told = await until(events, lambda e: created(e) == missed["name"])
        after = await api.network(name="after")
        told += await until(events, lambda e: created(e) == "after")
    assert [name for name in map(created, told) if name] == [missed["name"], after["name"]]


async def test_open_streams_do_not_hold_the_server_up() -> None:
    async with running("memory://") as api, AsyncExitStack() as held:
        streams = [await held.enter_async_context(api.events()) for _ in range(5)]
        for stream in streams:
            await until(stream, lambda e: e.type == "bookmark")
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        api.stop.set()

        async def ends(stream: Any) -> float:
            async for _ in stream:
                pass
            return loop.time() - asked_at

        async with asyncio.timeout(DEADLINE_S):
            waited = await asyncio.gather(*(ends(stream) for stream in streams))
    assert max(waited) < 0.5
    assert loop.time() - asked_at < 1.0


async def test_watches_of_the_store_gateway_do_not_hold_the_server_up_either() -> None:
    loop = asyncio.get_running_loop()
    async with running("memory://") as api:
        store = await open_store(api.url)
        async with store:
            watch = store.watch("hosts/", 0)
            await anext(watch)
            asked_at = loop.time()
            api.stop.set()

            async def follow() -> None:
                while True:
                    await asyncio.wait_for(anext(watch), DEADLINE_S)

            with pytest.raises(Unavailable):
                await follow()
    assert loop.time() - asked_at < 1.0


async def test_a_reader_that_leaves_frees_its_stream(api: Api) -> None:
    async def streams() -> float:
        lines = (await api.get("/metrics")).text.splitlines()
        return float(next(line for line in lines if line.startswith("kvnet_sse_streams ")).split()[1])

    before = await streams()
    async with api.events() as events:
        await until(events, lambda e: e.type == "bookmark")
        assert await streams() == before + 1

    async def is_freed() -> bool:
        return await streams() == before

    await eventually(is_freed)


async def test_a_position_that_is_no_longer_kept_is_refused_before_the_stream(shared_store: str) -> None:
    async with running(shared_store, journal_entries=5, upkeep_interval_s=0.05) as api:
        start = await revision(api)
        async with asyncio.timeout(DEADLINE_S):
            while (answer := await api.http.send(probe(api, start), stream=True)).status_code == 200:
                await answer.aclose()
                await api.network()
            await answer.aread()
    problem_of(answer, 410, "gone")


def probe(api: Api, since: int) -> Any:
    return api.http.build_request("GET", f"/v1/events?since={since}")
