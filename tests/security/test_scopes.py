"""A token that is limited by labels: what is outside is not there, on no route, in no stream, in no error.

The outside has words of its own (names, ids, addresses, labels). Whatever is asked, none of them may come back; and
what is asked by such a word is answered like what nobody ever made.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import httpx2
import pytest

from backends.open import open_store
from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Alive, Condition, NetworkObserved, Observed
from tests.api.under_test import eventually, problem_of, running
from tests.security.admitted import ADMIN, Guarded, bearer, guarded
from tests.security.test_roles import routes

pytestmark = pytest.mark.anyio

NEVER = "nobody-made-this"
SCOPE = {"team": "red"}
OUTSIDE = {"team": "blue-marker"}
_PASSING = re.compile(r'"(instance|revision|at|since|age|last_seen)": ?("[^"]*"|[0-9.]+|null)')


@dataclass
class World:
    """`words`: of the outside, in whatever form. `mine`, `other`: networks, with an endpoint of each."""

    site: Guarded
    client: httpx2.AsyncClient
    mine: dict[str, Any]
    my_endpoint: dict[str, Any]
    other: dict[str, Any]
    other_endpoint: dict[str, Any]
    words: list[str]

    def require_silence(self, text: str, asked: str = "") -> None:
        for word in self.words:
            if word not in asked:
                assert word not in text, f"{word!r} is told: {text[max(0, text.find(word) - 200) :][:400]}"


async def made(site: Guarded, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await site.admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
async def world(shared_store: str) -> AsyncIterator[World]:
    async with guarded(shared_store) as site:
        mine = await made(site, "/v1/networks", {"name": "mine", "labels": SCOPE})
        other = await made(
            site,
            "/v1/networks",
            {
                "name": "zz-hidden",
                "labels": OUTSIDE,
                "subnets": [{"cidr": "10.66.0.0/24", "reserved": {"zz-fix": "10.66.0.9"}}],
            },
        )
        gone = await made(site, "/v1/networks", {"name": "zz-gone", "labels": OUTSIDE})
        port = [{"port": 80, "host_port": 8080}]
        my_end = await made(site, f"/v1/networks/{mine['id']}/endpoints", {"host": "h1", "name": "web"})
        end = await made(site, f"/v1/networks/{other['id']}/endpoints", {"host": "h1", "name": "zz-end", "ports": port})
        gone_end = await made(site, f"/v1/networks/{gone['id']}/endpoints", {"host": "h2", "name": "zz-gone-end"})
        await made(site, f"/v1/networks/{other['id']}/reservations", {"name": "zz-reserved", "address": "10.66.0.77"})
        await made(site, f"/v1/networks/{mine['id']}/peers/{other['id']}", {})
        for path in (f"/v1/networks/{gone['id']}/endpoints/{gone_end['id']}", f"/v1/networks/{gone['id']}"):
            assert (await site.admin.delete(path)).status_code == 204
        await _report(shared_store, mine["id"], other["id"])
        token = await site.make("red", "operator", scope=SCOPE)
        words = [other["id"], gone["id"], end["id"], gone_end["id"], end["mac"], gone_end["mac"], end["address6"]]
        words += ["zz-", "10.66.", "blue-marker", *(block["cidr"] for block in (*other["subnets"], *gone["subnets"]))]
        async with site.client(token) as client:
            yield World(site, client, mine, my_end, other, end, [word for word in words if word])


async def _report(url: str, mine: str, other: str) -> None:
    """A host that says of both networks what names the outside."""
    told = Condition("vni-missing", "network zz-hidden has no VNI", 1.0)
    seen = {mine: NetworkObserved(1, (told,)), other: NetworkObserved(1, (told,))}
    async with await open_store(url) as store:
        alive = Put(keys.alive("h1"), codec.encode(Alive("h1", "x", 1.0)))
        await store.commit([], [alive, Put(keys.observed("h1"), codec.encode(Observed("h1", 2.0, seen)))])


def paths(values: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Every GET route with every combination of values; and the same with a word that stands for nothing."""
    for method, route in routes():
        if method != "GET" or route.path.startswith(("/docs", "/dashboard", "/openapi", "/problems")):
            continue
        if route.path in ("/v1/events", "/", "/livez", "/healthz", "/readyz"):
            continue
        holes = re.findall(r"\{(\w+)(?::path)?\}", route.path)
        for chosen in product(*(values.get(hole, [NEVER]) for hole in holes)):
            path = never = re.sub(r":path\}", "}", route.path)
            for hole, value in zip(holes, chosen, strict=True):
                path = path.replace(f"{{{hole}}}", value)
                never = never.replace(f"{{{hole}}}", NEVER if value.startswith(("zz-", "/")) else value)
            yield path, never


async def test_no_get_route_tells_a_word_of_the_outside(world: World) -> None:
    values = {
        "network": ["mine", world.mine["id"], "zz-hidden", world.other["id"], NEVER],
        "endpoint": ["web", world.my_endpoint["id"], "zz-end", world.other_endpoint["id"]],
        "host": ["h1", "h2"],
        "address": ["10.66.0.2", world.my_endpoint["address"], "10.66.0.77"],
        "cidr": ["10.66.0.0_24", "10.0.0.0_8", "fd00::_8"],
        "pool": ["default"],
        "token": ["root"],
    }
    asked = 0
    for path, _ in paths(values):
        answer = await world.client.get(path)
        assert answer.status_code < 500, answer.text
        world.require_silence(answer.text, path.replace("_", "/") + path)
        asked += 1
    assert asked > 60
    for query in (
        "/v1/networks?label=team",
        "/v1/networks?name=zz-hidden",
        "/v1/endpoints?address=10.66.0.2",
        "/v1/endpoints?host=h1",
        "/v1/endpoints?name=zz-end",
        "/v1/journal?limit=500",
        "/v1/journal?network=zz-hidden",
        f"/v1/journal?network={world.other['id']}",
        "/v1/journal?address=10.66.0.77",
        "/v1/journal?host=h1&limit=500",
        "/v1/hosts/h1/ports?port=8080",
        "/v1/networks/mine/convergence?wait=0.1",
    ):
        answer = await world.client.get(query)
        assert answer.status_code == 200, answer.text
        world.require_silence(answer.text, query)


async def test_the_inside_is_all_there(world: World) -> None:
    networks = (await world.client.get("/v1/networks")).json()["items"]
    assert [network["name"] for network in networks] == ["mine"]
    assert networks[0]["peers"] == []
    assert networks[0]["endpoints"] == 1
    endpoints = (await world.client.get("/v1/endpoints")).json()["items"]
    assert [one["name"] for one in endpoints] == ["web"]
    status = (await world.client.get("/v1/status")).json()
    assert (status["networks"], status["endpoints"], status["hosts"]) == (1, 1, 3)
    journal = (await world.client.get("/v1/journal?limit=500")).json()["items"]
    assert {"network.created", "endpoint.created", "network.peered"} <= {item["kind"] for item in journal}
    host = (await world.client.get("/v1/hosts/h1")).json()
    assert host["endpoints"] == 1


async def test_what_is_outside_is_answered_like_what_nobody_made(world: World) -> None:
    """Whatever the method: status, code and words are the same, but for the word that was asked."""
    hidden = {"zz-hidden": NEVER, world.other["id"]: "f" * 12}
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/networks/{n}", None),
        ("PATCH", "/v1/networks/{n}", {"labels": {"a": "b"}}),
        ("DELETE", "/v1/networks/{n}", None),
        ("POST", "/v1/networks/{n}/name", {"name": "x"}),
        ("POST", "/v1/networks/mine/peers/{n}", None),
        ("DELETE", "/v1/networks/mine/peers/{n}", None),
        ("POST", "/v1/networks/{n}/peers/mine", None),
        ("GET", "/v1/networks/{n}/convergence", None),
        ("GET", "/v1/networks/{n}/endpoints", None),
        ("POST", "/v1/networks/{n}/endpoints", {"host": "h1", "name": "x"}),
        ("POST", "/v1/networks/{n}/endpoints?dry_run=plan", {"host": "h1", "name": "x"}),
        ("POST", "/v1/networks/{n}/endpoints", {"items": [{"host": "h1", "name": "x"}]}),
        ("GET", "/v1/networks/{n}/endpoints/zz-end", None),
        ("PATCH", "/v1/networks/{n}/endpoints/zz-end", {"name": "x"}),
        ("DELETE", "/v1/networks/{n}/endpoints/zz-end", None),
        ("GET", "/v1/networks/{n}/reservations", None),
        ("POST", "/v1/networks/{n}/reservations", {"name": "x"}),
        ("DELETE", "/v1/networks/{n}/reservations/zz-reserved", None),
        ("GET", "/v1/endpoints?network={n}", None),
        ("GET", "/v1/journal?network={n}", None),
        ("GET", "/v1/events?network={n}", None),
        ("POST", "/v1/trace", {"from": "{n}/zz-end", "to": "mine/web"}),
        ("POST", "/v1/connectivity", {"networks": ["{n}"]}),
    ]
    for (method, path, body), (word, never) in product(calls, hidden.items()):
        told = []
        for name in (word, never):
            sent = None if body is None else json.loads(json.dumps(body).replace("{n}", name))
            answer = await world.client.request(method, path.format(n=name), json=sent)
            text = _PASSING.sub("", answer.text).replace(word, "WORD").replace(never, "WORD")
            told.append((answer.status_code, text))
        assert told[0] == told[1], f"{method} {path}"
        assert told[0][0] == (200 if "/v1/journal" in path else 404), (method, path, told)
    assert (await world.site.admin.get("/v1/networks/zz-hidden")).json()["endpoints"] == 1


async def test_conflicts_with_the_outside_name_nothing(world: World) -> None:
    post = world.client.post
    subnet = await post("/v1/networks", json={"name": "a", "subnets": [{"cidr": "10.66.0.0/16"}]})
    problem_of(subnet, 409, "subnet-taken")
    taken = await post("/v1/networks", json={"name": "zz-hidden"})
    problem_of(taken, 409, "name-taken")
    port = {"host": "h1", "name": "e", "ports": [{"port": 80, "host_port": 8080}]}
    held = await post("/v1/networks/mine/endpoints", json=port)
    problem_of(held, 409, "port-taken")
    many = await post("/v1/networks/mine/endpoints", json={"items": [port]})
    same_id = await post("/v1/networks", json={"name": "b", "id": world.other["id"]})
    plan = await post("/v1/networks?dry_run=plan", json={"name": "a", "subnets": [{"cidr": "10.66.0.0/16"}]})
    for answer, asked in (
        (subnet, "10.66.0.0/16"),
        (taken, "zz-hidden"),
        (held, ""),
        (many, ""),
        (plan, "10.66.0.0/16"),
    ):
        text = answer.text.replace(asked, "") if asked else answer.text
        world.require_silence(text)
    world.require_silence(same_id.text, world.other["id"])
    assert same_id.status_code == 409


async def test_what_it_makes_bears_its_labels_and_keeps_them(world: World) -> None:
    created = await world.client.post("/v1/networks", json={"name": "new", "labels": {"tier": "db"}})
    assert created.json()["labels"] == {"tier": "db", **SCOPE}
    wrong = await world.client.post("/v1/networks", json={"name": "wrong", "labels": {"team": "blue-marker"}})
    assert problem_of(wrong, 422, "invalid")["errors"][0]["pointer"] == "/labels/team"
    for labels in ({"team": None}, {"team": "blue"}, {"team": ""}):
        away = await world.client.patch("/v1/networks/new", json={"labels": labels})
        problem_of(away, 422, "invalid")
    kept = await world.client.patch("/v1/networks/new", json={"labels": {"tier": None, "team": "red"}})
    assert kept.json()["labels"] == SCOPE
    docker = {"name": "d", "docker": {"labels": {"team": "blue-marker"}}}
    made = await world.client.post("/v1/networks", json=docker)
    assert made.status_code == 422 or made.json()["labels"]["team"] == "red"


async def test_plans_prune_and_changes_stay_inside(world: World) -> None:
    for method, path, body in (
        ("DELETE", "/v1/networks/mine/endpoints/web?dry_run=plan", None),
        ("PATCH", "/v1/networks/mine?dry_run=plan", {"mtu": 1300}),
        ("POST", "/v1/networks/mine/endpoints?dry_run=plan", {"host": "h2", "name": "x"}),
        ("POST", "/v1/networks/mine/endpoints", {"host": "h2", "name": "x"}),
        ("PATCH", "/v1/networks/mine", {"mtu": 1300}),
        ("POST", "/v1/trace", {"from": "mine/web", "to": "mine/x", "ask": False}),
        ("POST", "/v1/networks/prune?dry_run=true", None),
        ("POST", "/v1/networks/prune", None),
    ):
        answer = await world.client.request(method, path, json=body)
        assert answer.status_code in (200, 201), answer.text
        world.require_silence(answer.text)
    await made(world.site, "/v1/networks", {"name": "zz-unused", "labels": OUTSIDE})
    pruned = await world.client.post("/v1/networks/prune")
    assert pruned.json()["deleted"] == []
    assert (await world.site.admin.get("/v1/networks/zz-unused")).status_code == 200


async def test_an_idempotency_key_of_others_is_not_its_own(world: World) -> None:
    key = {"Idempotency-Key": "same-key"}
    first = await world.site.admin.post("/v1/networks", json={"name": "zz-keyed", "labels": OUTSIDE}, headers=key)
    assert first.status_code == 201
    second = await world.client.post("/v1/networks", json={"name": "keyed"}, headers=key)
    assert second.status_code == 201, second.text
    assert second.json()["name"] == "keyed"
    again = await world.client.post("/v1/networks", json={"name": "keyed"}, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, second.json()["id"])


async def test_a_value_of_the_outside_that_nobody_can_read_is_not_told_of(world: World, shared_store: str) -> None:
    async with await open_store(shared_store) as store:
        await store.commit([], [Put(keys.endpoint(world.other["id"], "zz-broken"), b"junk")])

    async def is_known() -> bool:
        return "zz-broken" in (await world.site.admin.get("/v1/status")).text

    await eventually(is_known)
    world.require_silence((await world.client.get("/v1/status")).text)
    async with world.site.client(await world.site.make("h9", "host", host="h9")) as host:
        world.require_silence((await host.get("/v1/status")).text)


async def test_a_cursor_of_others_leads_to_nothing_outside(world: World) -> None:
    await made(world.site, "/v1/networks", {"name": "zz-more", "labels": OUTSIDE})
    page = (await world.site.admin.get("/v1/networks?limit=1")).json()
    rest = await world.client.get(f"/v1/networks?limit=1&cursor={page['next_cursor']}")
    assert rest.status_code == 200
    world.require_silence(rest.text)
    assert rest.json()["items"] == []


async def test_streams_tell_the_past_and_what_happens_without_the_outside(world: World) -> None:
    """With what happens outside all the while: creation, change, status, removal; a network that comes in, and goes."""
    admin = world.site.admin
    got: list[str] = []
    seen = asyncio.Event()

    async def listen() -> None:
        async with world.client.stream("GET", "/v1/events?since=0") as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                got.append(line)
                if "the-end" in line:
                    seen.set()
                    return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        late = await made(world.site, "/v1/networks", {"name": "zz-late", "labels": OUTSIDE})
        world.words.append(late["id"])
        end = await made(world.site, f"/v1/networks/{late['id']}/endpoints", {"host": "h1", "name": "zz-late-end"})
        await admin.patch(f"/v1/networks/{late['id']}", json={"labels": {"more": "zz-more"}})
        await admin.delete(f"/v1/networks/{late['id']}/endpoints/{end['id']}")
        await admin.delete(f"/v1/networks/{late['id']}")
        passing = await made(world.site, "/v1/networks", {"name": "passing", "labels": OUTSIDE})
        await admin.patch("/v1/networks/passing", json={"labels": SCOPE})
        await admin.patch("/v1/networks/passing", json={"labels": {"team": "blue-marker"}})
        await world.site.make("another", "viewer")
        await made(world.site, f"/v1/networks/{world.mine['id']}/endpoints", {"host": "h1", "name": "second"})

        async def has_states() -> bool:
            return all(f'"kind":"{kind}.status"' in "\n".join(got) for kind in ("network", "host"))

        await eventually(has_states)
        await made(world.site, "/v1/networks", {"name": "the-end", "labels": SCOPE})
        async with asyncio.timeout(10):
            await seen.wait()
    text = "\n".join(got)
    world.require_silence(text)
    assert passing["id"] in text
    assert "token." not in text
    kinds = set(re.findall(r'"kind":"([a-z.]+)"', text))
    assert {"network.created", "endpoint.created", "network.updated", "network.status", "host.status"} <= kinds, kinds


async def test_the_past_of_a_network_of_ones_own_is_told_after_it_went(shared_store: str) -> None:
    """Also by a replica that never saw it."""
    async with guarded(shared_store) as site:
        mine = await made(site, "/v1/networks", {"name": "mine", "labels": SCOPE})
        end = await made(site, f"/v1/networks/{mine['id']}/endpoints", {"host": "h1", "name": "web"})
        assert (await site.admin.delete(f"/v1/networks/{mine['id']}/endpoints/{end['id']}")).status_code == 204
        assert (await site.admin.delete(f"/v1/networks/{mine['id']}")).status_code == 204
        token = await site.make("red", "viewer", scope=SCOPE)
        root = site.token
    async with guarded(shared_store, root) as site, site.client(token) as client:
        items = (await client.get("/v1/journal?limit=500")).json()["items"]
        assert sorted(item["kind"] for item in items if item["kind"].startswith("endpoint.")) == [
            "endpoint.created",
            "endpoint.deleted",
        ]


async def test_without_authentication_nothing_is_hidden() -> None:
    async with running("memory://") as api:
        await api.network(labels=OUTSIDE)
        assert len((await api.get("/v1/networks")).json()["items"]) == 1
        token = (await api.post("/v1/tokens", ADMIN)).json()["token"]
        assert len((await api.get("/v1/networks", **bearer(token))).json()["items"]) == 1
