"""Limits: what a token may own, how often it may ask, how much it may hold open; and junk that costs little."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from contextlib import AsyncExitStack

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.patience import Calm
from controller.security.limits import LONGEST_S, Bucket, Failures, Streams
from controller.security.principal import Principal
from kvnet.errors import TooManyStreams
from kvnet.security import Limits, Role
from tests.api.under_test import DEADLINE_S, problem_of
from tests.security.admitted import Guarded, bearer, guarded

pytestmark = pytest.mark.anyio


@given(
    rate=st.floats(0.1, 1e4),
    size=st.floats(1.0, 1e4),
    pauses=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=200),
)
def test_a_bucket_never_gives_more_than_it_holds_and_what_flows_in(
    rate: float, size: float, pauses: list[float]
) -> None:
    bucket, now, given_out = Bucket(size, rate, size, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        if wait_s == 0.0:
            given_out += 1
        else:
            assert Bucket(size, rate, bucket.level, now).take(now + wait_s + 1e-6) == 0.0
        assert given_out <= size + now * rate + 1e-6


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 0.0, -1.0])
def test_whatever_rate_was_stored_the_wait_can_be_told(rate: float) -> None:
    bucket = Bucket(1.0, rate, 1.0, 0.0)
    assert bucket.take(0.0) == 0.0
    assert [bucket.take(now) for now in (0.0, 1.0, 1e9)] == [LONGEST_S] * 3


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = Bucket(1.0, 1.0, 1.0, 100.0)
    assert bucket.take(100.0) == 0.0
    assert bucket.take(50.0) > 0.0


def test_what_is_remembered_of_failures_is_bounded() -> None:
    failures, rng = Failures(), random.Random(1)
    for _ in range(20_000):
        failures.note(f"10.{rng.getrandbits(8)}.{rng.getrandbits(8)}.{rng.getrandbits(8)}", 0.0)
    assert failures.remembered <= 4096


def test_streams_are_given_back() -> None:
    streams = Streams(most=2)
    who = Principal("t", Role.VIEWER, token="t", limits=Limits(streams=1))
    streams.enter(who)
    with pytest.raises(TooManyStreams):
        streams.enter(who)
    streams.leave(who)
    streams.enter(who)
    streams.enter(Principal("u", Role.VIEWER, token="u"))
    with pytest.raises(TooManyStreams):
        streams.enter(Principal("v", Role.VIEWER, token="v"))


async def test_a_token_owns_so_many_networks_and_no_more(site: Guarded) -> None:
    token = await site.make("t", "operator", limits={"networks": 3})
    async with site.client(token) as client:
        made = await asyncio.gather(*(client.post("/v1/networks", json={"name": f"n{i}"}) for i in range(10)))
        assert sorted(answer.status_code for answer in made) == [201] * 3 + [409] * 7
        refused = next(answer for answer in made if answer.status_code == 409)
        assert problem_of(refused, 409, "quota-exceeded")["limit"] == 3
        gone = next(answer for answer in made if answer.status_code == 201).json()["id"]
        assert (await client.delete(f"/v1/networks/{gone}")).status_code == 204
        assert (await client.post("/v1/networks", json={"name": "again"})).status_code == 201
        problem_of(await client.post("/v1/networks", json={"name": "more"}), 409, "quota-exceeded")
    assert (await site.admin.post("/v1/networks", json={"name": "more"})).status_code == 201


async def test_a_token_owns_so_many_endpoints_however_it_makes_them(site: Guarded) -> None:
    network = (await site.admin.post("/v1/networks", json={"name": "n"})).json()["id"]
    token = await site.make("t", "operator", limits={"endpoints": 7})
    path = f"/v1/networks/{network}/endpoints"
    async with site.client(token) as client:
        many = [{"host": "h1", "name": f"e{i}", "id": f"e{i}"} for i in range(5)]
        first = (await client.post(path, json={"items": many})).json()["items"]
        assert [item["status"] for item in first] == [201] * 5
        again = (await client.post(path, json={"items": many})).json()["items"]
        assert [item["status"] for item in again] == [200] * 5
        racing = await asyncio.gather(
            *(
                client.post(path, json={"items": [{"host": "h1", "name": f"r{i}-{j}"} for j in range(2)]})
                for i in range(4)
            )
        )
        statuses = [item["status"] for answer in racing for item in answer.json()["items"]]
        assert sorted(statuses) == [201] * 2 + [409] * 6
        problem_of(await client.post(path, json={"host": "h1", "name": "one"}), 409, "quota-exceeded")
        assert (await client.delete(f"{path}/e0")).status_code == 204
        assert (await client.post(path, json={"host": "h1", "name": "one"})).status_code == 201


async def test_what_a_token_owns_counts_on_every_replica_and_after_a_restart(shared_store: str) -> None:
    async with guarded(shared_store) as one, guarded(shared_store, one.token) as two:
        token = await one.make("t", "operator", limits={"networks": 1})
        async with one.client(token) as client:
            made = (await client.post("/v1/networks", json={"name": "n"})).json()["id"]
        async with two.client(token) as client, asyncio.timeout(5):
            while (await client.get(f"/v1/networks/{made}")).status_code != 200:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.02)
            problem_of(await client.post("/v1/networks", json={"name": "m"}), 409, "quota-exceeded")
        root = one.token
    async with guarded(shared_store, root) as site, site.client(token) as client:
        problem_of(await client.post("/v1/networks", json={"name": "m"}), 409, "quota-exceeded")


HEARD_S = 1.0  # by when a replica that is in step knows what another one has made


@pytest.mark.parametrize("what", ["networks", "endpoints"])
async def test_a_quota_is_of_the_cluster_and_passed_by_no_more_than_what_is_on_its_way(
    shared_store: str, what: str
) -> None:
    """Three replicas, and two who ask at each of them at the same time, until they are refused."""
    most = 12
    asked_at: list[float] = []
    answered_at: list[float] = []
    async with AsyncExitStack() as held:
        sites = [await held.enter_async_context(guarded(shared_store, upkeep=False))]
        sites += [await held.enter_async_context(guarded(shared_store, sites[0].token, upkeep=False)) for _ in range(2)]
        network = (await sites[0].admin.post("/v1/networks", json={"name": "shared"})).json()["id"]
        token = await sites[0].make("t", "operator", limits={what: most})
        clients = [await held.enter_async_context(site.client(token)) for site in sites]
        await asyncio.gather(*(is_known(client, network) for client in clients))
        of_endpoints: tuple[str, dict[str, str]] = (f"/v1/networks/{network}/endpoints", {"host": "h1"})
        path, more = of_endpoints if what == "endpoints" else ("/v1/networks", {})

        async def ask(client: httpx2.AsyncClient, name: str) -> None:
            for number in itertools.count():
                began = time.monotonic()
                answer = await client.post(path, json={"name": f"{name}-{number}", **more})
                if answer.status_code != 201:
                    problem_of(answer, 409, "quota-exceeded")
                    return
                asked_at.append(began)
                answered_at.append(time.monotonic())

        await asyncio.gather(*(ask(clients[i % 3], f"c{i}") for i in range(6)))
        full_at = sorted(answered_at)[most - 1]

        assert len(answered_at) >= most
        assert max(asked_at) < full_at + HEARD_S, "who asks when all have heard is refused"
        if what == "networks":  # their creation waits for what others have made
            assert len(answered_at) <= most + 4, "two at each of two others"
        for client in clients:
            await ask(client, "later")
        assert max(asked_at) < full_at + HEARD_S


async def is_known(client: httpx2.AsyncClient, network: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.get(f"/v1/networks/{network}")).status_code != 200:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


async def test_who_asks_too_often_is_told_when_to_ask_again(site: Guarded) -> None:
    token = await site.make("t", "viewer", limits={"rate": 5})
    async with site.client(token) as client:
        answers = [await client.get("/v1/version") for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 15
        told = problem_of(refused[-1], 429, "rate-limited")
        assert int(refused[-1].headers["retry-after"]) >= 1
        assert told["retry_after_s"] <= 1.0
    assert (await site.admin.get("/v1/version")).status_code == 200


async def test_a_token_holds_so_many_streams_open(site: Guarded) -> None:
    token = await site.make("t", "viewer", limits={"streams": 2})
    async with site.client(token) as client:
        async with AsyncExitStack() as held:
            for _ in range(2):
                answer = await held.enter_async_context(client.stream("GET", "/v1/events"))
                assert answer.status_code == 200
            told = problem_of(await client.get("/v1/events"), 429, "too-many-streams")
            assert "2 streams" in told["detail"]
        async with asyncio.timeout(5):
            while True:
                async with client.stream("GET", "/v1/events") as answer:
                    if answer.status_code == 200:
                        break


async def test_wrong_credentials_again_and_again_are_told_to_wait_and_good_ones_are_served(site: Guarded) -> None:
    async with site.client(None) as client:
        statuses = []
        for i in range(40):
            wrong = bearer(f"kvnet_{i:012x}_{'A' * 43}")
            statuses.append((await client.get("/v1/networks", headers=wrong)).status_code)
        assert statuses[:20] == [401] * 20
        assert statuses[-1] == 429
        last = await client.get("/v1/networks", headers=bearer("x"))
        problem_of(last, 429, "too-many-failures")
        assert int(last.headers["retry-after"]) >= 1
        assert (await client.get("/v1/networks", headers=bearer(site.token))).status_code == 200


@pytest.mark.parametrize("body", [0, 10, 200_000])
async def test_who_is_turned_away_at_the_door_may_ask_again_on_the_same_connection(site: Guarded, body: int) -> None:
    host, port = site.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    length = f"Content-Length: {body}\r\n".encode() if body else b""
    writer.write(b"POST /v1/networks HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n" + length + b"\r\n" + b"x" * body)
    head, told = await _answer(reader)
    assert b"401 Unauthorized" in head
    assert b"x-request-id: mine" in head
    assert (told["code"], told["instance"]) == ("unauthenticated", "mine")
    ok = f"GET /v1/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n\r\n"
    writer.write(ok.encode())
    head, told = await _answer(reader)
    assert b"200 OK" in head
    writer.close()


async def test_the_door_says_what_the_house_says(site: Guarded) -> None:
    """An encoded path is judged inside: the answers differ in the id alone."""
    async with site.client(None) as client:
        door, house = await client.get("/v1/networks"), await client.get("/v1/net%77orks")
        a, b = door.json(), house.json()
        assert {**a, "instance": ""} == {**b, "instance": ""}
        assert a["instance"] == door.headers["x-request-id"]
        names = {name.lower() for name in door.headers}
        assert names == {name.lower() for name in house.headers}
        head = await client.head("/v1/networks")
        assert (head.status_code, head.content) == (401, b"")


async def test_refusals_in_a_pipeline_come_in_order_among_good_answers(site: Guarded) -> None:
    host, port = site.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    good = f"GET /v1/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n\r\n".encode()
    bad = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(bad + good + bad + bad + good)
    seen = [(await _answer(reader))[0].split()[1] for _ in range(5)]
    assert seen == [b"401", b"200", b"401", b"401", b"200"]
    writer.close()


async def test_who_never_reads_his_refusals_is_let_go(site: Guarded) -> None:
    host, port = site.api.url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    with pytest.raises(ConnectionError):
        await _pour_without_reading(writer)
    writer.close()


async def test_real_work_goes_on_beside_junk(site: Guarded) -> None:
    stop = asyncio.Event()
    junk = b"GET /v1/networks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer junk\r\n\r\n" * 20
    host, port = site.api.url.removeprefix("http://").split(":")

    async def pour() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while not stop.is_set():
            writer.write(junk)
            for _ in range(20):
                await _answer(reader)
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(pour())
        began = time.monotonic()
        for i in range(20):
            assert (await site.admin.post("/v1/networks", json={"name": f"n{i}"})).status_code == 201
        assert time.monotonic() - began < 20
        stop.set()


async def _pour_without_reading(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(20):
        while True:
            writer.write(b"GET /v1/networks HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
            await writer.drain()


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, object]]:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        return head, json.loads(await reader.readexactly(length))


async def test_what_anybody_may_send_is_short_and_looked_up_only_so_often(site: Guarded) -> None:
    await site.make("t", "viewer")
    async with site.client(None) as nobody:
        long = "{" + f'"token":"{"x" * 40_000}"' + "}"
        for path in ("/v1/login", "/v1/join"):
            sent = await nobody.post(path, content=long, headers={"Content-Type": "application/json"})
            problem_of(sent, 413, "too-large")
        body = {"token": f"kvnet_{site.made['t']}_{'x' * 43}", "hash": "5f" * 32}
        codes = [(await nobody.post("/v1/join", json=body)).status_code for _ in range(60)]
    assert codes.count(401) < 50
    assert codes.count(401) + codes.count(429) == 60


def test_of_malformed_requests_the_log_tells_once_a_minute() -> None:
    now = [0.0]
    calm = Calm(lambda: now[0])

    def is_told(level: int, text: str) -> bool:
        return calm.filter(logging.LogRecord("uvicorn.error", level, "", 0, text, (), None))

    assert [is_told(logging.WARNING, "Invalid HTTP request received.") for _ in range(3)] == [True, False, False]
    assert is_told(logging.WARNING, "another one")
    assert [is_told(logging.ERROR, "a failure") for _ in range(2)] == [True, True]
    now[0] = 60.0
    assert is_told(logging.WARNING, "Invalid HTTP request received.")
