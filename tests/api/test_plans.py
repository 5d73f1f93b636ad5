"""`dry_run=plan` over HTTP: what would come of a change, host by host, and nothing changed by asking."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.under_test import Api, problem_of

pytestmark = pytest.mark.anyio


async def plan(api: Api, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = await api.http.request(method, f"{path}?dry_run=plan", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert told["dry_run"] == "plan"
    return told


def kinds(host: dict[str, Any]) -> set[tuple[str, str]]:
    return {(operation["action"], operation["kind"]) for operation in host["operations"]}


async def test_a_network_can_be_planned_and_is_not_made(api: Api) -> None:
    name = api.fresh()
    told = await plan(api, "POST", "/v1/networks", {"name": name, "driver": "overlay"})

    assert told["result"]["name"] == name
    assert told["hosts"] == []
    assert kinds(told["on_first_endpoint"]) >= {("create", "bridge"), ("create", "vxlan"), ("add", "nft")}
    problem_of(await api.get(f"/v1/networks/{name}"), 404, "not-found")
    made = await api.network(name=name)
    assert [s["cidr"] for s in made["subnets"]] == [s["cidr"] for s in told["result"]["subnets"]]


async def test_an_endpoint_is_planned_on_every_host_of_its_network(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    await api.endpoint(network["id"], host="h2")
    told = await plan(api, "POST", path, {"host": "h1", "name": "web", "ports": [{"port": 80, "host_port": 18099}]})

    assert [host["host"] for host in told["hosts"]] == ["h1", "h2"]
    assert ("create", "interface") in kinds(told["hosts"][0])
    assert any("18099" in operation["text"] for operation in told["hosts"][0]["operations"])
    assert kinds(told["hosts"][1]) >= {("set", "fdb"), ("set", "neighbour")}
    assert told["operations"] == sum(len(host["operations"]) for host in told["hosts"])
    assert len((await api.get(path)).json()["items"]) == 1
    assert (await api.get("/v1/hosts/h1/ports")).text.count("18099") == 0


async def test_many_endpoints_are_planned_together(api: Api) -> None:
    network = await api.network()
    items = [{"host": "h1", "name": f"e{i}"} for i in range(3)]
    told = await plan(api, "POST", f"/v1/networks/{network['id']}/endpoints", {"items": items})
    assert len({item["address"] for item in told["result"]["items"]}) == 3


async def test_deletions_are_planned_and_what_they_cut_is_said(api: Api) -> None:
    network = await api.network()
    endpoint = await api.endpoint(network["id"])
    path = f"/v1/networks/{network['id']}"
    told = await plan(api, "DELETE", f"{path}/endpoints/{endpoint['id']}")

    assert ("delete", "bridge") in kinds(told["hosts"][0])
    assert "endpoints-cut" in [warning["code"] for warning in told["warnings"]]
    assert (await api.get(f"{path}/endpoints/{endpoint['id']}")).status_code == 200
    problem_of(await api.http.delete(f"{path}?dry_run=plan"), 409, "network-in-use")


async def test_options_of_a_living_network_are_planned(api: Api) -> None:
    network = await api.network()
    await api.endpoint(network["id"])
    path = f"/v1/networks/{network['id']}"
    told = await plan(api, "PATCH", path, {"icc": False, "mtu": 1300})

    assert told["result"]["icc"] is False
    assert any("isolated: False -> True" in o["text"] for o in told["hosts"][0]["operations"])
    assert "endpoints-cut" in [warning["code"] for warning in told["warnings"]]
    assert (await api.get(path)).json()["version"] == network["version"]


async def test_peers_are_planned(api: Api) -> None:
    one, two = await api.network(), await api.network()
    for network in (one, two):
        await api.endpoint(network["id"])
    told = await plan(api, "POST", f"/v1/networks/{one['id']}/peers/{two['id']}")

    assert any(operation["target"] == "pairs" for operation in told["hosts"][0]["operations"])
    assert (await api.get(f"/v1/networks/{one['id']}")).json()["peers"] == []


async def test_what_would_be_refused_is_refused_in_a_plan_too(api: Api) -> None:
    network = await api.network()
    answer = await api.post("/v1/networks?dry_run=plan", {"name": network["name"]})
    problem_of(answer, 409, "name-taken")
    problem_of(await api.post("/v1/networks?dry_run=maybe", {"name": api.fresh()}), 422, "invalid")


async def test_pools_reservations_holds_and_hosts_are_planned_too(api: Api) -> None:
    network = await api.network()
    await api.endpoint(network["id"], host="h1")
    pool = {"name": f"pool-{network['name']}", "cidr": "172.29.0.0/20", "prefix_length": 24}
    path = f"/v1/networks/{network['id']}/reservations"

    told = await plan(api, "POST", "/v1/pools", pool)
    assert told["result"]["cidr"] == pool["cidr"]
    problem_of(await api.get(f"/v1/pools/{pool['name']}"), 404, "not-found")
    reserved = await plan(api, "POST", path, {"name": "printer"})
    assert reserved["result"]["address"]
    assert (await api.get(path)).json()["items"] == []
    held = await plan(api, "POST", "/v1/holds", {"host": "h1"})
    problem_of(await api.get(f"/v1/holds/{held['result']['id']}"), 404, "not-found")
    problem_of(await api.http.delete("/v1/hosts/h1?dry_run=plan"), 409, "host-in-use")
    problem_of(await api.http.delete("/v1/pools/default?dry_run=plan"), 409, "pool-in-use")
