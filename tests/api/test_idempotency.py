"""The same request again is the same object, whoever repeats it and whyever."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.under_test import Api, pointers, problem_of

pytestmark = pytest.mark.anyio


async def test_the_same_id_and_content_again_is_the_same_network(api: Api) -> None:
    body = {"name": api.fresh(), "id": "00000000abcd"}
    first, second = await api.post("/v1/networks", body), await api.post("/v1/networks", body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    other = await api.post("/v1/networks", {**body, "internal": True})
    problem_of(other, 409, "id-taken")
    await api.delete("/v1/networks/00000000abcd")


async def test_an_idempotency_key_makes_a_repeated_creation_the_same_network(api: Api) -> None:
    body = {"name": api.fresh()}
    key = {"Idempotency-Key": api.fresh("key")}
    first, second = await api.post("/v1/networks", body, **key), await api.post("/v1/networks", body, **key)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


async def test_an_idempotency_key_for_another_request_is_refused(api: Api) -> None:
    key = {"Idempotency-Key": api.fresh("key")}
    await api.post("/v1/networks", {"name": api.fresh()}, **key)
    problem = problem_of(await api.post("/v1/networks", {"name": api.fresh()}, **key), 422, "idempotency-key-reused")

    assert pointers(problem) == ["/header/Idempotency-Key"]


async def test_racing_repeats_of_one_creation_make_one_endpoint(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    key = {"Idempotency-Key": api.fresh("key")}
    made = await asyncio.gather(*(api.post(path, {"host": "h1", "name": "web"}, **key) for _ in range(16)))

    assert {answer.status_code for answer in made} <= {200, 201}
    assert len({answer.json()["id"] for answer in made}) == 1
    assert len((await api.get(path)).json()["items"]) == 1


async def test_one_key_on_two_networks_makes_two_endpoints(api: Api) -> None:
    key = {"Idempotency-Key": api.fresh("key")}
    ids = set()
    for network in (await api.network(), await api.network()):
        answer = await api.post(f"/v1/networks/{network['name']}/endpoints", {"host": "h1", "name": "web"}, **key)
        assert answer.status_code == 201
        ids.add(answer.json()["id"])

    assert len(ids) == 2


async def test_a_repeated_list_of_endpoints_is_the_same_endpoints(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    key = {"Idempotency-Key": api.fresh("key")}
    body = {"items": [{"host": "h1", "name": "twin"}, {"host": "h1", "name": "twin"}]}
    first, second = (await api.post(path, body, **key)).json(), (await api.post(path, body, **key)).json()

    assert [item["status"] for item in first["items"]] == [201, 201]
    assert [item["status"] for item in second["items"]] == [200, 200]
    assert [item["endpoint"]["id"] for item in first["items"]] == [item["endpoint"]["id"] for item in second["items"]]
    changed = {"items": [{"host": "h2", "name": "twin"}, {"host": "h1", "name": "twin"}]}
    third = (await api.post(path, changed, **key)).json()["items"]
    assert third[0]["status"] == 422
    assert third[0]["problem"]["code"] == "idempotency-key-reused"
    assert third[1]["status"] == 200


async def test_pools_and_reservations_are_idempotent_by_name(api: Api) -> None:
    pool = {"name": api.fresh("pool"), "cidr": f"100.101.{api.names % 256}.0/24", "prefix_length": 26}
    assert [(await api.post("/v1/pools", pool)).status_code for _ in range(2)] == [201, 200]
    network = await api.network()
    path = f"/v1/networks/{network['id']}/reservations"
    made = [await api.post(path, {"name": "printer"}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 200]
    assert made[0].json() == made[1].json()
