"""Requests of a clumsy or hostile client: each is refused for its own reason, and nothing has changed afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kvnet import keys
from tests.api.under_test import Api, pointers, problem_of

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
# How pydantic, json and friends speak; users get our words.
FOREIGN_WORDS = re.compile(r"Input should|String should|Tuple|Value error|lax-or-strict|\[key\]|Traceback|<class")
SYNTAX = [
    "a;b",
    "$(id)",
    "`id`",
    "a\nb",
    "a\x00b",
    "..",
    ".",
    "../a",
    "a/b",
    "a'b",
    'a"b',
    "a b",
    "-a",
    "a-",
    "{a}",
    "a,b",
    "a=b",
    "*",
    "ünï",
    "\u202ea",
    "a\x1b[31m",
    "x" * 65,
    "x" * 10_000,
    "",
]


async def contents(api: Api) -> dict[str, int]:
    """What the store itself has, not a mirror on its way there. What was done before is sealed meanwhile."""
    listed = await api.post("/v1/store/list", {"prefix": ""})
    entries = {entry["key"]: entry["version"] for entry in listed.json()["entries"]}
    return {key: version for key, version in entries.items() if not key.startswith(keys.SEALS)}


@asynccontextmanager
async def nothing_changes(api: Api) -> AsyncIterator[None]:
    before = await contents(api)
    yield
    assert await contents(api) == before


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    problem = problem_of(answer, status, code)
    assert not FOREIGN_WORDS.search(answer.text), answer.text
    assert problem["detail"].isprintable(), problem["detail"]
    assert len(problem["detail"]) < 600
    for pointer in pointers(problem):
        assert pointer.startswith("/")
        assert pointer.isprintable()
    return problem


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("0.0.0.0/8", "this network"),
        ("0.0.0.0/1", "this network"),
        ("64.0.0.0/2", "loopback"),
        ("126.0.0.0/7", "loopback"),
        ("127.1.0.0/16", "loopback"),
        ("168.0.0.0/6", "link-local"),
        ("128.0.0.0/1", "link-local"),
        ("192.0.0.0/2", "multicast"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.0/24", "broadcast"),
        ("::/64", "loopback"),
        ("::/1", "loopback"),
        ("::ffff:10.0.0.0/120", "IPv4-mapped"),
        ("fe00::/7", "link-local"),
        ("fe80::/64", "link-local"),
        ("ff00::/8", "multicast"),
        ("8000::/1", "link-local"),
    ],
)
async def test_a_block_with_addresses_that_no_interface_may_have_is_refused(api: Api, cidr: str, why: str) -> None:
    async with nothing_changes(api):
        body = {"name": api.fresh(), "subnets": [{"cidr": cidr}]}
        problem = refused(await api.post("/v1/networks", body), 422, "invalid")
        assert why in problem["detail"]
        assert pointers(problem) == ["/subnets/0/cidr"]
        if int(cidr.partition("/")[2]) >= 8:
            pool = {"name": api.fresh(), "cidr": cidr, "prefix_length": 124 if ":" in cidr else 28}
            assert why in refused(await api.post("/v1/pools", pool), 422, "invalid")["detail"]


@pytest.mark.parametrize(
    "cidr",
    [
        "10.1.0.0/255.255.255.0",
        "10.1.0.0/0.0.0.255",
        "10.1.0.0/024",
        "010.1.0.0/24",
        "10.1.0.0/+24",
        "10.1.0.0/-1",
        "10.1.0.0/33",
        "10.1.0.0/24 ",
        "10.1.0.0/24\n",
        "10.1.0.0/24/24",
        "10.1/16",
        "١٠.1.0.0/24",
        "10.1.0.0/２４",
        "fd00::/129",
        "fd00::%eth0/64",
        "0x0a010000/24",
        "167837696/24",
    ],
)
async def test_what_only_some_readers_take_for_a_subnet_is_none(api: Api, cidr: str) -> None:
    async with nothing_changes(api):
        body = {"name": api.fresh(), "subnets": [{"cidr": cidr}]}
        problem = refused(await api.post("/v1/networks", body), 422, "invalid")
    assert "10.1.0.0/24" in problem["fix"]


@pytest.mark.parametrize("span", ["10.55.0.255/32", "10.55.0.0/32", "10.55.0.1/32", "10.55.0.0/31"])
async def test_a_range_without_an_address_for_anybody_is_refused(api: Api, span: str) -> None:
    async with nothing_changes(api):
        body = {"name": api.fresh(), "subnets": [{"cidr": "10.55.0.0/24", "range": span}]}
        assert pointers(refused(await api.post("/v1/networks", body), 422, "invalid")) == ["/subnets/0/range"]


async def test_a_pool_too_small_for_any_subnet_says_so(api: Api) -> None:
    async with nothing_changes(api):
        body = {"name": api.fresh(), "cidr": "172.20.0.0/31", "prefix_length": 31}
        problem = refused(await api.post("/v1/pools", body), 422, "invalid")
    assert problem["fix"] == "choose /30 or larger"


@pytest.mark.parametrize("text", SYNTAX)
async def test_nothing_that_another_program_reads_as_syntax_is_a_name(api: Api, text: str) -> None:
    network = await api.network(subnets=[{"cidr": f"10.60.{api.names % 250}.0/28"}])
    endpoints = f"/v1/networks/{network['id']}/endpoints"
    subnet = {"cidr": "10.61.0.0/24", "reserved": {text: "10.61.0.9"}}
    async with nothing_changes(api):
        for path, body, at in [
            ("/v1/networks", {"name": text}, "/name"),
            ("/v1/networks", {"name": "n", "driver": text}, "/driver"),
            ("/v1/networks", {"name": "n", "pool": text}, "/pool"),
            ("/v1/networks", {"name": "n", "id": text}, "/id"),
            ("/v1/networks", {"name": "n", "subnets": [subnet]}, "/subnets/0/reserved"),
            ("/v1/networks", {"name": "n", text or "-": 1}, ""),
            ("/v1/pools", {"name": text, "cidr": "172.20.0.0/16", "prefix_length": 24}, "/name"),
            (f"/v1/networks/{network['id']}/reservations", {"name": text}, "/name"),
            (endpoints, {"host": "h1", "name": text}, "/name"),
            (endpoints, {"host": text, "name": "c"}, "/host"),
            (endpoints, {"host": "h1", "name": "c", "id": text}, "/id"),
            (endpoints, {"host": "h1", "name": "c", "hostname": text or "-"}, "/hostname"),
            (endpoints, {"host": "h1", "name": "c", "aliases": [text]}, "/aliases"),
            (endpoints, {"items": [{"host": "h1", "name": "c"}, {"host": "h1", "name": text}]}, "/items/1/name"),
        ]:
            problem = refused(await api.post(path, body), 422, "invalid")
            assert pointers(problem)[0].startswith(at), (body, problem)


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "\x1b[2J", "\u202e", "x" * 1025, "\u2028"])
async def test_labels_and_options_are_printable_and_bounded(api: Api, text: str) -> None:
    async with nothing_changes(api):
        for field in ("labels", "options"):
            value = refused(await api.post("/v1/networks", {"name": "n", field: {"a/b~c": text}}), 422, "invalid")
            assert pointers(value) == [f"/{field}/a~1b~0c"]
            refused(await api.post("/v1/networks", {"name": "n", field: {text: "v"}}), 422, "invalid")
            refused(await api.post("/v1/networks", {"name": "n", field: {"": "v"}}), 422, "invalid")


async def test_a_repeated_creation_is_not_in_its_own_way(api: Api) -> None:
    """Its answer was lost, so the client says the same again."""
    body = {"name": api.fresh(), "id": "abcdef" * 2, "subnets": [{"cidr": "10.65.0.0/24"}]}
    first = await api.post("/v1/networks", body)
    again = await api.post("/v1/networks", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    async with nothing_changes(api):
        other = {**body, "subnets": [{"cidr": "10.65.0.0/25"}]}
        refused(await api.post("/v1/networks", other), 409, "id-taken")


async def test_no_network_can_be_called_as_another_ones_id(api: Api) -> None:
    network = await api.network()
    async with nothing_changes(api):
        problem = refused(await api.post("/v1/networks", {"name": network["id"]}), 422, "invalid")
        assert "id" in problem["detail"]
    assert (await api.get(f"/v1/networks/{network['id']}")).json()["name"] == network["name"]


async def test_an_endpoints_id_cannot_be_taken_over_by_a_name(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    first = await api.endpoint(network["id"])
    await api.endpoint(network["id"], name=first["id"])

    assert (await api.get(f"{path}/{first['id']}")).json()["name"] == first["name"]


async def test_a_reservation_is_not_called_as_an_address(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.62.0.0/24"}])
    async with nothing_changes(api):
        body = {"name": "10.62.0.5", "address": "10.62.0.6"}
        refused(await api.post(f"/v1/networks/{network['id']}/reservations", body), 422, "invalid")
        subnet = {"cidr": "10.63.0.0/24", "reserved": {"10.63.0.5": "10.63.0.6"}}
        refused(await api.post("/v1/networks", {"name": "n", "subnets": [subnet]}), 422, "invalid")


@pytest.mark.parametrize(
    "text",
    [
        "10.64.0.0",
        "10.64.0.7",
        "10.64.0.1",
        "10.64.1.1",
        "0.0.0.0",
        "::ffff:10.64.0.2",
        "10.64.0.2/29",
        "010.64.0.2",
        "10.64.0.2 ",
        "0x0a400002",
        "10.64.0.2%eth0",
        "fd00::1",
        "x" * 64,
    ],
)
async def test_an_address_that_cannot_be_had_is_refused(api: Api, text: str) -> None:
    name = "addresses"
    made = await api.post("/v1/networks", {"name": name, "id": "64" * 6, "subnets": [{"cidr": "10.64.0.0/29"}]})
    assert made.status_code in (200, 201)
    async with nothing_changes(api):
        body = {"host": "h1", "name": "c", "address": text}
        answer = await api.post(f"/v1/networks/{name}/endpoints", body)
        refused(answer, answer.status_code, "address-taken" if answer.status_code == 409 else "invalid")


async def test_a_mac_that_would_receive_the_packets_of_another_is_refused(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    first = await api.endpoint(network["id"], mac="02:00:00:00:00:0a")
    async with nothing_changes(api):
        body = {"host": "h2", "name": "thief", "mac": "02:00:00:00:00:0A"}
        problem = refused(await api.post(path, body), 409, "address-taken")
        assert first["id"] in problem["detail"]
        for wrong in ("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02-00-00-00-00-0b", "02:00:00:00:00:0g", "02", ""):
            refused(await api.post(path, {**body, "mac": wrong}), 422, "invalid")
    same = await api.post(path, {"items": [{**body, "mac": "02:00:00:00:00:0c"}, {**body, "mac": "02:00:00:00:00:0c"}]})
    assert [item["status"] for item in same.json()["items"]] == [201, 409]


async def test_an_endpoint_cannot_be_the_gateway(api: Api) -> None:
    network = await api.network()
    answer = await api.post(f"/v1/networks/{network['id']}/endpoints", {"host": "h1", "name": "c"})
    assert answer.status_code == 201
    mac = gateway_mac(network["id"])
    async with nothing_changes(api):
        body = {"host": "h1", "name": "c", "mac": mac}
        problem = refused(await api.post(f"/v1/networks/{network['id']}/endpoints", body), 422, "invalid")
    assert pointers(problem) == ["/mac"]


def gateway_mac(network_id: str) -> str:
    from ipaddress import ip_network

    from kvnet.model import Driver, Network, Subnet

    return Network(network_id, "n", Driver.BRIDGE, (Subnet(ip_network("10.0.0.0/24")),), 0.0).gateway_mac


MALFORMED = {
    "twice the same name": b'{"name":"a","name":"b"}',
    "twice in depth": b'{"name":"a","labels":{"k":"1","k":"2"}}',
    "twice in an item": b'{"name":"a","subnets":[{"cidr":"10.9.0.0/24","cidr":"10.8.0.0/24"}]}',
    "twice, once escaped": b'{"name":"a","n\\u0061me":"b"}',
    "deep": b'{"name":"a","labels":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    "a byte order mark": '{"name":"a"}'.encode("utf-8-sig"),
    "UTF-16": '{"name":"a"}'.encode("utf-16"),
    "not UTF-8": b'{"name":"\xff"}',
    "half a character": b'{"name":"a","labels":{"k":"\\ud800"}}',
    "more behind it": b'{"name":"a"} {}',
    "a comma too many": b'{"name":"a",}',
    "single quotes": b"{'name':'a'}",
    "a comment": b'// x\n{"name":"a"}',
    "a huge number": b'{"name":"a","mtu":1' + b"0" * 5000 + b"}",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_two_readers_could_read_differently_is_malformed(api: Api, case: str) -> None:
    async with nothing_changes(api):
        answer = await api.http.post("/v1/networks", content=MALFORMED[case], headers=JSON)
        problem = refused(answer, 400, "malformed")
    assert problem["fix"]


@pytest.mark.parametrize("mtu", ["NaN", "Infinity", "-Infinity", "1e400", "1500.0", "-1", "true", '"1500"', "[]", "{}"])
async def test_a_number_that_is_none_is_refused(api: Api, mtu: str) -> None:
    async with nothing_changes(api):
        content = f'{{"name":"a","mtu":{mtu}}}'.encode()
        problem = refused(await api.http.post("/v1/networks", content=content, headers=JSON), 422, "invalid")
    assert pointers(problem) == ["/mtu"]


async def test_many_unknown_fields_make_a_short_answer(api: Api) -> None:
    async with nothing_changes(api):
        body = {"name": "a", **{f"f{i}\n": i for i in range(5000)}, "x" * 100_000: 1}
        answer = await api.post("/v1/networks", body)
        assert len(pointers(refused(answer, 422, "invalid"))) == 20
    assert len(answer.content) < 8000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/networks/prune?dryrun=true"),
        ("POST", "/v1/networks/prune?dry-run=true"),
        ("DELETE", "/v1/hosts/h0?forc=1"),
        ("GET", "/v1/ipam/check?repair=true"),
        ("GET", "/v1/networks?lable=a"),
        ("GET", "/v1/networks?name=a&x%0a%1b=1"),
    ],
)
async def test_a_misspelt_parameter_is_not_ignored(api: Api, method: str, path: str) -> None:
    async with nothing_changes(api):
        problem = refused(await api.http.request(method, path), 422, "invalid")
    assert pointers(problem)[0].startswith("/query/")


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=1e3",
        "limit=%00",
        "limit=",
        "limit=" + "9" * 30,
        "cursor=",
        "cursor=%00",
        "cursor=../..",
        "cursor=bnVsbA",
        "cursor=W10",
        "cursor=eyJ2IjoxfQ",
        "cursor=" + "a" * 1025,
        "name=" + "x" * 5000,
    ],
)
async def test_a_bad_page_is_refused(api: Api, query: str) -> None:
    async with nothing_changes(api):
        refused(await api.get(f"/v1/networks?{query}"), 422, "invalid")


@pytest.mark.parametrize("etag", ["1", 'W/"1"', '"1","2"', '"' + "9" * 20 + '"', "", '"-1"', '"$(id)"', '"1'])
async def test_an_etag_that_is_none_of_ours_changes_nothing(api: Api, etag: str) -> None:
    network = await api.network()
    async with nothing_changes(api):
        answer = await api.delete(f"/v1/networks/{network['id']}", **{"If-Match": etag})
        assert pointers(refused(answer, 422, "invalid")) == ["/header/If-Match"]


@pytest.mark.parametrize("key", ["a b", "a\tb", "x" * 256])
async def test_an_idempotency_key_that_is_none_is_refused(api: Api, key: str) -> None:
    async with nothing_changes(api):
        answer = await api.post("/v1/networks", {"name": "a"}, **{"Idempotency-Key": key})
        assert pointers(refused(answer, 422, "invalid")) == ["/header/Idempotency-Key"]


async def test_headers_full_of_syntax_are_only_text(api: Api) -> None:
    evil = "../../x;$(id)'\"`|&"
    answer = await api.post("/v1/networks", {"name": api.fresh()}, **{"Idempotency-Key": evil, "X-Request-ID": evil})
    assert answer.status_code == 201
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
    assert re.fullmatch(r"[0-9a-f]{12}", answer.json()["id"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/networks/%00",
        "/v1/networks/%0a",
        "/v1/networks/%ff",
        "/v1/networks/a;b",
        "/v1/networks/$(id)",
        "/v1/networks/" + "x" * 5000,
        "/v1/hosts/%27%22",
        "/v1/pools/%2e%2e",
        "/v1/networks/..%2f..%2fetc",
        "/docs/%2e%2e/%2e%2e/app.py",
        "/problems/%00",
        "/v1/networks//",
    ],
)
async def test_a_path_that_leads_nowhere_is_not_found(api: Api, path: str) -> None:
    answer = await api.get(path)
    refused(answer, 404, answer.json()["code"])
    assert answer.json()["code"] in ("not-found", "no-such-path")


@pytest.mark.parametrize("address", ["10.1.0.1%0a", "fe80::1%25eth0", "%2e%2e", "10.1", "x" * 65, "10.1.0.1%00"])
async def test_who_has_an_address_is_asked_of_addresses_only(api: Api, address: str) -> None:
    answer = await api.get(f"/v1/ipam/addresses/{address}")
    assert answer.status_code in (404, 422)


async def test_one_object_is_not_two(api: Api) -> None:
    """A body of both kinds, and items that claim each other's id."""
    network = await api.network()
    path = f"/v1/networks/{network['id']}/endpoints"
    async with nothing_changes(api):
        both = {"host": "h1", "name": "c", "items": [{"host": "h1", "name": "c"}]}
        refused(await api.post(path, both), 422, "invalid")
        for wrong in ("[]", "{}", '"a"', "null", "[1]", "[[]]", "[null]"):
            content = f'{{"items":{wrong}}}'
            refused(await api.http.post(path, content=content, headers=JSON), 422, "invalid")
    items = [{"host": "h1", "name": "c", "id": "same"}, {"host": "h1", "name": "d", "id": "same"}]
    outcomes = (await api.post(path, {"items": items})).json()["items"]
    assert [one["status"] for one in outcomes] == [201, 409]


async def test_after_all_that_the_store_is_sound(api: Api) -> None:
    assert (await api.get("/v1/ipam/check")).json()["ok"]
    json.dumps((await api.get("/v1/status")).json())
