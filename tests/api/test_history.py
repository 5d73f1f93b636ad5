"""GET /v1/journal: what happened to one thing, newest first, and how far back that goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.under_test import Api, problem_of

pytestmark = pytest.mark.anyio


async def kinds(api: Api, query: str) -> list[str]:
    answer = await api.get(f"/v1/journal?{query}")
    assert answer.status_code == 200, answer.text
    return [event["kind"] for event in answer.json()["items"]]


async def endpoint(api: Api, network: str, name: str, host: str = "h1", **more: Any) -> dict[str, Any]:
    made = await api.post(f"/v1/networks/{network}/endpoints", {"host": host, "name": name, **more})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def test_what_happened_to_an_address_names_each_owner_in_turn(api: Api) -> None:
    network = await api.network()
    first = await endpoint(api, network["id"], "first")
    await api.delete(f"/v1/networks/{network['id']}/endpoints/{first['id']}")
    await endpoint(api, network["id"], "second", address=first["address"], reuse=True)

    answer = (await api.get(f"/v1/journal?address={first['address']}&network={network['id']}")).json()

    owners = [(event["after"] or event["before"])["name"] for event in answer["items"]]
    assert owners == ["second", "first", "first"]
    assert all(event["request_id"] and event["actor"] for event in answer["items"])
    assert answer["kept_from"] <= answer["items"][-1]["revision"] <= answer["revision"]


async def test_every_kind_of_thing_has_its_own_history(api: Api) -> None:
    network = await api.network()
    one = await endpoint(api, network["id"], "one")
    other = await endpoint(api, network["id"], "other", "h2")

    created = ["endpoint.created", "endpoint.created", "network.created"]
    assert await kinds(api, f"network={network['name']}") == created
    assert await kinds(api, f"network={network['id']}&limit=1") == created[:1]
    assert await kinds(api, f"endpoint={one['id']}") == ["endpoint.created"]
    assert await kinds(api, f"network={network['id']}&endpoint=other") == ["endpoint.created"]
    assert await kinds(api, f"network={network['id']}&host=h2") == ["endpoint.created"]
    assert await kinds(api, f"endpoint={other['id']}&host=h1") == []


async def test_a_network_that_is_gone_has_a_history_by_its_name(api: Api) -> None:
    network = await api.network()
    await api.delete(f"/v1/networks/{network['id']}")

    told = await kinds(api, f"network={network['name']}")

    assert told[0] == "network.deleted"
    assert told[-1] == "network.created"


async def test_what_is_no_address_is_refused(api: Api) -> None:
    problem_of(await api.get("/v1/journal?address=nonsense"), 422, "invalid")
    problem_of(await api.get("/v1/journal?adress=10.0.0.1"), 422, "invalid")
