"""A living endpoint over HTTP: the patch, its versions, what it refuses, and an address that is taken again at once."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from kvnet.client import Client
from tests.api.under_test import Api, pointers, problem_of, until

pytestmark = pytest.mark.anyio


def path_of(one: dict[str, Any]) -> str:
    return f"/v1/networks/{one['network']}/endpoints/{one['id']}"


async def patch(api: Api, one: dict[str, Any], body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await api.http.patch(path_of(one), json=body, headers=headers)


@pytest.mark.parametrize("kind", ["application/merge-patch+json", "application/json"])
async def test_a_merge_patch_changes_what_it_names(api: Api, kind: str) -> None:
    made = await api.endpoint((await api.network())["id"], labels={"a": "1", "b": "2"}, hostname="h")
    body = {"name": "web", "aliases": ["www"], "labels": {"a": None, "c": "3"}, "hostname": None}

    answer = await patch(api, made, body, **{"Content-Type": kind})

    after = answer.json()
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == f'"{after["version"]}"'
    names = {"name": "web", "aliases": ["www"], "labels": {"b": "2", "c": "3"}, "hostname": ""}
    seen = {"applied": None, "status": None}
    assert {**after, **seen} == {**made, **names, "version": after["version"], **seen}
    assert (await api.get(path_of(made))).json()["name"] == "web"
    assert (await patch(api, made, body)).json()["version"] == after["version"]


async def test_a_name_leads_to_it_if_only_one_has_it(api: Api) -> None:
    network = await api.network()
    for name in ("one", "two", "two"):
        await api.endpoint(network["id"], name=name)
    path = f"/v1/networks/{network['name']}/endpoints"

    assert (await api.http.patch(f"{path}/one", json={"name": "web"})).json()["name"] == "web"
    problem_of(await api.http.patch(f"{path}/two", json={"name": "web"}), 409, "ambiguous-name")
    problem_of(await api.http.patch(f"{path}/one", json={"name": "web"}), 404, "not-found")


async def test_an_old_version_is_refused_with_the_current_one(api: Api) -> None:
    made = await api.endpoint((await api.network())["id"])
    after = (await patch(api, made, {"name": "x"}, **{"If-Match": f'"{made["version"]}"'})).json()

    answer = await patch(api, made, {"name": "y"}, **{"If-Match": f'"{made["version"]}"'})

    problem_of(answer, 412, "precondition-failed")
    assert answer.headers["etag"] == f'"{after["version"]}"'


async def test_what_was_read_can_be_sent_back_and_what_cannot_change_is_named(api: Api) -> None:
    network = await api.network()
    ports = [{"port": 80, "host_port": 18400, "host_address": "127.0.0.1"}, {"port": 53, "protocol": "udp"}]
    made = await api.endpoint(network["id"], ports=ports, labels={"a": "1"}, aliases=["x"])
    kept = made.keys() - {"network_name", "addresses", "version", "applied", "status"}
    sent = {name: made[name] for name in kept}

    assert (await patch(api, made, sent)).json()["version"] == made["version"]
    problem = problem_of(await patch(api, made, {**sent, "host": "h2", "id": "other"}), 409, "immutable")
    assert [pointer.lstrip("#") for pointer in pointers(problem)] == ["/id", "/host"]


@pytest.mark.parametrize(
    "body",
    [
        {"colour": "red"},
        {"name": ""},
        {"name": 7},
        {"aliases": "www"},
        {"aliases": ["a", "a"]},
        {"labels": {"a": 1}},
        {"gateway_priority": 501},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 80}] * 257},
        {"address": "10.255.255.1.1"},
        {"reuse": "yes"},
        [],
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(api: Api, body: Any) -> None:
    made = await api.endpoint((await api.network())["id"])

    problem_of(await patch(api, made, body), 422, "invalid")
    assert (await api.get(path_of(made))).json()["version"] == made["version"]


async def test_ports_are_replaced_and_a_clash_names_the_holder(api: Api) -> None:
    network = await api.network()
    holder = await api.endpoint(network["id"], ports=[{"port": 80, "host_port": 18410}])
    made = await api.endpoint(network["id"], ports=[{"port": 80, "host_port": 18411}])

    problem = problem_of(await patch(api, made, {"ports": [{"port": 80, "host_port": 18410}]}), 409, "port-taken")
    assert problem["holder"]["endpoint"] == holder["id"]
    assert (await patch(api, holder, {"ports": []})).json()["ports"] == []
    after = (await patch(api, made, {"ports": [{"port": 80, "host_port": 18410}]})).json()

    assert [p["host_port"] for p in after["ports"]] == [18410]
    held = (await api.get("/v1/hosts/h1/ports?protocol=tcp")).json()["items"]
    assert {p["host_port"]: p["endpoint"] for p in held if p["network"] == network["id"]} == {18410: made["id"]}


async def test_an_event_tells_what_it_was_and_what_it_is(api: Api) -> None:
    network = await api.network()
    made = await api.endpoint(network["id"])
    async with api.events(f"?network={network['id']}") as events:
        await patch(api, made, {"name": "web"})
        told = await until(events, lambda e: e.data.get("kind") == "endpoint.changed")

    assert (told[-1].data["before"]["name"], told[-1].data["after"]["name"]) == (made["name"], "web")


async def test_a_dry_run_says_what_the_host_would_do_and_does_nothing(api: Api) -> None:
    network = await api.network()
    made = await api.endpoint(network["id"], ports=[{"port": 80, "host_port": 18421}])
    body = {"ports": [{"port": 80, "host_port": 18420}]}

    plan = (await api.http.patch(f"{path_of(made)}?dry_run=plan", json=body)).json()

    assert plan["result"]["ports"][0]["host_port"] == 18420
    assert any("18420" in op["text"] for host in plan["hosts"] for op in host["operations"]), plan["hosts"]
    cut = f"{made['name']} on h1 is no longer reached over port 18421/tcp"
    assert {"code": "endpoints-cut", "detail": cut, "host": "h1"} in plan["warnings"]
    assert (await api.get(path_of(made))).json()["ports"] == made["ports"]


async def test_who_says_reuse_gets_an_address_that_cools_down(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.91.0.0/24"}, {"cidr": "fd91::/64"}])
    fixed = {"address": "10.91.0.9", "address6": "fd91::9"}
    made = await api.endpoint(network["id"], **fixed)
    await api.delete(path_of(made))
    path = f"/v1/networks/{network['id']}/endpoints"

    problem_of(await api.post(path, {"host": "h1", "name": "again", **fixed}), 409, "address-taken")
    again = await api.post(path, {"host": "h1", "name": "again", **fixed, "reuse": True})

    assert again.status_code == 201, again.text
    assert again.json()["addresses"] == ["10.91.0.9", "fd91::9"]


async def test_the_client_changes_an_endpoint(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.92.0.0/24"}, {"cidr": "fd92::/64"}])
    made = await api.endpoint(network["id"])
    async with Client(api.url) as client:
        after = await client.update_endpoint(network["id"], made["id"], {"name": "web", "address6": "fd92::7"})
        plan = await client.plan_endpoint_update(network["id"], made["id"], {"name": "other"})

    assert (after["name"], after["address6"], after["address"]) == ("web", "fd92::7", made["address"])
    assert plan["result"] is not None
    assert plan["result"]["name"] == "other"
