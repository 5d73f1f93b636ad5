"""`network.status` and `host.status`: what a list would say, told when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Delete, Put
from kvnet import codec, keys
from kvnet.model import Alive, Condition, NetworkObserved, Observed
from tests.api.under_test import Api, SseEvent, running, until

pytestmark = pytest.mark.anyio

LIKE_THE_ANSWER = ("name", "state", "endpoints", "hosts", "used", "size", "applied", "status")
HOST_LIKE = ("name", "alive", "state", "down_since", "incarnation", "endpoints", "networks", "lag_revisions", "status")


def of(kind: str, name: str, is_so: Callable[[dict[str, Any]], bool]) -> Callable[[SseEvent], bool]:
    def accept(event: SseEvent) -> bool:
        data = event.data
        return data.get("kind") == kind and data["after"]["name"] == name and is_so(data["after"])

    return accept


def first(after: dict[str, Any]) -> tuple[str, str]:
    condition = after["status"]["conditions"][0]
    return condition["status"], condition["reason"]


@pytest.fixture
async def alone() -> AsyncIterator[Api]:
    async with running("memory://") as api:
        yield api


async def test_what_is_told_is_what_an_answer_says_and_cannot_be_resumed_from(alone: Api) -> None:
    async with alone.events() as events, await open_store(alone.url) as store:
        network = await alone.network()
        await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "i1", 1.0)))])
        made = await alone.endpoint(network["id"], host="h1")
        applied = {network["id"]: NetworkObserved(made["version"], since=5.0, unattached=())}
        await store.commit([], [Put(keys.observed("h1"), codec.encode(Observed("h1", 5.0, applied)))])

        told = await until(
            events, of("network.status", network["name"], lambda a: a["applied"]["converged"] and a["endpoints"] == 1)
        )
        shown = (await alone.get(f"/v1/networks/{network['id']}")).json()
        assert {name: told[-1].data["after"][name] for name in LIKE_THE_ANSWER} == {
            n: shown[n] for n in LIKE_THE_ANSWER
        }
        assert (told[-1].id, told[-1].data["network"], told[-1].data["before"]) == (None, network["id"], None)


async def test_a_host_that_goes_is_told_with_everything_that_it_takes_along(alone: Api) -> None:
    async with alone.events("?kind=host.status&kind=network.status") as events, await open_store(alone.url) as store:
        network = await alone.network()
        await alone.endpoint(network["id"], host="h1")
        await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "i1", 1.0)))])
        problem = Condition("uplink-mtu", "too large", 2.0)
        seen = Observed("h1", 3.0, {network["id"]: NetworkObserved(0, (problem,))})
        await store.commit([], [Put(keys.observed("h1"), codec.encode(seen))])
        await until(events, of("host.status", "h1", lambda a: a["alive"] and len(a["status"]["conditions"]) == 3))
        await store.commit([], [Delete(keys.alive("h1"))])

        is_down = of("host.status", "h1", lambda a: first(a) == ("false", "down"))
        is_unknown = of("network.status", network["name"], lambda a: first(a) == ("unknown", "hosts-down"))
        told: list[SseEvent] = []
        while not (any(map(is_down, told)) and any(map(is_unknown, told))):
            told += await until(events, lambda e: is_down(e) or is_unknown(e))
        of_host = next(filter(is_down, told))
        shown = (await alone.get("/v1/hosts/h1")).json()
    assert {name: of_host.data["after"][name] for name in HOST_LIKE} == {name: shown[name] for name in HOST_LIKE}


async def test_many_changes_of_one_network_are_few_events_and_the_last_is_the_last_state(alone: Api) -> None:
    network = await alone.network()
    async with alone.events(f"?network={network['id']}&kind=network.status") as events:
        await until(events, lambda e: e.type == "bookmark")
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(60):
            await alone.endpoint(network["id"])
        took_s = loop.time() - began
        told = await until(events, lambda e: bool(e.data.get("after")) and e.data["after"]["endpoints"] == 60)
    assert 1 <= len(told) <= took_s + 3


async def test_whoever_does_not_ask_for_them_is_not_told(alone: Api) -> None:
    async with alone.events("?kind=network.created&kind=network.deleted") as events:
        made = await alone.network()
        await alone.endpoint(made["id"])
        await asyncio.sleep(0)
        other = await alone.network()
        told = await until(
            events, lambda e: e.data.get("kind") == "network.created" and e.data["after"]["id"] == other["id"]
        )
    assert {event.data["kind"] for event in told if event.type == "change"} == {"network.created"}
