"""The audit journal over HTTP and on the command line: who did what, whether it fits, and all of it to take away."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from backends.open import open_store
from backends.store import MAX_OPERATIONS, Delete, Present, Put, Refused, TooLarge
from kvnet import keys
from tests.api.under_test import eventually, problem_of
from tests.security.admitted import Guarded

pytestmark = pytest.mark.anyio

HASH = "0" * 64


async def lines(site: Guarded, query: str = "") -> list[dict[str, Any]]:
    answer = await site.admin.get(f"/v1/audit/export{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


async def sealed(site: Guarded) -> dict[str, Any]:
    """The verdict when all is sealed."""
    found: dict[str, Any] = {}

    async def is_all() -> bool:
        found.update((await site.admin.get("/v1/audit/verify")).json())
        return found["unsealed"] == 0 and found["head"] is not None

    await eventually(is_all)
    return found


async def test_who_did_what_from_where_is_asked_by_each_of_them(site: Guarded) -> None:
    text = await site.make("alice", "operator")
    async with site.client(text) as alice:
        headers = {"x-request-id": "req-1", "x-kvnet-actor": "bob"}
        assert (await alice.post("/v1/networks", json={"name": "of-alice"}, headers=headers)).status_code == 201
    assert (await site.admin.post("/v1/networks", json={"name": "of-root"})).status_code == 201

    async def found(query: str) -> list[str]:
        items = (await site.admin.get(f"/v1/journal?{query}")).json()["items"]
        return [f"{one['actor']} {one['kind']}" for one in items]

    assert await found("actor=alice") == ["alice network.created"]
    assert await found("request_id=req-1") == ["alice network.created"]
    assert await found("kind=network&source=127.0.0.1") == ["root network.created", "alice network.created"]
    assert "alice network.created" not in await found("kind=net")
    assert await found("network=of-alice&actor=root") == []
    assert await found("since=2999-01-01T00:00:00Z") == []
    assert await found("actor=alice&until=2999-01-01T00:00:00Z") == ["alice network.created"]
    (one,) = (await site.admin.get("/v1/journal?request_id=req-1")).json()["items"]
    assert (one["claimed"], one["source"], one["before"]) == ("bob", "127.0.0.1", None)
    assert one["after"]["name"] == "of-alice"
    problem_of(await site.admin.get("/v1/journal?since=yesterday"), 422, "invalid")
    problem_of(await site.admin.get("/v1/journal?since=2026-01-01T00:00:00"), 422, "invalid")


async def test_changes_of_tokens_are_in_it_without_what_would_let_anybody_in(site: Guarded) -> None:
    text = await site.make("carol", "viewer")
    await site.admin.post(f"/v1/tokens/{site.made['carol']}/rotate", json={})
    await site.admin.delete(f"/v1/tokens/{site.made['carol']}")

    told: list[dict[str, Any]] = []

    async def are_told() -> bool:  # the journal's mirror may hear of them a moment later
        told[:] = [line for line in await lines(site, "?kind=token") if line["type"] == "change"]
        kinds = [line["kind"] for line in told if "carol" in json.dumps(line)]
        return kinds == ["token.created", "token.rotated", "token.deleted"]

    await eventually(are_told)
    assert re.findall(r'"(?:hash|previous|joined_hash)": "[^"]+"', json.dumps(told)) == []
    assert text.rpartition("_")[2] not in json.dumps(told)


async def test_the_journal_fits_and_its_head_can_be_kept(site: Guarded) -> None:
    await site.admin.post("/v1/networks", json={"name": "kept"})
    verdict = await sealed(site)
    assert verdict["ok"], verdict

    await site.admin.post("/v1/networks", json={"name": "later"})
    later = (await site.admin.get("/v1/audit/verify", params={"head": verdict["head"]})).json()
    assert later["ok"]
    other = (await site.admin.get("/v1/audit/verify", params={"head": HASH})).json()
    assert not other["ok"]
    assert "not in this chain" in other["misfits"][0]["detail"]
    problem_of(await site.admin.get("/v1/audit/verify?head=x"), 422, "invalid")


async def test_an_export_has_everything_in_order_and_says_when_it_is_whole(site: Guarded) -> None:
    for n in range(5):
        await site.admin.post("/v1/networks", json={"name": f"n{n}"})
    verdict = await sealed(site)

    told = await lines(site)

    changes = [line for line in told if line["type"] == "change"]
    seals = [line for line in told if line["type"] == "seal"]
    assert [line["revision"] for line in changes] == sorted(line["revision"] for line in changes)
    assert [seal["previous"] for seal in seals[1:]] == [seal["hash"] for seal in seals[:-1]]
    assert told[-1] == {"type": "end", "changes": len(changes), "kept_from": 0, "head": verdict["head"]}
    assert [line["after"]["name"] for line in await lines(site, "?kind=network.created") if line["type"] == "change"]
    assert (await lines(site, "?actor=nobody"))[-1]["changes"] == 0


async def test_who_sees_only_some_networks_gets_neither_chain_nor_export_and_a_viewer_no_tokens(site: Guarded) -> None:
    scoped, viewer = await site.make("red", "admin", scope={"team": "red"}), await site.make("eve", "viewer")
    async with site.client(scoped) as red, site.client(viewer) as eve:
        for path in ("/v1/audit/export", "/v1/audit/verify", "/v1/audit/seals"):
            problem_of(await red.get(path), 403, "forbidden")
            assert (await eve.get(path)).status_code == 200
        assert '"kind":"token' not in (await eve.get("/v1/audit/export")).text
        assert '"kind":"token' in (await site.admin.get("/v1/audit/export")).text


async def test_what_an_admin_writes_into_the_store_past_the_api_is_in_it_too(site: Guarded) -> None:
    async with await open_store(site.api.url, token=site.token) as store:
        await store.commit([], [Put(keys.pool("mine"), b'{"v":1,"name":"mine"}'), Delete(keys.network("gone"))])
        await store.commit([], [Put(keys.observed("h1"), b"{}")])

    told = [line for line in await lines(site, "?kind=store") if line["type"] == "change"]

    assert [(one["kind"], one["key"], one["actor"]) for one in told] == [
        ("store.written", "pools/mine", "root"),
        ("store.deleted", "networks/gone", "root"),
    ]


@pytest.mark.parametrize("key", [keys.JOURNAL_FLOOR, keys.journal(1.0, "0" * 12), keys.seal(9)])
async def test_nobody_takes_back_through_the_gateway_what_the_journal_says(site: Guarded, key: str) -> None:
    await site.admin.post("/v1/networks", json={"name": "n"})
    head = (await sealed(site))["head"]
    async with await open_store(site.api.url, token=site.token) as store:
        for write in (Put(key, b"{}"), Delete(key)):
            with pytest.raises(Refused):
                await store.commit([], [write])
            with pytest.raises(Refused):
                await store.commit([Present(keys.CLUSTER)], [Put(keys.LEVEL, b"{}"), write])
    assert (await site.admin.get("/v1/audit/verify", params={"head": head})).json()["ok"] is True


async def test_no_shape_of_a_commit_leaves_the_journal_without_it(site: Guarded) -> None:
    async with await open_store(site.api.url, token=site.token) as store:
        cluster = await store.get(keys.CLUSTER)
        assert cluster is not None
        await store.commit([], [Put(keys.CLUSTER, cluster.value), Put(keys.pool("mine"), b'{"v":1,"name":"mine"}')])
        with pytest.raises(TooLarge):
            await store.commit([], [Put(keys.pool(f"p{n}"), b"{}") for n in range(MAX_OPERATIONS)])
        with pytest.raises(TooLarge):
            await store.commit([Present(keys.CLUSTER)] * (MAX_OPERATIONS - 1), [Delete(keys.pool("mine"))])

    told = [line["key"] for line in await lines(site, "?kind=store") if line["type"] == "change"]

    assert told == [keys.CLUSTER, keys.pool("mine")]


async def test_who_joined_and_with_what_only_an_admin_hears(site: Guarded) -> None:
    text = await site.make("h9-join", "join", host="h9", scope={"team": "blue"}, expires_in_s=60)
    async with site.client(None) as nobody:
        assert (await nobody.post("/v1/join", json={"token": text, "hash": "5f" * 32})).status_code == 200
    red, viewer = await site.make("red", "operator", scope={"team": "red"}), await site.make("eve", "viewer")
    assert '"host.joined"' in (await site.admin.get("/v1/journal")).text
    for token in (red, viewer):
        async with site.client(token) as client:
            assert '"host.joined"' not in (await client.get("/v1/journal")).text
