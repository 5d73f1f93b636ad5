"""Tokens: made, told once, rotated, removed; and what is open with one ends with it, on every replica."""

from __future__ import annotations

import asyncio
import json
import time

import httpx2
import pytest

from backends.open import open_store
from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Alive
from tests.api.under_test import parse, problem_of, running, until
from tests.security.admitted import ADMIN, Guarded, bearer, guarded

pytestmark = pytest.mark.anyio
SOON_S = 2.0


async def test_a_cluster_without_tokens_asks_nobody_on_its_own_machine() -> None:
    async with running("memory://") as api:
        who = (await api.get("/v1/whoami")).json()
        assert (who["role"], who["via"]) == ("admin", "open")
        assert (await api.get("/v1/authentication")).json()["required"] is False


@pytest.mark.parametrize(
    ("host", "is_heard"),
    [("evil.example:7480", False), ("evil.example", False), ("127.0.0.1.evil.example:80", False)]
    + [(one, True) for one in ("127.0.0.1:7480", "localhost:7480", "[::1]:7480", "controller:7480", "a.localhost:1")],
)
async def test_a_page_whose_name_points_to_this_machine_is_not_this_machine(host: str, is_heard: bool) -> None:
    async with running("memory://") as api:
        asked = await api.get("/v1/networks", Host=host)
        made = await api.post("/v1/networks", {"name": "n"}, Host=host, Origin=f"http://{host}")
    if is_heard:
        assert (asked.status_code, made.status_code) == (200, 201)
    else:
        problem_of(asked, 403, "authentication-required")
        problem_of(made, 403, "authentication-required")


async def test_the_first_token_closes_the_cluster() -> None:
    async with running("memory://") as api:
        made = await api.post("/v1/tokens", ADMIN)
        assert made.headers["cache-control"] == "no-store"
        told = problem_of(await api.get("/v1/networks"), 401, "unauthenticated")
        assert "kvnet token create" in told["fix"]
        assert (await api.get("/v1/networks", **bearer(made.json()["token"]))).status_code == 200
        refused = await api.get("/v1/networks")
        assert refused.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "wall", "role": "viewer"},
        {"name": "h1-join", "role": "join", "host": "h1"},
        {"name": "red", "role": "admin", "scope": {"team": "red"}},
    ],
)
async def test_the_first_token_is_an_admins_or_none_is_made(body: dict[str, object]) -> None:
    async with running("memory://") as api:
        problem_of(await api.http.post("/v1/tokens", json=body), 409, "last-admin")
        assert (await api.http.get("/v1/networks")).status_code == 200
        made = await api.http.post("/v1/tokens", json=ADMIN)
        assert made.status_code == 201
        admin = bearer(made.json()["token"])
        assert (await api.http.post("/v1/tokens", json=body, headers=admin)).status_code == 201


async def test_what_is_not_good_is_refused_in_the_same_words_whatever_is_wrong_with_it(site: Guarded) -> None:
    token = await site.make("t", "viewer")
    other = await site.make("other", "viewer")
    wrong = [
        f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        f"Bearer {token[:18]}{other[18:]}",
        f"Bearer kvnet_{'0' * 12}_{'A' * 43}",
        "Bearer",
        "Bearer x",
        "Basic cm9vdDpyb290",
        f"Bearer {token} {token}",
        token,
    ]
    details = set()
    async with site.client(None) as client:
        for text in wrong:
            answer = await client.get("/v1/networks", headers={"Authorization": text})
            details.add(problem_of(answer, 401, "unauthenticated")["detail"])
    assert len(details) == 1


async def test_nothing_ever_tells_a_secret_or_its_hash_again(site: Guarded) -> None:
    token = await site.make("t", "viewer", scope={"team": "a"})
    secret = token[18:]
    for path in ("/v1/tokens", "/v1/tokens/t", f"/v1/tokens/{site.made['t']}", "/v1/journal"):
        text = (await site.admin.get(path)).text
        assert secret not in text
        assert "hash" not in text or '"hash":""' in text


async def test_a_token_is_found_by_id_and_name_and_its_name_is_its_own(site: Guarded) -> None:
    await site.make("t", "operator", limits={"rate": 5})
    by_id = (await site.admin.get(f"/v1/tokens/{site.made['t']}")).json()
    assert by_id == (await site.admin.get("/v1/tokens/t")).json()
    assert by_id["limits"] == {"networks": None, "endpoints": None, "rate": 5, "streams": None}
    again = await site.admin.post("/v1/tokens", json={"name": "t", "role": "viewer"})
    problem_of(again, 409, "name-taken")
    problem_of(await site.admin.get("/v1/tokens/nobody"), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "role": "god"},
        {"name": "x", "role": "host"},
        {"name": "x", "role": "viewer", "host": "h1"},
        {"name": "x y", "role": "viewer"},
        {"name": "x", "role": "viewer", "expires_in_s": 0},
        {"name": "x", "role": "viewer", "limits": {"rate": -1}},
        {"name": "x", "role": "viewer", "limits": {"rate": 5e-324}},
        {"name": "x", "role": "operator", "grants": ["docker"]},
        {"name": "x", "role": "viewer", "scope": {"": "a"}},
        {"name": "x", "role": "viewer", "scope": {"team": "a\n"}},
        {"name": "x", "role": "viewer", "hash": "0" * 64},
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(site: Guarded, body: dict[str, object]) -> None:
    assert (await site.admin.post("/v1/tokens", json=body)).status_code == 422
    assert len((await site.admin.get("/v1/tokens")).json()["items"]) == 1


async def test_the_last_admin_stays(site: Guarded) -> None:
    problem_of(await site.admin.delete("/v1/tokens/root"), 409, "last-admin")
    await site.make("limited", "admin", scope={"team": "a"})
    problem_of(await site.admin.delete("/v1/tokens/root"), 409, "last-admin")
    await site.make("second", "admin")
    assert (await site.admin.delete("/v1/tokens/root")).status_code == 204


async def test_two_admins_cannot_remove_each_other(site: Guarded) -> None:
    second = await site.make("second", "admin")
    async with site.client(second) as client:
        gone = await asyncio.gather(client.delete("/v1/tokens/root"), site.admin.delete("/v1/tokens/second"))
    assert sorted(answer.status_code for answer in gone) in ([204, 401], [204, 409])


async def test_of_many_who_make_a_token_of_one_name_one_does(site: Guarded) -> None:
    made = await asyncio.gather(
        *(site.admin.post("/v1/tokens", json={"name": "same", "role": "viewer"}) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in made) == [201] + [409] * 7


async def test_a_rotated_token_has_another_secret_and_the_old_one_as_long_as_it_was_granted(site: Guarded) -> None:
    old = await site.make("t", "viewer")
    answer = await site.admin.post("/v1/tokens/t/rotate", json={"grace_s": 60})
    new = answer.json()["token"]
    assert new[:18] == old[:18]
    async with site.client(old) as with_old, site.client(new) as with_new:
        assert (await with_old.get("/v1/whoami")).status_code == 200
        assert (await with_new.get("/v1/whoami")).status_code == 200
        newer = (await site.admin.post("/v1/tokens/t/rotate", json={})).json()["token"]
        assert (await with_old.get("/v1/whoami")).status_code == 401
        assert (await with_new.get("/v1/whoami")).status_code == 401
    async with site.client(newer) as client:
        assert (await client.get("/v1/whoami")).json()["name"] == "t"


async def test_an_expired_token_is_good_for_nothing_and_its_name_is_free(site: Guarded) -> None:
    token = await site.make("t", "viewer", expires_in_s=0.2)
    async with site.client(token) as client, asyncio.timeout(SOON_S):
        while (await client.get("/v1/whoami")).status_code == 200:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)
    assert (await site.admin.get("/v1/tokens/t")).json()["expired"] is True
    assert (await site.make("t", "viewer")) != token


async def test_authentication_can_be_switched_off_and_on_and_never_locks_out(site: Guarded) -> None:
    async with site.client(None) as nobody:
        off = await site.admin.put("/v1/authentication", json={"required": False})
        assert off.json()["required"] is False
        assert (await nobody.get("/v1/networks")).status_code == 200
        assert (await nobody.get("/v1/networks", headers=bearer("wrong"))).status_code == 401
        assert (await nobody.put("/v1/authentication", json={"required": True})).json()["required"] is True
        assert (await nobody.get("/v1/networks")).status_code == 401


async def test_who_did_what_is_in_the_journal_and_what_a_caller_claims_beside_it(site: Guarded) -> None:
    token = await site.make("ci", "operator")
    async with site.client(token) as client:
        made = await client.post("/v1/networks", json={"name": "n"}, headers={"X-Kvnet-Actor": "root"})
        assert made.status_code == 201
    item = (await site.admin.get("/v1/journal?network=n")).json()["items"][0]
    assert (item["actor"], item["claimed"]) == ("ci", "root")


async def test_a_removed_token_ends_on_every_replica_with_all_that_is_open(shared_store: str) -> None:
    async with guarded(shared_store) as one, guarded(shared_store, one.token) as two:
        token = await one.make("t", "viewer")
        async with await open_store(shared_store) as store:
            await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "x", 1.0)))])
        made = (await one.admin.post("/v1/networks", json={"name": "n"})).json()
        await one.admin.post(f"/v1/networks/{made['id']}/endpoints", json={"host": "h1", "name": "e"})
        for site in (one, two):
            async with site.client(token) as client, asyncio.TaskGroup() as tasks:
                while (await client.get("/v1/networks/n/convergence")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                stream = tasks.create_task(_until_it_ends(client))
                wait = tasks.create_task(client.get("/v1/networks/n/convergence?wait=30"))
                while site.api.url and not _has_stream(await site.admin.get("/metrics")):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                began = time.monotonic()
                assert (await (two if site is one else one).admin.delete("/v1/tokens/t")).status_code == 204
                await stream
                refused = await wait
                assert time.monotonic() - began < SOON_S
                assert refused.status_code == 401
                assert (await client.get("/v1/whoami")).status_code == 401
            token = await one.make("t", "viewer") if site is one else token


async def test_a_stream_ends_with_its_tokens_time(site: Guarded) -> None:
    token = await site.make("t", "viewer", expires_in_s=0.5)
    began = time.monotonic()
    async with site.client(token) as client:
        await _until_it_ends(client)
    assert 0.3 < time.monotonic() - began < 0.5 + SOON_S


async def test_a_stream_with_a_secret_that_was_rotated_ends_when_that_does(site: Guarded) -> None:
    old = await site.make("t", "viewer")
    began = time.monotonic()
    assert (await site.admin.post("/v1/tokens/t/rotate", json={"grace_s": 0.5})).status_code == 200
    async with site.client(old) as client:
        await _until_it_ends(client)
    assert 0.2 < time.monotonic() - began < 0.5 + SOON_S


async def test_a_watch_of_the_gateway_ends_with_its_token(site: Guarded) -> None:
    token = await site.make("second", "admin")
    async with site.client(token) as client:
        body = {"prefix": "networks/", "after": 0}
        async with client.stream("POST", "/v1/store/watch", json=body) as answer:
            assert answer.status_code == 200
            assert (await site.admin.delete("/v1/tokens/second")).status_code == 204
            async with asyncio.timeout(SOON_S):
                async for _ in answer.aiter_lines():
                    pass


async def test_streams_that_nobody_was_asked_for_end_when_the_cluster_begins_to_ask() -> None:
    async with running("memory://") as api, api.events() as events:
        await until(events, lambda e: e.type == "bookmark")
        await api.post("/v1/tokens", ADMIN)
        async with asyncio.timeout(SOON_S):
            async for _ in events:
                pass


async def test_a_body_that_comes_after_the_token_went_changes_nothing(site: Guarded) -> None:
    token = await site.make("slow", "operator")
    host, port = site.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"name": "late"}).encode()
    head = (
        f"POST /v1/networks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    )
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    await writer.drain()
    await site.admin.get("/v1/whoami")
    assert (await site.admin.delete("/v1/tokens/slow")).status_code == 204
    writer.write(body)
    await writer.drain()
    assert b" 401 " in await reader.readline()
    writer.close()
    assert (await site.admin.get("/v1/networks/late")).status_code == 404


async def test_damage_to_the_word_that_asks_opens_nothing(shared_store: str) -> None:
    async with guarded(shared_store) as site:
        async with await open_store(shared_store) as store:
            await store.commit([], [Put("meta/authentication", b"\xff not ours")])
        async with site.client(None) as nobody, asyncio.timeout(SOON_S):
            for _ in range(20):
                assert (await nobody.get("/v1/networks")).status_code == 401
                await asyncio.sleep(0.02)


def _has_stream(metrics: httpx2.Response) -> bool:
    return any(
        line.startswith("kvnet_sse_streams ") and not line.endswith(" 0.0") for line in metrics.text.splitlines()
    )


async def _until_it_ends(client: httpx2.AsyncClient) -> None:
    async with client.stream("GET", "/v1/events") as answer:
        assert answer.status_code == 200
        async for _ in parse(answer.aiter_lines()):
            pass
