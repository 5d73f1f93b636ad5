"""Everything that can be wrong with a request: one problem, its own code, the field named, nothing changed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from controller.api import errors as api_errors
from controller.api.middleware import MAX_BODY_BYTES
from kvnet import errors
from kvnet.errors import KvnetError
from tests.api.under_test import Api, pointers, problem_of

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}

BAD_NETWORKS: list[tuple[str, dict[str, Any], str]] = [
    ("no name", {"driver": "overlay"}, "/name"),
    ("empty name", {"name": ""}, "/name"),
    ("shell in a name", {"name": "a;rm -rf /"}, "/name"),
    ("path in a name", {"name": "../../etc"}, "/name"),
    ("nft in a name", {"name": 'a" drop'}, "/name"),
    ("newline in a name", {"name": "a\nb"}, "/name"),
    ("trailing newline", {"name": "a\n"}, "/name"),
    ("null byte", {"name": "a\0b"}, "/name"),
    ("long name", {"name": "a" * 64}, "/name"),
    ("name of another type", {"name": 5}, "/name"),
    ("unknown field", {"name": "x", "subnet": "10.0.0.0/24"}, "/subnet"),
    ("unknown field inside", {"name": "x", "subnets": [{"cidr": "10.5.0.0/24", "gw": "10.5.0.1"}]}, "/subnets/0/gw"),
    ("not a CIDR", {"name": "x", "subnets": [{"cidr": "banana"}]}, "/subnets/0/cidr"),
    ("host bits", {"name": "x", "subnets": [{"cidr": "10.5.0.1/24"}]}, "/subnets/0/cidr"),
    ("slash 31", {"name": "x", "subnets": [{"cidr": "10.5.0.0/31"}]}, "/subnets/0/cidr"),
    ("slash 32", {"name": "x", "subnets": [{"cidr": "10.5.0.0/32"}]}, "/subnets/0/cidr"),
    ("slash 0", {"name": "x", "subnets": [{"cidr": "0.0.0.0/0"}]}, "/subnets/0/cidr"),
    ("multicast", {"name": "x", "subnets": [{"cidr": "224.1.0.0/24"}]}, "/subnets/0/cidr"),
    (
        "gateway outside",
        {"name": "x", "subnets": [{"cidr": "10.5.0.0/24", "gateway": "10.6.0.1"}]},
        "/subnets/0/gateway",
    ),
    (
        "gateway is broadcast",
        {"name": "x", "subnets": [{"cidr": "10.5.0.0/24", "gateway": "10.5.0.255"}]},
        "/subnets/0/gateway",
    ),
    ("range outside", {"name": "x", "subnets": [{"cidr": "10.5.0.0/24", "range": "10.6.0.0/25"}]}, "/subnets/0/range"),
    ("overlap within", {"name": "x", "subnets": [{"cidr": "10.5.0.0/24"}, {"cidr": "10.5.0.128/25"}]}, "/subnets/1"),
    ("MTU too small", {"name": "x", "mtu": 100}, "/mtu"),
    ("MTU as text", {"name": "x", "mtu": "1400"}, "/mtu"),
    ("MTU as boolean", {"name": "x", "mtu": True}, "/mtu"),
    ("label too long", {"name": "x", "labels": {"k": "v" * 1025}}, "/labels/k"),
    ("too many labels", {"name": "x", "labels": {str(i): "" for i in range(65)}}, "/labels"),
    ("label of another type", {"name": "x", "labels": {"k": 1}}, "/labels/k"),
    ("id of another form", {"name": "x", "id": "XYZ"}, "/id"),
]


@pytest.mark.parametrize(("what", "body", "pointer"), BAD_NETWORKS, ids=[what for what, _, _ in BAD_NETWORKS])
async def test_a_wrong_network_names_the_field_and_changes_nothing(
    api: Api, what: str, body: dict[str, Any], pointer: str
) -> None:
    before = (await api.get("/v1/networks?limit=500")).json()["items"]
    problem = problem_of(await api.post("/v1/networks", body), 422, "invalid")

    assert any(found.startswith(pointer) for found in pointers(problem)), problem
    assert (await api.get("/v1/networks?limit=500")).json()["items"] == before


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"host": "h 1"}, "/host"),
        ({"name": "-x"}, "/name"),
        ({"id": "../x"}, "/id"),
        ({"address": "10.0.0.300"}, "/address"),
        ({"address": "fd00::1"}, "/address"),
        ({"mac": "01:00:00:00:00:01"}, "/mac"),
        ({"mac": "nonsense"}, "/mac"),
        ({"aliases": ["ok", "no good"]}, "/aliases/1"),
        ({"aliases": ["a"] * 33}, "/aliases"),
        ({"ports": [{"port": 70000}]}, "/ports/0/port"),
        ({"ports": [{"port": 80, "protocol": "icmp"}]}, "/ports/0/protocol"),
        ({"speed": 10}, "/speed"),
    ],
)
async def test_a_wrong_endpoint_names_the_field(api: Api, more: dict[str, Any], pointer: str) -> None:
    network = await api.network(subnets=[{"cidr": "10.90.0.0/24"}])
    body = {"host": "h1", "name": "e", **more}
    problem = problem_of(await api.post(f"/v1/networks/{network['id']}/endpoints", body), 422, "invalid")

    assert any(found.startswith(pointer) for found in pointers(problem)), problem
    assert (await api.delete(f"/v1/networks/{network['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"driver": "transparent"}, "/subnets"),
        ({"driver": "transparent", "subnets": [{"cidr": "10.93.0.0/24"}]}, "/uplink"),
        (
            {"driver": "transparent", "uplink": "eth1", "icc": False, "subnets": [{"cidr": "10.93.0.0/24"}]},
            "/icc",
        ),
        (
            {"driver": "transparent", "uplink": "eth1", "masquerade": False, "subnets": [{"cidr": "10.93.0.0/24"}]},
            "/masquerade",
        ),
        ({"driver": "routed", "uplink": "eth1"}, "/uplink"),
        ({"driver": "routed", "block_prefix_length": 31}, "/block_prefix_length"),
        ({"driver": "routed", "subnets": [{"cidr": "10.93.0.0/24", "gateway": "10.93.0.1"}]}, "/subnets/0/gateway"),
        ({"driver": "bridge", "block_prefix_length": 27}, "/block_prefix_length"),
        ({"driver": "bridge", "flood": True}, "/flood"),
        ({"bridge_name": "kvb0"}, "/bridge_name"),
        ({"cross_segment": "tunnel"}, "/cross_segment"),
        (
            {"options": {"com.docker.network.bridge.enable_icc": "maybe"}},
            "/options/com.docker.network.bridge.enable_icc",
        ),
        ({"mtu": 1400, "options": {"com.docker.network.driver.mtu": "1300"}}, "/options/com.docker.network.driver.mtu"),
    ],
)
async def test_a_field_that_does_not_fit_is_pointed_at(api: Api, more: dict[str, Any], pointer: str) -> None:
    problem = problem_of(await api.post("/v1/networks", {"name": api.fresh(), **more}), 422, "invalid")

    assert pointers(problem) == [pointer]


async def test_an_option_of_dockers_that_is_not_known_is_refused(api: Api) -> None:
    body = {"name": api.fresh(), "options": {"com.docker.network.bridge.gateway_mode_ipv4": "nat"}}

    problem_of(await api.post("/v1/networks", body), 422, "not-supported")


async def test_an_overlapping_subnet_is_refused_with_the_name_of_the_other(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.91.0.0/24"}])
    body = {"name": api.fresh(), "subnets": [{"cidr": "10.91.0.128/25"}]}
    problem = problem_of(await api.post("/v1/networks", body), 409, "subnet-taken")

    assert network["name"] in problem["detail"]
    assert problem["fix"]


async def test_a_taken_name_is_refused(api: Api) -> None:
    network = await api.network()

    problem_of(await api.post("/v1/networks", {"name": network["name"]}), 409, "name-taken")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"{", "EOF"), (b"", "empty"), (b"\xff\xfe", ""), (b'{"name": nope}', ""), (b"[" * 100_000, ""), (b"null x", "")],
)
async def test_malformed_json_is_told_as_such(api: Api, data: bytes, reason: str) -> None:
    problem = problem_of(await api.http.post("/v1/networks", content=data, headers=JSON), 400, "malformed")

    assert reason in problem["detail"]


@pytest.mark.parametrize("data", [b"[]", b"null", b'"name"', b"1"])
async def test_json_that_is_no_object_is_refused(api: Api, data: bytes) -> None:
    problem_of(await api.http.post("/v1/networks", content=data, headers=JSON), 422, "invalid")
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    problem_of(await api.http.post(path, content=data, headers=JSON), 422, "invalid")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_a_web_page_could_post_is_not_read(api: Api, kind: str) -> None:
    name = api.fresh()
    headers = {"Content-Type": kind} if kind else {}
    answer = await api.http.post("/v1/networks", content=json.dumps({"name": name}), headers=headers)

    problem_of(answer, 415, "unsupported-media-type")
    problem_of(await api.get(f"/v1/networks/{name}"), 404, "not-found")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"]
)
async def test_json_by_any_of_its_names_is_read(api: Api, kind: str) -> None:
    content = json.dumps({"name": api.fresh()})

    assert (await api.http.post("/v1/networks", content=content, headers={"Content-Type": kind})).status_code == 201


async def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b" " * 65536

    told = await api.http.post("/v1/networks", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    problem_of(told, 413, "too-large")
    untold = await api.http.post("/v1/networks", content=chunks(), headers=JSON)
    problem_of(untold, 413, "too-large")


async def test_too_many_endpoints_at_once_are_refused(api: Api) -> None:
    network = await api.network()
    items = [{"host": "h1", "name": f"e{i}"} for i in range(501)]
    problem = problem_of(await api.post(f"/v1/networks/{network['id']}/endpoints", {"items": items}), 422, "invalid")

    assert pointers(problem) == ["/items"]


async def test_an_unknown_path_is_a_problem(api: Api) -> None:
    for path in ("/v1", "/v2/networks", "/v1/networks/", "/v1/nothing"):
        problem_of(await api.get(path), 404, "no-such-path")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/networks", "GET, HEAD, POST"),
        ("PUT", "/v1/networks/x", "DELETE, GET, HEAD, PATCH"),
        ("POST", "/v1/networks/x", "DELETE, GET, HEAD, PATCH"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("PUT", "/v1/networks/x/endpoints", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/pools", "GET, HEAD, POST"),
    ],
)
async def test_a_method_that_is_not_possible_names_all_that_are(api: Api, method: str, path: str, allow: str) -> None:
    answer = await api.http.request(method, path)

    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=501", "/query/limit"),
        ("limit=many", "/query/limit"),
        ("cursor=nonsense", "/query/cursor"),
    ],
)
async def test_a_wrong_query_names_the_parameter(api: Api, query: str, pointer: str) -> None:
    problem = problem_of(await api.get(f"/v1/networks?{query}"), 422, "invalid")

    assert pointers(problem) == [pointer]


async def test_wrong_headers_are_named(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}"
    wrong = problem_of(await api.delete(path, **{"If-Match": "yesterday"}), 422, "invalid")
    assert pointers(wrong) == ["/header/If-Match"]
    wrong = problem_of(await api.get(path, **{"X-Kvnet-Actor": "a\tb"}), 422, "invalid")
    assert pointers(wrong) == ["/header/X-Kvnet-Actor"]
    wrong = problem_of(await api.get("/v1/events", **{"Last-Event-ID": "abc"}), 422, "invalid")
    assert pointers(wrong) == ["/header/Last-Event-ID"]
    wrong = problem_of(await api.get("/v1/ipam/addresses/banana"), 422, "invalid")
    assert pointers(wrong) == ["/path/address"]


async def test_a_sane_request_id_comes_back_and_another_is_replaced(api: Api) -> None:
    sane = await api.get("/livez", **{"X-Request-ID": "trace-1"})
    assert sane.headers["x-request-id"] == "trace-1"
    for odd in ("a b", "x" * 200, '"; drop'):
        replaced = (await api.get("/livez", **{"X-Request-ID": odd})).headers["x-request-id"]
        assert replaced != odd
        assert len(replaced) == 16


async def test_no_origin_is_given_leave_by_cors(api: Api) -> None:
    answer = await api.get("/v1/networks", Origin="https://evil.example")

    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    network = await api.network()

    problem_of(await api.post("/v1/networks/prune", **headers), 403, "cross-origin")
    problem_of(await api.delete(f"/v1/networks/{network['id']}", **headers), 403, "cross-origin")
    assert (await api.get(f"/v1/networks/{network['id']}", **headers)).status_code == 200


async def test_a_page_of_this_controller_may(api: Api) -> None:
    for headers in ({"Origin": api.url}, {"Sec-Fetch-Site": "same-origin", "Origin": api.url}):
        network = await api.network()
        assert (await api.delete(f"/v1/networks/{network['id']}", **headers)).status_code == 204


async def test_parameters_are_checked_on_requests_that_have_some_and_defaulted_on_others(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    body = {"host": "h1", "name": "e"}

    assert (await api.post(path, body)).status_code == 201
    assert pointers(problem_of(await api.post(f"{path}?wait=31", body), 422, "invalid")) == ["/query/wait"]
    wrong = await api.post(path, body, **{"Idempotency-Key": "a b"})
    assert pointers(problem_of(wrong, 422, "invalid")) == ["/header/Idempotency-Key"]
    assert (await api.post(f"{path}?wait=0", body, **{"Idempotency-Key": network["id"]})).status_code == 201


async def test_every_code_has_a_page_behind_its_type(api: Api) -> None:
    for code in ("subnet-taken", "malformed", "network-in-use", "idempotency-key-reused"):
        page = (await api.get(f"/problems/{code}")).json()
        assert page["code"] == code
        assert page["meaning"]
    problem_of(await api.get("/problems/nonsense"), 404, "not-found")


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(api: Api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await api.get("/livez")).status_code == 200


def test_the_documentation_names_real_codes_and_all_that_only_the_api_has() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    table = text[text.index("| status | codes") : text.index("## Who asked")]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", table))
    own = {kind.code for kind in vars(api_errors).values() if is_problem(kind)}
    shared = {kind.code for kind in vars(errors).values() if is_problem(kind)}

    assert named <= own | shared
    assert own - {"error"} <= named


def is_problem(kind: object) -> TypeGuard[type[KvnetError]]:
    return isinstance(kind, type) and issubclass(kind, KvnetError)
