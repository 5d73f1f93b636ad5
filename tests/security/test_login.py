"""Cookies: what they are good for, what ends them, and that neither the cookie nor another site's page is enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.security.cookies import (
    KEY_AGE_S,
    LIFE_S,
    MAX_KEYS,
    Key,
    Keys,
    header,
    needs_key,
    opened,
    sealed,
    value_in,
    with_new_key,
)
from kvnet.security import Role, Token, hash_of
from tests.api.under_test import eventually, problem_of
from tests.security.admitted import Guarded, guarded

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
TOKEN = Token("0123456789ab", "alice", Role.VIEWER, NOW, "root", hash=hash_of("a"))
KEYS = Keys((Key("ab" * 32, NOW),))
CSRF = {"x-kvnet-csrf": "1"}


def test_a_cookie_is_good_until_its_end_and_for_its_token_alone() -> None:
    value = sealed(TOKEN, NOW + 10, KEYS)

    assert opened(value, KEYS, {TOKEN.id: TOKEN}.get, NOW) == (TOKEN.id, NOW + 10)
    assert opened(value, KEYS, {TOKEN.id: TOKEN}.get, NOW + 10) is None
    assert opened(value, KEYS, {}.get, NOW) is None


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_cookie_that_was_changed_anywhere_is_none(at: int, change: int) -> None:
    value = bytearray(sealed(TOKEN, NOW + 10, KEYS).encode())
    value[at % len(value)] ^= change

    found = opened(value.decode("latin-1"), KEYS, {TOKEN.id: TOKEN}.get, NOW)

    assert found is None


@given(st.text(max_size=200))
def test_whatever_else_stands_in_a_cookie_is_none(text: str) -> None:
    assert opened(value_in(f"kvnet_session={text}"), KEYS, {TOKEN.id: TOKEN}.get, NOW) is None


def test_a_cookie_dies_with_the_secret_that_it_was_made_of() -> None:
    value = sealed(TOKEN, NOW + 100, KEYS)
    rotated = replace(TOKEN, hash=hash_of("b"), previous=TOKEN.hash, previous_until=NOW + 50)

    login = opened(value, KEYS, {TOKEN.id: rotated}.get, NOW)
    assert login is not None, "the old secret is good for a while"
    assert login.until == NOW + 50
    assert opened(value, KEYS, {TOKEN.id: rotated}.get, NOW + 50) is None
    assert opened(value, KEYS, {TOKEN.id: replace(TOKEN, hash="")}.get, NOW) is None


def test_keys_are_changed_and_cookies_of_the_old_one_live_on() -> None:
    value, later = sealed(TOKEN, NOW + KEY_AGE_S + LIFE_S, KEYS), NOW + KEY_AGE_S
    assert needs_key(None, NOW)
    assert not needs_key(KEYS, later - 1)
    assert needs_key(KEYS, later)

    changed = with_new_key(KEYS, "cd" * 32, later)
    assert opened(value, changed, {TOKEN.id: TOKEN}.get, later + 1) is not None
    assert sealed(TOKEN, later, changed) != sealed(TOKEN, later, KEYS)

    again = with_new_key(changed, "ef" * 32, later + LIFE_S)
    assert [key.secret[:2] for key in again.keys] == ["ef", "cd"]
    for n in range(9):
        again = with_new_key(again, f"{n:02x}" * 32, later + LIFE_S)
    assert len(again.keys) == MAX_KEYS


def test_the_cookie_is_for_no_script_no_other_site_and_over_tls_for_tls_alone() -> None:
    assert header("v", is_secure=True, life_s=9.9) == (
        "kvnet_session=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=9; Secure"
    )
    assert "Secure" not in header("v", is_secure=False, life_s=9)
    assert value_in("a=b; kvnet_session=x.y; c=d") == "x.y"


@asynccontextmanager
async def logged_in(site: Guarded, token: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.client(None) as client:
        answer = await client.post("/v1/login", json={"token": token})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert token.rpartition("_")[2] not in answer.text + str(answer.headers)
        yield client


async def test_a_login_is_who_the_token_is_and_changes_things_only_with_the_header(site: Guarded) -> None:
    async with logged_in(site, await site.make("alice", "operator")) as client:
        who = (await client.get("/v1/whoami")).json()
        assert (who["name"], who["role"], who["via"]) == ("alice", "operator", "cookie")
        assert who["expires_at"]
        problem_of(await client.post("/v1/networks", json={"name": "a"}), 401, "unauthenticated")
        assert (await client.post("/v1/networks", json={"name": "a"}, headers=CSRF)).status_code == 201
        problem_of(await client.post("/v1/tokens", json={"name": "x", "role": "admin"}, headers=CSRF), 403, "forbidden")
        for foreign in (
            {"origin": "https://evil.test"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            problem_of(
                await client.post("/v1/networks", json={"name": "b"}, headers={**CSRF, **foreign}), 403, "cross-origin"
            )
            problem_of(await client.delete("/v1/login", headers=foreign), 403, "cross-origin")

        journal = (await site.admin.get("/v1/journal?actor=alice")).json()["items"]
        assert [event["kind"] for event in journal] == ["network.created", "secret.rotated"]
        assert "keys" in journal[1]["after"]
        assert len(str(journal[1]["after"])) < 20, "how many keys there are, and no key"

        assert (await client.delete("/v1/login", headers=CSRF)).status_code == 204
        problem_of(await client.get("/v1/whoami"), 401, "unauthenticated")


async def test_a_login_ends_with_its_token_on_every_replica(shared_store: str) -> None:
    async with guarded(shared_store) as one, guarded(shared_store, one.token) as two:
        text = await one.make("alice", "viewer")
        async with logged_in(one, text) as client, two.client(None) as other:
            other.headers["cookie"] = f"kvnet_session={client.cookies['kvnet_session']}"
            assert (await other.get("/v1/whoami")).json()["name"] == "alice"
            await one.admin.delete(f"/v1/tokens/{one.made['alice']}")

            async def is_over() -> bool:
                answers = [await each.get("/v1/whoami") for each in (client, other)]
                return all(answer.status_code == 401 for answer in answers)

            await eventually(is_over)


async def test_who_tries_tokens_is_slowed_down_and_a_good_one_is_served_all_the_same(site: Guarded) -> None:
    wrong = {"token": "kvnet_0123456789ab_" + "x" * 43}
    good = await site.make("alice", "viewer")
    async with site.client(None) as client:
        codes = [(await client.post("/v1/login", json=wrong)).status_code for _ in range(40)]
        assert codes[0] == 401
        assert codes[-1] == 429
        assert (await client.post("/v1/login", json={"token": good})).status_code == 200


async def test_a_hosts_credential_logs_nobody_in(site: Guarded) -> None:
    text = await site.make("worker", "host", host="h1")
    async with site.client(None) as client:
        problem_of(await client.post("/v1/login", json={"token": text}), 422, "invalid")
        for body in ({}, {"token": ""}, {"token": 1}, {"token": "x" * 9000}, {"token": "x", "more": 1}):
            problem_of(await client.post("/v1/login", json=body), 422, "invalid")
