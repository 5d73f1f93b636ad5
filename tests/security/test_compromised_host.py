"""A host turned hostile: it has a valid credential, knows every id, and tries everything.

`h1` is the attacker. It takes part in `shared`, with `h2`; `jewels` is h2's alone. Whatever it sends, nothing of others
changes, and nothing of `jewels` is told. What it may do with what is its own is in `test_host_store`.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvnet.questions import Answer
from tests.api.under_test import eventually
from tests.security.admitted import guarded
from tests.security.hostile import SUBNET, Attempt, Scene, decoded, delete, made, put, scene_on
from tests.security.hostile_calls import calls
from tests.security.hostile_store import reads, sessions, writes

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scene(shared_store: str) -> AsyncIterator[Scene]:
    async with scene_on(shared_store) as made_:
        yield made_


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
