"""A living network over HTTP: the patch, its versions, what it refuses; and peers."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.api.under_test import Api, problem_of

pytestmark = pytest.mark.anyio


async def patch(api: Api, network: dict[str, Any], body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await api.http.patch(f"/v1/networks/{network['id']}", json=body, headers=headers)


@pytest.mark.parametrize("kind", ["application/merge-patch+json", "application/json"])
async def test_a_merge_patch_changes_what_it_names(api: Api, kind: str) -> None:
    made = await api.network(labels={"a": "1", "b": "2"}, mtu=1400)
    body = {"labels": {"a": None, "c": "3"}, "mtu": None, "icc": False}

    answer = await patch(api, made, body, **{"Content-Type": kind})

    after = answer.json()
    assert answer.status_code == 200, answer.text
    assert (after["labels"], after["mtu"], after["icc"]) == ({"b": "2", "c": "3"}, None, False)
    assert answer.headers["etag"] == f'"{after["version"]}"'
    assert after["version"] > made["version"]
    assert (await patch(api, made, body)).json()["version"] == after["version"]


async def test_an_old_version_is_refused_with_the_current_one(api: Api) -> None:
    made = await api.network()
    after = (await patch(api, made, {"mtu": 1400}, **{"If-Match": f'"{made["version"]}"'})).json()

    answer = await patch(api, made, {"mtu": 1300}, **{"If-Match": f'"{made["version"]}"'})

    problem_of(answer, 412, "precondition-failed")
    assert answer.headers["etag"] == f'"{after["version"]}"'


async def test_all_that_cannot_change_is_named(api: Api) -> None:
    made = await api.network()

    problem = problem_of(
        await patch(api, made, {"driver": "bridge", "bridge_name": "br-x", "name": made["name"]}), 409, "immutable"
    )

    assert {e["pointer"].lstrip("#") for e in problem["errors"]} == {"/driver", "/bridge_name"}


async def test_what_was_read_can_be_sent_back(api: Api) -> None:
    made = await api.network()
    sent = {name: made[name] for name in ("id", "name", "driver", "internal", "vni", "uplink", "peers", "shim", "mtu")}

    assert (await patch(api, made, sent)).json()["version"] == made["version"]


async def test_an_unknown_member_of_a_patch_is_refused(api: Api) -> None:
    made = await api.network()

    problem_of(await patch(api, made, {"colour": "red"}), 422, "invalid")


async def test_a_subnet_grows_and_another_comes_and_goes(api: Api) -> None:
    made = await api.network(subnets=[{"cidr": "10.61.0.0/24", "reserved": {"printer": "10.61.0.9"}}])
    both = {"subnets": [{"cidr": "10.61.0.0/23"}, {"cidr": "fd61::/64"}]}

    grown = (await patch(api, made, both)).json()
    alone = (await patch(api, made, {"subnets": [{"cidr": "10.61.0.0/23"}]})).json()

    assert [s["cidr"] for s in grown["subnets"]] == ["10.61.0.0/23", "fd61::/64"]
    assert grown["subnets"][0]["reserved"] == {"printer": "10.61.0.9"}
    assert grown["ipv6"] is True
    assert [s["cidr"] for s in alone["subnets"]] == ["10.61.0.0/23"]
    taken = await api.post("/v1/networks", {"name": api.fresh(), "subnets": [{"cidr": "10.61.1.0/24"}]})
    problem_of(taken, 409, "subnet-taken")


async def test_a_network_that_is_not_there_cannot_be_changed(api: Api) -> None:
    problem_of(await api.http.patch("/v1/networks/nowhere", json={"mtu": 1400}), 404, "not-found")


async def test_peers_are_shown_on_both_sides_until_they_are_apart(api: Api) -> None:
    a, b = await api.network(), await api.network()
    path = f"/v1/networks/{a['name']}/peers/{b['id']}"

    first, again = await api.post(path), await api.post(path)
    shown = [(await api.get(f"/v1/networks/{n['id']}")).json()["peers"] for n in (a, b)]
    gone = [(await api.delete(path)).status_code for _ in range(2)]

    assert (first.status_code, again.status_code) == (201, 200)
    assert shown == [[{"id": b["id"], "name": b["name"]}], [{"id": a["id"], "name": a["name"]}]]
    assert gone == [204, 204]
    assert (await api.get(f"/v1/networks/{a['id']}")).json()["peers"] == []


async def test_what_cannot_be_a_peer_says_why(api: Api) -> None:
    a, inside = await api.network(), await api.network(internal=True)

    problem = problem_of(await api.post(f"/v1/networks/{a['id']}/peers/{inside['id']}"), 422, "invalid")
    assert "internal" in problem["detail"]
    problem_of(await api.post(f"/v1/networks/{a['id']}/peers/{a['id']}"), 422, "invalid")
    problem_of(await api.post(f"/v1/networks/{a['id']}/peers/nowhere"), 404, "not-found")


async def test_dockers_options_are_the_fields(api: Api) -> None:
    options = {
        "com.docker.network.bridge.name": "br-api",
        "com.docker.network.bridge.enable_icc": "0",
        "com.docker.network.bridge.enable_ip_masquerade": "False",
        "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.container_iface_prefix": "net",
    }

    made = await api.network(driver="bridge", options=options)

    assert made["options"] == options
    assert (made["bridge_name"], made["icc"], made["masquerade"]) == ("br-api", False, False)
    assert (made["host_binding"], made["mtu"], made["interface_prefix"]) == ("127.0.0.1", 1400, "net")
    taken = problem_of(
        await api.post("/v1/networks", {"name": api.fresh(), "bridge_name": "br-api"}), 409, "bridge-name-taken"
    )
    assert made["name"] in taken["detail"]
    assert (await api.delete(f"/v1/networks/{made['id']}")).status_code == 204


async def test_routed_networks_have_blocks_and_no_gateway_of_their_own(api: Api) -> None:
    made = await api.network(driver="routed", subnets=[{"cidr": "10.62.0.0/20"}], cross_segment="tunnel")

    assert (made["block_prefix_length"], made["block_prefix_length6"], made["cross_segment"]) == (26, None, "tunnel")
    assert made["subnets"][0]["gateway"] is None
    assert made["vni"] is not None


async def test_a_transparent_network_has_the_physical_gateway_or_none(api: Api) -> None:
    subnet = {"cidr": "10.63.0.0/24", "range": "10.63.0.128/26"}

    made = await api.network(driver="transparent", uplink="eth1", subnets=[subnet])
    parent = {"options": {"parent": "eth2", "macvlan_mode": "bridge"}}
    named = await api.network(
        driver="transparent", subnets=[{"cidr": "10.64.0.0/24", "gateway": "10.64.0.254"}], **parent
    )

    assert (made["subnets"][0]["gateway"], made["uplink_mode"], made["vni"]) == (None, "macvlan", None)
    assert (named["subnets"][0]["gateway"], named["uplink"]) == ("10.64.0.254", "eth2")
