"""A host turned hostile: it has a valid credential, knows every id, and tries everything.

`h1` is the attacker. It takes part in `shared`, with `h2`; `jewels` is h2's alone. Whatever it sends, nothing of others
changes, and nothing of `jewels` is told. What it may do with what is its own is in `test_host_store`.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvnet import codec, keys
from kvnet.model import (
    Alive,
    Block,
    Condition,
    Endpoint,
    Host,
    HostState,
    Inventory,
    NetworkObserved,
    Observed,
    gateway_mac,
)
from kvnet.questions import Answer
from tests.api.under_test import eventually
from tests.security.admitted import Guarded, guarded

pytestmark = pytest.mark.anyio

OWN = frozenset({"hosts/h1", "inventory/h1", "alive/h1", "observed/h1"})
JEWELS, VAULT = "jewels-marker", "vault-marker"
SUBNET = "10.66.0.0/24"


@dataclass
class Scene:
    """`shared`, `jewels`: networks; `mine`, `theirs`, `vault`: endpoints. `words`: what the attacker must not learn."""

    site: Guarded
    attacker: httpx2.AsyncClient
    victim: httpx2.AsyncClient
    shared: dict[str, Any]
    jewels: dict[str, Any]
    mine: dict[str, Any]
    theirs: dict[str, Any]
    vault: dict[str, Any]
    session: str  # the victim's, as it has it
    own_session: str
    words: list[str] = field(default_factory=list)

    async def state(self) -> dict[str, str]:
        """All that an admin is shown, but for what is the attacker's to change."""
        found = await self.site.admin.post("/v1/store/list", json={"prefix": ""})
        assert found.status_code == 200, found.text
        return {e["key"]: e["value"] for e in found.json()["entries"] if e["key"] not in OWN}

    async def tokens(self) -> Any:
        return (await self.site.admin.get("/v1/tokens")).json()["items"]

    def require_silence(self, told: str, asked: str) -> None:
        for word in self.words:
            assert word in asked or word not in told, f"{word!r} is told: {told[:800]}"


async def made(site: Guarded, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await site.admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
async def scene(shared_store: str) -> AsyncIterator[Scene]:
    async with guarded(shared_store, upkeep=False) as site:
        clients = [site.client(await site.make(host, "host", host=host)) for host in ("h1", "h2", "h10")]
        h1, h2, h10 = clients
        for number, (name, client) in enumerate((("h1", h1), ("h2", h2), ("h10", h10)), start=1):
            host = Host(name, ip_address(f"203.0.113.{number}"), 1500, segment=ip_network("203.0.113.0/24"))
            await committed(client, put(keys.host(name), host), put(keys.inventory(name), Inventory(name)))
        shared = await made(site, "/v1/networks", {"name": "shared"})
        jewels = await made(site, "/v1/networks", {"name": JEWELS, "subnets": [{"cidr": SUBNET}]})
        mine = await made(site, f"/v1/networks/{shared['id']}/endpoints", {"host": "h1", "name": "web"})
        theirs = await made(site, f"/v1/networks/{shared['id']}/endpoints", {"host": "h2", "name": "db"})
        vault = await made(site, f"/v1/networks/{jewels['id']}/endpoints", {"host": "h2", "name": VAULT})
        sessions = [await alive(client, name) for client, name in ((h1, "h1"), (h2, "h2"))]
        words = [JEWELS, VAULT, jewels["id"], vault["id"], vault["address"], vault["mac"], SUBNET]
        yield Scene(site, h1, h2, shared, jewels, mine, theirs, vault, sessions[1], sessions[0], words)
        for client in clients:
            await client.aclose()


def put(key: str, value: Any, session: str | None = None) -> dict[str, Any]:
    data = value if isinstance(value, bytes) else codec.encode(value)
    plain: dict[str, Any] = {"write": "put", "key": key, "value": b64encode(data).decode()}
    return plain if session is None else {**plain, "session": session}


def delete(key: str) -> dict[str, Any]:
    return {"write": "delete", "key": key}


async def committed(client: httpx2.AsyncClient, *writes: dict[str, Any]) -> None:
    answer = await client.post("/v1/store/commit", json={"checks": [], "writes": list(writes)})
    assert answer.status_code == 200, answer.text


async def alive(client: httpx2.AsyncClient, host: str) -> str:
    session = str((await client.post("/v1/store/sessions", json={"ttl_s": 60})).json()["id"])
    await committed(client, put(keys.alive(host), Alive(host, "run-1", 1.0), session))
    return session


Attempt = tuple[str, str, Any]


def reads(s: Scene) -> list[Attempt]:
    """Keys and prefixes of others, spelled in every way that might be read as one's own."""
    network, theirs = s.jewels["id"], s.vault["id"]
    one = [
        *(f"networks/{network}", f"endpoints/{network}/{theirs}", f"blocks/{network}/10.66.0.0_27"),
        *(f"addresses/{network}/{s.vault['address']}", f"addresses/{s.shared['id']}/{s.theirs['address']}"),
        *("inventory/h2", "alive/h2", "observed/h2", "reclaims/h2", "local/h2/" + theirs, "local/h10/x"),
        *("questions/h2/q", "questions/h10/q", "answers/q", "ports/h1/tcp_0", "ports/h2/tcp_64"),
        *("guards/subnets", "leader/upkeep", "journal/floor", "pools/default", f"vnis/{s.jewels['vni']}"),
        *("secrets/gateway", "secrets/cookies", "tokens/000000000000", "seals/000000000001", "bridges/br0"),
        *(".kvnet/sessions/x", "subnets/10.66.0.0_24", "local/h1/../h2/" + theirs, "hosts/../secrets/gateway"),
        *("hosts//h2", "/hosts/h1", "hosts/h1/", "meta/../tokens/x", "local/h1", "alive/h1\u0000", "alive/h1 "),
        *(f"endpoints/{s.shared['id']}/../{network}/{theirs}", f"networks/{network}/", f"networks//{network}"),
        *(f"networks/{network.upper()}", f"networks%2F{network}", "ALIVE/h2", "alive/ｈ2", "", "/", "..", "."),
    ]
    many = [
        *(
            "",
            "/",
            "h",
            "ho",
            "host",
            "hosts",
            "l",
            "local",
            "local/",
            "local/h",
            "local/h1",
            "local/h10/",
            "local/h2/",
        ),
        *("local/h1//", "local/h1/../", "questions/", "questions/h1", "questions/h2/", "answers/", "alive/", "alive"),
        *("inventory/", "observed/", "reclaims/", "endpoints/", "endpoints", "endpoints/" + network[:6], "networks/"),
        *(
            "networks",
            f"networks/{network[:11]}",
            f"networks/{network}",
            f"endpoints/{network}/",
            f"endpoints/{network}",
        ),
        *(f"blocks/{network}/", "blocks/", "addresses/", f"addresses/{network}/", f"addresses/{s.shared['id']}/"),
        *(
            "tokens/",
            "tokens",
            "secrets/",
            "s",
            "seals/",
            "journal/",
            "guards/",
            "leader/",
            "names/",
            "vnis/",
            "pools/",
        ),
        *("subnets/", "ports/", "bridges/", ".kvnet/", "met", "meta", "hosts/h2", "LOCAL/h1/", "local/h1/\u0000", "*"),
    ]
    return [
        *(("POST", "/v1/store/get", {"key": key}) for key in one),
        *(("POST", "/v1/store/list", {"prefix": prefix}) for prefix in many),
    ]


def writes(s: Scene) -> list[Attempt]:
    network = s.shared["id"]
    stolen = Endpoint(s.theirs["id"], network, "h1", "db", (ip_address(s.theirs["address"]),), s.theirs["mac"], 1.0)
    fresh = replace(stolen, id="evil", name="evil")
    record = Host("h1", ip_address("203.0.113.1"), 1500, segment=ip_network("203.0.113.0/24"))
    told = Observed("h1", 1.0)
    alive_h2 = Alive("h2", "evil", 1.0)
    answer = Answer("q", "h1", 1.0, {"forged": True})
    single = [
        put(f"endpoints/{network}/{s.theirs['id']}", stolen),
        put(f"endpoints/{network}/evil", fresh),
        put(f"endpoints/{network}/{s.mine['id']}", replace(fresh, id=s.mine["id"])),
        put(f"addresses/{network}/{s.theirs['address']}", b"{}"),
        put("local/h1/evil", network.encode()),
        put("local/h1/evil", s.jewels["id"].encode()),
        put("local/h2/" + s.theirs["id"], network.encode()),
        put(f"networks/{network}", b"{}"),
        put("networks/aaaaaaaaaaaa", b"{}"),
        put("names/shared", b"aaaaaaaaaaaa"),
        put(f"blocks/{network}/10.0.0.0_27", Block(network, ip_network("10.0.0.0/27"), "h1", 1.0)),
        put("ports/h2/tcp_64", b"{}"),
        put("subnets/10.99.0.0_24", b"aaaaaaaaaaaa"),
        put("pools/evil", b"{}"),
        put("guards/subnets", b"9"),
        put("leader/upkeep", b"h1"),
        put("leader/upkeep", b"h1", s.own_session),
        put("meta/cluster", b"{}"),
        put("meta/accepted", b"{}"),
        put("meta/restoring", b"{}"),
        put("meta/authentication", b"{}"),
        put("tokens/aaaaaaaaaaaa", b"{}"),
        put("secrets/gateway", b"x" * 64),
        put("secrets/cookies", b"x" * 64),
        put("seals/000000000001", b"{}"),
        put("journal/0000000000000001-x", b"{}"),
        put("questions/h2/q", b"{}"),
        put("questions/h1/q", b"{}"),
        put("answers/q", answer),
        put("reclaims/h2", b"{}"),
        put("reclaims/h1", b"{}"),
        put("hosts/h2", replace(record, name="h2")),
        put("hosts/h2", record),
        put("hosts/h3", replace(record, name="h3", underlay=ip_address("203.0.113.3"))),
        put("hosts/h1", replace(record, name="h2")),
        put("hosts/h1", replace(record, underlay=ip_address("203.0.113.2"))),
        put("hosts/h1", replace(record, underlay=ip_address("203.0.113.3"))),
        put("hosts/h1", replace(record, underlay=ip_address("::ffff:203.0.113.2"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("224.0.0.1"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("127.0.0.1"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("255.255.255.255"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("0.0.0.0"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address(s.theirs["address"]), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("10.66.0.1"), segment=None)),
        put("hosts/h1", replace(record, segment=ip_network("0.0.0.0/0"))),
        put("hosts/h1", replace(record, segment=ip_network("198.51.100.0/24"))),
        put("hosts/h1", replace(record, state=HostState.EVICTED)),
        put("hosts/h1", replace(record, abilities=("x" * 5000,))),
        put("hosts/h1", codec.encode(record) + b" " * 5000),
        put("hosts/h1", b"not json"),
        put("hosts/h1", b"[" * 5000),
        put("hosts/h1", codec.encode(record).replace(b'"v":1', b'"v":99')),
        put("hosts/h1", codec.encode(record).replace(b"203.0.113.1", b"203.0.113.01")),
        put("hosts/h1", record, s.own_session),
        put("inventory/h2", Inventory("h2")),
        put("inventory/h1", Inventory("h2")),
        put("observed/h2", replace(told, host="h2")),
        put("observed/h1", replace(told, host="h2")),
        put("observed/h1", replace(told, networks={s.jewels["id"]: NetworkObserved(1)})),
        put("observed/h1", replace(told, networks={s.jewels["id"]: NetworkObserved(0, (Condition("x", "y", 1.0),))})),
        put("observed/h1", replace(told, networks={"bbbbbbbbbbbb": NetworkObserved(1)})),
        put("alive/h2", alive_h2, s.session),
        put("alive/h2", alive_h2, s.own_session),
        put("alive/h1", replace(alive_h2, host="h1"), s.session),
        put("alive/h1", replace(alive_h2, host="h1")),
        put("alive/h1", alive_h2, s.own_session),
        put("alive/h1", replace(alive_h2, host="h1"), "memory-session"),
        put("hosts/h1/x", record),
        put("hosts//h1", record),
        put("HOSTS/h1", record),
        put("hosts/h1\u200b", record),
        put("hosts/../alive/h2", record),
        put(".kvnet/sessions/x", b"{}"),
        *(delete(key) for key in (f"endpoints/{network}/{s.theirs['id']}", f"endpoints/{network}/{s.mine['id']}")),
        *(delete(key) for key in ("local/h2/" + s.theirs["id"], "local/h1/" + s.mine["id"], "hosts/h2", "hosts/h1")),
        *(delete(key) for key in ("alive/h2", "observed/h2", "inventory/h2", "reclaims/h2", f"networks/{network}")),
        *(delete(key) for key in ("names/shared", "tokens/x", "secrets/gateway", "meta/cluster", "questions/h2/q")),
        *(delete(key) for key in (f"addresses/{network}/{s.theirs['address']}", "guards/subnets", "leader/upkeep")),
    ]
    # One that may be written does not carry another one along.
    mixed = [put("hosts/h1", record), put(f"endpoints/{network}/evil", fresh)]
    attempts = [{"checks": [], "writes": [write]} for write in single]
    attempts.append({"checks": [], "writes": mixed})
    attempts.append({"checks": [{"check": "present", "key": "questions/h2/q"}], "writes": [put("answers/q", answer)]})
    asked = [f"endpoints/{s.jewels['id']}/{s.vault['id']}", f"names/{JEWELS}", "alive/h2", "tokens/x", "hosts/h2", "x"]
    for key in asked:
        for check in ({"check": "absent"}, {"check": "present"}, {"check": "unchanged", "version": 1}):
            attempts.append({"checks": [{**check, "key": key}], "writes": [put("hosts/h1", record)]})
            attempts.append({"checks": [{**check, "key": key}], "writes": []})
    return [("POST", "/v1/store/commit", attempt) for attempt in attempts]


def sessions(s: Scene) -> list[Attempt]:
    path = f"/v1/store/sessions/{quote(s.session, safe='')}"
    return [
        ("POST", f"{path}/refresh", {"ttl_s": 60}),
        ("DELETE", path, None),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": s.session}),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": "../" + s.session}),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": ""}),
        ("POST", "/v1/store/sessions", {"ttl_s": 1e9}),
        ("POST", "/v1/store/sessions", {"ttl_s": 0.001}),
        ("DELETE", "/v1/store/sessions/abc", None),
        ("POST", f"/v1/store/sessions/{s.own_session[1:]}/refresh", {"ttl_s": 60}),
        ("POST", f"/v1/store/sessions/{s.own_session}A/refresh", {"ttl_s": 60}),
    ]


def calls(s: Scene) -> list[Attempt]:
    shared, jewels = f"/v1/networks/{s.shared['id']}", f"/v1/networks/{s.jewels['id']}"
    theirs, vault = f"{shared}/endpoints/{s.theirs['id']}", f"{jewels}/endpoints/{s.vault['id']}"
    mine = f"{shared}/endpoints/{s.mine['id']}"
    new = {"host": "h1", "name": "evil"}
    return [
        ("POST", f"{shared}/endpoints", {**new, "host": "h2"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "h10"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "H1"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "h1 "}),
        ("POST", f"{shared}/endpoints", {"items": [new, {**new, "host": "h2"}]}),
        ("POST", f"{shared}/endpoints", {**new, "id": s.theirs["id"]}),
        ("POST", f"{shared}/endpoints", {**new, "mac": s.theirs["mac"]}),
        ("POST", f"{shared}/endpoints", {**new, "mac": s.theirs["mac"].upper()}),
        ("POST", f"{shared}/endpoints", {**new, "mac": gateway_mac(s.shared["id"])}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.theirs["address"]}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.theirs["address"], "reuse": True}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.shared["subnets"][0]["gateway"]}),
        ("POST", f"{shared}/endpoints", {**new, "address": "203.0.113.2"}),
        ("POST", f"{shared}/endpoints?dry_run=plan", new),
        ("POST", f"{shared}/endpoints?dry_run=plan", {"items": [new]}),
        ("POST", "/v1/networks/jewels-marke/endpoints", new),  # "did you mean"
        ("POST", "/v1/networks/nobodys/endpoints", {**new, "host": "h2"}),
        ("PATCH", theirs, {"name": "stolen"}),
        ("PATCH", theirs, {"host": "h1"}),
        ("PATCH", theirs, {"ports": [{"port": 80, "host_port": 80}]}),
        ("PATCH", theirs, {"labels": {"x": "y"}}),
        ("PATCH", f"{shared}/endpoints/db", {"name": "stolen"}),
        ("PATCH", vault, {"name": "stolen"}),
        ("PATCH", f"{jewels}/endpoints/{VAULT}", {"name": "stolen"}),
        ("PATCH", "/v1/networks/jewels-marke/endpoints/x", {"name": "stolen"}),
        ("DELETE", "/v1/networks/jewels-marke/endpoints/x", None),
        ("DELETE", f"{jewels}/endpoints/nobody-made-this", None),
        ("PATCH", mine, {"host": "h2"}),
        ("PATCH", mine, {"address": s.theirs["address"]}),
        ("PATCH", mine, {"address": s.theirs["address"], "reuse": True}),
        ("PATCH", mine, {"mac": s.theirs["mac"]}),
        ("PATCH", mine, {"id": s.theirs["id"]}),
        ("PATCH", f"{mine}?dry_run=plan", {"name": "x"}),
        ("DELETE", theirs, None),
        ("DELETE", f"{shared}/endpoints/db", None),
        ("DELETE", vault, None),
        ("DELETE", f"{jewels}/endpoints/{VAULT}", None),
        ("DELETE", f"{theirs}?dry_run=plan", None),
        ("DELETE", f"{shared}/endpoints/{s.mine['id']}%2F..%2F{s.theirs['id']}", None),
        ("DELETE", f"{mine}/../{s.theirs['id']}", None),
        ("GET", jewels, None),
        ("GET", f"/v1/networks/{JEWELS}", None),
        ("GET", f"{jewels}/endpoints", None),
        ("GET", vault, None),
        ("GET", f"{jewels}/convergence", None),
        ("GET", f"{jewels}/reservations", None),
        ("GET", "/v1/endpoints", None),
        ("GET", f"/v1/endpoints?address={s.vault['address']}", None),
        ("GET", f"/v1/endpoints?network={s.jewels['id']}", None),
        ("GET", "/v1/hosts", None),
        ("GET", "/v1/hosts/h2", None),
        ("GET", "/v1/hosts/h10", None),
        ("GET", "/v1/hosts/h1/ports", None),
        ("GET", "/v1/hosts/h2/ports", None),
        ("GET", "/v1/hosts/h2/doctor", None),
        ("GET", "/v1/events", None),
        ("GET", "/v1/ipam", None),
        ("GET", f"/v1/ipam/addresses/{s.vault['address']}", None),
        ("GET", f"/v1/ipam/subnets/{SUBNET}", None),
        ("GET", "/v1/ipam/check", None),
        ("GET", "/v1/pools", None),
        ("GET", "/v1/holds", None),
        ("GET", "/v1/tokens", None),
        ("GET", f"/v1/tokens/{s.site.made['h2']}", None),
        ("GET", "/v1/store-state", None),
        ("GET", "/v1/audit/export", None),
        ("GET", "/v1/audit/seals", None),
        ("GET", "/v1/audit/verify", None),
        ("GET", "/metrics", None),
        ("POST", "/v1/ipam/check", None),
        ("POST", "/v1/store-state/accept", {"cluster": "x", "revision_before": 0}),
        ("POST", "/v1/networks", {"name": "evil"}),
        ("POST", "/v1/networks", {"name": "evil", "subnets": [{"cidr": SUBNET}], "force": True}),
        ("PATCH", shared, {"labels": {"x": "y"}}),
        ("PATCH", jewels, {"labels": {"x": "y"}}),
        ("POST", f"{shared}/name", {"name": "evil"}),
        ("POST", f"{shared}/peers/{s.jewels['id']}", None),
        ("DELETE", f"{shared}/peers/{s.jewels['id']}", None),
        ("DELETE", shared, None),
        ("DELETE", jewels, None),
        ("POST", "/v1/networks/prune", None),
        ("POST", "/v1/networks/prune?dry_run=true", None),
        ("POST", "/v1/holds", {"host": "h1"}),
        ("POST", "/v1/holds", {"host": "h2", "cidr": "10.77.0.0/24", "force": True}),
        ("DELETE", "/v1/holds/aaaaaaaaaaaa", None),
        ("POST", f"{shared}/reservations", {"name": "evil"}),
        ("DELETE", f"{shared}/reservations/x", None),
        ("POST", "/v1/pools", {"name": "evil", "cidr": "10.99.0.0/16", "prefix_length": 24}),
        ("DELETE", "/v1/pools/default", None),
        ("DELETE", "/v1/hosts/h2?force=true", None),
        ("DELETE", "/v1/hosts/h1?force=true", None),
        ("POST", "/v1/hosts/h2/pause", {"seconds": 60}),
        ("POST", "/v1/hosts/h1/pause", {"seconds": 60}),
        ("POST", "/v1/trace", {"from": "web", "to": VAULT}),
        ("POST", "/v1/connectivity", {"networks": [JEWELS]}),
        ("POST", "/v1/tokens", {"name": "evil", "role": "admin"}),
        ("POST", "/v1/tokens", {"name": "evil", "role": "host", "host": "h2"}),
        ("POST", f"/v1/tokens/{s.site.made['h2']}/rotate", {}),
        ("POST", f"/v1/tokens/{s.site.made['h1']}/rotate", {}),
        ("DELETE", f"/v1/tokens/{s.site.made['h2']}", None),
        ("DELETE", f"/v1/tokens/{s.site.made['h1']}", None),
        ("PUT", "/v1/authentication", {"required": False}),
    ]


async def attempted(s: Scene, attempts: Sequence[Attempt]) -> None:
    """Each is refused in words, says nothing, and changes nothing."""
    before, tokens = await s.state(), await s.tokens()
    for method, path, body in attempts:
        asked = json.dumps([path, body], ensure_ascii=False) + decoded(body)
        answer = await s.attacker.request(method, path, json=body)
        assert 400 <= answer.status_code < 500, f"{method} {asked[:300]}: {answer.status_code} {answer.text[:300]}"
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        s.require_silence(answer.text, asked)
        assert await s.state() == before, f"{method} {asked[:300]} changed something"
    assert await s.tokens() == tokens


def decoded(body: Any) -> str:
    """The values that it sends are known to it."""
    if not isinstance(body, dict):
        return ""
    return "".join(b64decode(w["value"]).decode("utf-8", "replace") for w in body.get("writes", ()) if "value" in w)


async def test_it_reads_no_key_and_lists_no_prefix_of_others(scene: Scene) -> None:
    await attempted(scene, reads(scene))


async def test_it_watches_nothing_of_others(scene: Scene) -> None:
    for _, _, body in reads(scene):
        prefix = body.get("prefix", body.get("key"))
        async with scene.attacker.stream("POST", "/v1/store/watch", json={"prefix": prefix, "after": 0}) as answer:
            async with asyncio.timeout(5):
                first = await anext(answer.aiter_lines(), "")
        assert "changes" not in json.loads(first), f"{prefix!r}: {first}"
        scene.require_silence(first, prefix)


async def test_it_writes_no_key_of_others_and_no_lie_about_itself(scene: Scene) -> None:
    await attempted(scene, writes(scene))


async def test_it_neither_keeps_nor_ends_another_hosts_session(scene: Scene) -> None:
    await attempted(scene, sessions(scene))
    answer = await scene.victim.post(f"/v1/store/sessions/{scene.session}/refresh", json={"ttl_s": 60})
    assert answer.status_code == 200
    assert answer.json()["id"] == scene.session


async def test_it_takes_no_endpoint_address_or_placement_over_the_api(scene: Scene) -> None:
    await attempted(scene, calls(scene))


async def test_the_attempts_are_many(scene: Scene) -> None:
    assert len([*reads(scene), *writes(scene), *sessions(scene), *calls(scene)]) > 300


async def test_what_it_sees_over_the_api_is_its_own_networks(scene: Scene) -> None:
    listed = await scene.attacker.get("/v1/networks")
    assert [item["id"] for item in listed.json()["items"]] == [scene.shared["id"]]
    assert (await scene.attacker.get(f"/v1/networks/{scene.shared['id']}")).status_code == 200
    there = await scene.attacker.get(f"/v1/networks/{scene.shared['id']}/endpoints")
    assert {item["host"] for item in there.json()["items"]} == {"h1", "h2"}
    journal = await scene.attacker.get("/v1/journal")
    assert {item["network"] for item in journal.json()["items"]} <= {scene.shared["id"]}
    of_jewels = await scene.attacker.get(f"/v1/journal?network={scene.jewels['id']}")
    assert of_jewels.json()["items"] == []
    for answer in (listed, there, journal, await scene.attacker.get("/v1/status")):
        scene.require_silence(answer.text, "")


async def test_it_cannot_take_a_just_released_address_of_another_host(scene: Scene) -> None:
    shared, address = f"/v1/networks/{scene.shared['id']}/endpoints", scene.theirs["address"]
    assert (await scene.victim.delete(f"{shared}/{scene.theirs['id']}")).status_code == 204
    wanted = {"name": "evil", "address": address, "reuse": True}
    taken = await scene.attacker.post(shared, json={"host": "h1", **wanted})
    assert (taken.status_code, taken.json()["code"]) == (409, "address-taken")
    moved = await scene.attacker.patch(f"{shared}/{scene.mine['id']}", json={"address": address, "reuse": True})
    assert (moved.status_code, moved.json()["code"]) == (409, "address-taken")
    back = await scene.victim.post(shared, json={"host": "h2", **wanted})
    assert back.status_code == 201, back.text


async def test_it_cannot_be_first_with_anothers_idempotency_key(scene: Scene) -> None:
    shared, key = f"/v1/networks/{scene.shared['id']}/endpoints", {"Idempotency-Key": "the-victims"}
    first = await scene.attacker.post(shared, json={"host": "h1", "name": "evil"}, headers=key)
    second = await scene.victim.post(shared, json={"host": "h2", "name": "good"}, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


async def test_a_name_of_its_own_endpoint_stands_for_that_and_not_for_anothers_of_that_name(scene: Scene) -> None:
    shared = f"/v1/networks/{scene.shared['id']}/endpoints"
    made_ = await scene.attacker.post(shared, json={"host": "h1", "name": "db"})
    assert made_.status_code == 201
    assert (await scene.attacker.delete(f"{shared}/db")).status_code == 204
    assert (await scene.site.admin.get(f"{shared}/{scene.theirs['id']}")).status_code == 200


async def test_it_answers_only_what_it_is_asked(scene: Scene) -> None:
    """A question that is put to the victim has an id that the attacker may guess right."""
    asking = asyncio.create_task(scene.site.admin.get("/v1/hosts/h2/doctor"))
    found: list[str] = []

    async def is_asked() -> bool:
        found[:] = [key for key in await scene.state() if key.startswith("questions/h2/")]
        return bool(found)

    await eventually(is_asked)
    question = found[0].rpartition("/")[2]
    forged = put(f"answers/{question}", Answer(question, "h1", 1.0, {"checks": []}))
    as_victim = put(f"answers/{question}", Answer(question, "h2", 1.0, {"checks": []}))
    for host in ("h1", "h2"):
        for write in (forged, as_victim):
            checks = [{"check": "present", "key": f"questions/{host}/{question}"}]
            answer = await scene.attacker.post("/v1/store/commit", json={"checks": checks, "writes": [write]})
            assert answer.status_code in (403, 409), answer.text
    assert f"answers/{question}" not in await scene.state()
    asking.cancel()


async def test_with_docker_it_may_make_networks_and_touches_none_of_others(scene: Scene) -> None:
    token = await scene.site.make("h1-docker", "host", host="h1", grants=["docker"])
    other = await made(scene.site, "/v1/holds", {"host": "h2"})
    before = await scene.state()
    async with scene.site.client(token) as docker:
        for method, path, body in (
            ("POST", "/v1/holds", {"host": "h2"}),
            ("POST", "/v1/holds", {"host": "h1", "cidr": "10.66.0.0/25", "force": True}),
            ("POST", "/v1/networks", {"holds": [other["id"]], "naming": True, "docker": {"host": "h1"}}),
            ("POST", "/v1/networks", {"name": "evil", "docker": {"host": "h2"}}),
            ("POST", "/v1/networks", {"name": "evil", "subnets": [{"cidr": SUBNET}], "force": True}),
            ("POST", "/v1/networks?dry_run=plan", {"name": "evil"}),
            ("GET", f"/v1/holds/{other['id']}", None),
            ("GET", "/v1/holds", None),
            ("DELETE", f"/v1/networks/{scene.jewels['id']}", None),
            ("DELETE", "/v1/networks/shared", None),
            ("POST", f"/v1/networks/{scene.jewels['id']}/name", {"name": "evil"}),
            ("PATCH", "/v1/networks/shared", {"labels": {"a": "b"}}),
            ("POST", "/v1/networks/prune", None),
        ):
            answer = await docker.request(method, path, json=body)
            assert 400 <= answer.status_code < 500, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        released = await docker.delete(f"/v1/holds/{other['id']}")
        assert released.status_code in (204, 404)
        assert await scene.state() == before

        mine = await docker.post("/v1/networks", json={"name": "mine", "docker": {"host": "h1"}})
        assert mine.status_code == 201, mine.text
        assert (await docker.delete("/v1/networks/mine")).status_code == 204


PIECES = [
    *(
        "",
        ".",
        "..",
        "*",
        "h1",
        "h2",
        "h10",
        "h",
        "local",
        "hosts",
        "alive",
        "endpoints",
        "networks",
        "addresses",
        "tokens",
    ),
    *(
        "secrets",
        "gateway",
        "questions",
        "answers",
        "observed",
        "inventory",
        "journal",
        "meta",
        "names",
        "blocks",
        ".kvnet",
    ),
    *("%2e%2e", "%2f", "\u0000", "\u2215", "\uff0f", " ", "JEWELS", "VAULT", "jewels-marker"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=6),
    op=st.sampled_from(["get", "list", "put", "delete", "check"]),
)
async def test_no_key_that_anybody_can_think_of_tells_or_changes_what_is_others(
    scene: Scene, parts: list[str], op: str
) -> None:
    key = "/".join(parts).replace("JEWELS", scene.jewels["id"]).replace("VAULT", scene.vault["id"])
    key = key.encode("utf-8", "ignore").decode()
    before = await scene.state()
    if op in ("get", "list"):
        answer = await scene.attacker.post(f"/v1/store/{op}", json={"key": key, "prefix": key})
    elif op == "check":
        checks = [{"check": "absent", "key": key}]
        answer = await scene.attacker.post("/v1/store/commit", json={"checks": checks, "writes": []})
    else:
        write = put(key, b"{}") if op == "put" else delete(key)
        answer = await scene.attacker.post("/v1/store/commit", json={"checks": [], "writes": [write]})
    assert answer.status_code < 500, answer.text
    text = answer.text
    if answer.status_code == 200 and op in ("get", "list"):
        plain = answer.json()
        text += "".join(b64decode(e["value"]).decode() for e in plain.get("entries") or [plain.get("entry")] if e)
        own = [*(f"{first}/h1" for first in ("local", "questions", "alive", "observed", "inventory", "reclaims"))]
        entries = plain.get("entries") or ([plain["entry"]] if plain.get("entry") else [])
        assert all(e["key"].startswith(("meta/", "hosts/", "names/", *own)) for e in entries), text
        if key.startswith("names/"):
            return  # it may join that network, and would be told as much
    scene.require_silence(text, key)
    assert await scene.state() == before


async def test_a_replica_that_lags_gives_it_no_mac_of_an_endpoint_that_another_one_has_just_made(
    shared_store: str,
) -> None:
    async with guarded(shared_store, upkeep=False) as one:
        network = await made(one, "/v1/networks", {"name": "net"})
        token = await one.make("h1", "host", host="h1")
        async with guarded(shared_store, one.token, upkeep=False) as other:
            victim = one.client(await one.make("h2", "host", host="h2"))
            attacker = other.client(token)
            path = f"/v1/networks/{network['id']}/endpoints"
            for number in range(20):
                theirs = (await victim.post(path, json={"host": "h2", "name": f"v{number}"})).json()
                taken = await attacker.post(path, json={"host": "h1", "name": "evil", "mac": theirs["mac"]})
                assert (taken.status_code, taken.json()["code"]) == (409, "address-taken"), taken.text
            await victim.aclose()
            await attacker.aclose()


async def test_a_host_that_is_removed_has_no_credential_any_more(scene: Scene) -> None:
    await scene.site.make("h1-second", "host", host="h1")
    await scene.site.make("h1-again", "join", host="h1")
    await scene.attacker.delete(f"/v1/store/sessions/{scene.own_session}")
    removed = await scene.site.admin.delete("/v1/hosts/h1?force=true")
    assert removed.status_code == 204, removed.text
    assert {token["host"] for token in await scene.tokens()} == {None, "h2", "h10"}

    async def is_out() -> bool:
        return (await scene.attacker.post("/v1/store/get", json={"key": "hosts/h1"})).status_code == 401

    await eventually(is_out)
    journal = (await scene.site.admin.get("/v1/journal")).json()["items"]
    kinds = [item["kind"] if "kind" in item else item["type"] for item in journal]
    assert kinds.count("token.deleted") == 3
    assert '"hash": "' not in json.dumps([item["before"] for item in journal]).replace('"hash": ""', "")
