"""Published ports and host blocks over HTTP: what is asked, what is chosen, who holds it, and how a clash is told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.under_test import Api, problem_of

pytestmark = pytest.mark.anyio


async def publish(api: Api, network: str, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"host": "h1", "name": "web", "ports": list(ports), **more}
    answer = await api.post(f"/v1/networks/{network}/endpoints", body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_published_ports_are_laid_out_and_listed_with_the_host(api: Api) -> None:
    network = await api.network()
    made = await publish(
        api,
        network["id"],
        {"port": 80, "port_end": 81, "host_port": 18080, "host_address": "127.0.0.1"},
        {"port": 53, "protocol": "udp"},
        gateway_priority=7,
    )

    assert made["gateway_priority"] == 7
    assert [(p["port"], p["protocol"], p["host_port"]) for p in made["ports"][:2]] == [
        (80, "tcp", 18080),
        (81, "tcp", 18081),
    ]
    assert made["ports"][2]["host_port"] >= 61000
    held = (await api.get("/v1/hosts/h1/ports")).json()["items"]
    assert [p["host_port"] for p in held if p["endpoint"] == made["id"]] == [
        18080,
        18081,
        made["ports"][2]["host_port"],
    ]
    (one,) = (await api.get("/v1/hosts/h1/ports?port=18081&protocol=tcp")).json()["items"]
    assert (one["endpoint_name"], one["network_name"], one["port"]) == ("web", network["name"], 81)


async def test_a_clash_is_a_conflict_that_names_the_holder(api: Api) -> None:
    network = await api.network()
    holder = await publish(api, network["id"], {"port": 80, "host_port": 18100})

    answer = await api.post(
        f"/v1/networks/{network['id']}/endpoints",
        {"host": "h1", "name": "late", "ports": [{"port": 80, "host_port": 18100}]},
    )

    problem = problem_of(answer, 409, "port-taken")
    assert problem["holder"]["endpoint"] == holder["id"]
    assert problem["holder"]["name"] == "web"
    assert problem["holder"]["network_name"] == network["name"]
    assert problem["host"] == "h1"


async def test_the_same_creation_again_is_the_same_endpoint_with_the_same_ports(api: Api) -> None:
    network = await api.network()
    first = await publish(api, network["id"], {"port": 80}, id="mine")
    body = {"host": "h1", "name": "web", "ports": [{"port": 80}], "id": "mine"}
    again = await api.post(f"/v1/networks/{network['id']}/endpoints", body)
    assert again.status_code == 200
    assert again.json()["ports"] == first["ports"]


@pytest.mark.parametrize(
    "port",
    [
        {"port": 0},
        {"port": 80, "protocol": "sctp"},
        {"port": 80, "port_end": 79},
        {"port": 80, "host_port_end": 90},
        {"port": 80, "host_address": "here"},
        {"port": 80, "port_end": 82, "host_port": 90, "host_port_end": 91},
    ],
)
async def test_a_port_that_is_none_is_pointed_at(api: Api, port: dict[str, Any]) -> None:
    network = await api.network()
    answer = await api.post(f"/v1/networks/{network['id']}/endpoints", {"host": "h1", "name": "web", "ports": [port]})
    problem = problem_of(answer, 422, "invalid")
    assert problem["errors"][0]["pointer"].startswith("/ports/0")


async def test_an_unknown_host_has_no_ports(api: Api) -> None:
    problem_of(await api.get("/v1/hosts/nobody/ports"), 404, "not-found")


async def test_blocks_of_a_routed_network_are_told_with_their_hosts(api: Api) -> None:
    made = await api.post(
        "/v1/networks",
        {"name": api.fresh(), "driver": "routed", "subnets": [{"cidr": "10.77.0.0/24"}], "block_prefix_length": 28},
    )
    assert made.status_code == 201, made.text
    network = made.json()
    one = (await api.post(f"/v1/networks/{network['id']}/endpoints", {"host": "h1", "name": "a"})).json()

    (use,) = [n for n in (await api.get("/v1/ipam")).json()["networks"] if n["id"] == network["id"]]

    assert one["address"] == "10.77.0.2"
    assert [(b["cidr"], b["host"], b["used"], b["size"]) for b in use["blocks"]] == [("10.77.0.0/28", "h1", 1, 13)]
    (holder,) = (await api.get("/v1/ipam/addresses/10.77.0.2")).json()["holders"]
    assert holder["block"]["host"] == "h1"
    assert (await api.get("/v1/ipam/check")).json()["ok"]
