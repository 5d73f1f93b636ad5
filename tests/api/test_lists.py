"""Lists: paged, filtered, in order, and never more than one store read however long they are."""

from __future__ import annotations

from typing import Any

import pytest

from backends.memory import MemoryStore
from backends.passing import PassingStore
from backends.store import Entry, Snapshot, Store
from tests.api.under_test import Api, problem_of, running

pytestmark = pytest.mark.anyio

MANY = 230


class CountingStore(PassingStore):
    """A store that counts who reads."""

    reads = 0

    async def get(self, key: str) -> Entry | None:
        self.reads += 1
        return await super().get(key)

    async def list(self, prefix: str) -> Snapshot:
        self.reads += 1
        return await super().list(prefix)


async def filled(api: Api) -> dict[str, Any]:
    network = await api.network(labels={"team": "red"})
    items = [{"host": f"h{i % 3}", "name": f"e{i:03}", "labels": {"n": str(i % 2)}} for i in range(MANY)]
    made = await api.post(f"/v1/networks/{network['id']}/endpoints", {"items": items})
    assert {item["status"] for item in made.json()["items"]} == {201}
    return network


async def walk(api: Api, path: str, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.get(f"{path}?limit=100{query}{cursor}")).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        assert len(page["items"]) == 100
        cursor = f"&cursor={page['next_cursor']}"


async def test_a_long_list_comes_in_pages_whole_and_in_order(api: Api) -> None:
    network = await filled(api)
    items = await walk(api, f"/v1/networks/{network['id']}/endpoints")

    assert [item["name"] for item in items] == [f"e{i:03}" for i in range(MANY)]


async def test_a_list_answers_filters_together(api: Api) -> None:
    network = await filled(api)
    only = f"network={network['name']}"

    on_h0 = (await api.get(f"/v1/endpoints?{only}&host=h0&limit=500")).json()["items"]
    assert {item["host"] for item in on_h0} == {"h0"}
    assert len(on_h0) == len(range(0, MANY, 3))
    odd = (await api.get(f"/v1/endpoints?{only}&label=n=1&host=h0&limit=500")).json()["items"]
    assert len(odd) == len(range(3, MANY, 6))
    address = on_h0[0]["address"]
    assert [item["id"] for item in (await api.get(f"/v1/endpoints?address={address}")).json()["items"]] == [
        on_h0[0]["id"]
    ]
    assert (await api.get("/v1/endpoints?address=192.0.2.1")).json()["items"] == []
    red = (await api.get(f"/v1/networks?label=team=red&label=team&name={network['name']}")).json()["items"]
    assert [item["id"] for item in red] == [network["id"]]
    assert (await api.get(f"/v1/networks?label=team=blue&name={network['name']}")).json()["items"] == []
    assert (await api.get("/v1/networks?driver=bridge&label=team")).json()["items"] == []


async def test_a_list_of_an_unknown_network_is_not_found(api: Api) -> None:
    problem_of(await api.get("/v1/networks/nothing/endpoints"), 404, "not-found")
    problem_of(await api.get("/v1/endpoints?network=nothing"), 404, "not-found")


async def test_a_cursor_of_another_question_is_refused(api: Api) -> None:
    await filled(api)
    cursor = (await api.get("/v1/endpoints?limit=1")).json()["next_cursor"]

    problem_of(await api.get(f"/v1/endpoints?limit=1&host=h1&cursor={cursor}"), 422, "invalid")


async def test_no_list_reads_the_store_more_than_once() -> None:
    counting = CountingStore(MemoryStore())

    async def opener(_: str) -> Store:
        return counting

    async with running("memory://", opener=opener) as api:
        network = await filled(api)
        for path in (
            "/v1/networks",
            "/v1/endpoints?limit=500",
            f"/v1/networks/{network['id']}/endpoints?limit=500",
            f"/v1/networks/{network['id']}",
            f"/v1/networks/{network['id']}/reservations",
            "/v1/hosts",
            "/v1/pools",
            "/v1/ipam",
            "/v1/status",
            "/metrics",
        ):
            before = counting.reads
            assert (await api.get(path)).status_code == 200
            assert counting.reads - before <= 1, path
