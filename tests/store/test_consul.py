"""What Consul does differently from what one would think, each with a test, on real servers of 1.8."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from backends.consul import ConsulMedium, connect
from backends.consul_log import LOG, SLOTS, Record, swept_value
from backends.medium import Step
from backends.store import (
    Absent,
    Check,
    Compacted,
    Conflict,
    Delete,
    Present,
    Put,
    Refused,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
)
from backends.url import parse_server_url
from kvnet.errors import StoreBroken, StoreForbidden, StoreLoginRefused, StoreUnavailable, StoreUntrusted
from tests.servers.cluster import Cluster
from tests.servers.consul import MANAGEMENT_TOKEN, Consul

pytestmark = pytest.mark.anyio
DEADLINE_S = 30.0
_roots = count()


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """One that nobody breaks; each test has its own root."""
    async with Cluster("consul", tmp_path_factory.mktemp("server")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """ACLs with default deny, TLS only, and only for clients that show a certificate."""
    folder = tmp_path_factory.mktemp("guarded")
    async with Cluster("consul", folder, tls=True, client_certificates=True, auth=True) as cluster:
        yield cluster


@pytest.fixture
async def medium(server: Cluster) -> AsyncIterator[ConsulMedium]:
    async with opened(server.url(f"root{next(_roots)}")) as medium:
        yield medium


@asynccontextmanager
async def opened(url: str, *, must_answer: bool = True) -> AsyncIterator[ConsulMedium]:
    medium = await connect(parse_server_url(url, {}), must_answer=must_answer, rng=random.Random(next(_roots)))
    try:
        yield medium
    finally:
        await medium.close()


@asynccontextmanager
async def following(medium: ConsulMedium, after: int | None = None) -> AsyncIterator[AsyncIterator[Step]]:
    steps = medium.follow(after, lambda _: True)
    try:
        yield steps
    finally:
        await cast(AsyncGenerator[Step, None], steps).aclose()


async def next_step(steps: AsyncIterator[Step], deadline_s: float = DEADLINE_S) -> Step:
    async with asyncio.timeout(deadline_s):
        return await anext(steps)


async def told_until(steps: AsyncIterator[Step], revision: int) -> dict[str, bytes | None]:
    told: dict[str, bytes | None] = {}
    while True:
        step = await next_step(steps)
        told |= {change.key: change.entry.value if change.entry else None for change in step.changes}
        if step.revision >= revision:
            return told


async def raw(cluster: Cluster, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    """As somebody else who uses the same Consul."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{cluster.endpoints[0]}{path}", data=body) as response,
    ):
        return response.status, response.headers.get("X-Consul-Index", ""), await response.read()


async def token_for(cluster: Cluster, rules: str) -> str:
    family = cast(Consul, cluster.family)
    name = f"policy-{next(_roots)}"
    await family.change("/v1/acl/policy", {"Name": name, "Rules": rules})
    return str((await family.change("/v1/acl/token", {"Policies": [{"Name": name}]}))["SecretID"])


def with_token(cluster: Cluster, token: str, root: str = "kvnet") -> str:
    return cluster.url(root).replace("://", f"://:{token}@", 1)


# Versions and transactions


async def test_a_put_of_the_same_value_is_a_new_version(medium: ConsulMedium) -> None:
    versions = [await medium.commit([], [Put("k", b"same")]) for _ in range(3)]

    assert sorted(set(versions)) == versions
    [entry] = await medium.read(["k"])
    assert entry is not None
    assert entry.version == versions[-1]


async def test_a_conflict_names_every_check_that_failed(medium: ConsulMedium) -> None:
    version = await medium.commit([], [Put("there", b"")])
    checks: list[Check] = [
        Absent("there"),
        Present("missing"),
        Unchanged("gone", 7),
        Absent("free"),
        Unchanged("there", version),
    ]

    with pytest.raises(Conflict) as caught:
        await medium.commit(checks, [Put("new", b"")])

    assert caught.value.keys == ("gone", "missing", "there")
    assert await medium.read(["new"]) == [None]


async def test_deleting_unchanged_what_is_gone_conflicts_though_delete_cas_would_pass(medium: ConsulMedium) -> None:
    version = await medium.commit([], [Put("k", b"")])
    await medium.commit([], [Delete("k")])

    with pytest.raises(Conflict):
        await medium.commit([Unchanged("k", version)], [Delete("k")])


async def test_the_largest_transaction_of_the_floor_and_of_sessions_fits_with_its_log_entry(
    medium: ConsulMedium,
) -> None:
    filler = "x" * 440
    writes = [Put(f"{filler}/{number:02}", b"v" * 4000) for number in range(60)]

    revision = await medium.commit([Absent("a"), Absent("b"), Absent("c")], writes)

    found = await medium.read([write.key for write in writes])
    assert {entry.version for entry in found if entry} == {revision}


async def test_what_consul_finds_too_large_is_too_large(medium: ConsulMedium) -> None:
    with pytest.raises(TooLarge):
        await medium.commit([], [Put("k", b"x" * 450_000)])

    await medium.commit([], [Put("k", b"x" * 256 * 1024)])


async def test_keys_with_special_characters_are_encoded_once(server: Cluster, medium: ConsulMedium) -> None:
    keys = ["a b", "a%20b", "a?b#c", "a&b=c+d", "ü/ñ", "a%2Fb", "a;b,c"]
    await medium.commit([], [Put(key, key.encode()) for key in keys])

    assert [entry and entry.value.decode() for entry in await medium.read(keys)] == keys
    assert sorted(entry.key for entry in (await medium.scan("")).entries) == sorted(keys)
    assert [entry.key for entry in (await medium.scan("a%")).entries] == ["a%20b", "a%2Fb"]


async def test_an_empty_value_is_a_value(medium: ConsulMedium) -> None:
    await medium.commit([], [Put("k", b"")])

    [entry] = await medium.read(["k"])
    assert entry is not None
    assert entry.value == b""


async def test_reading_keys_of_which_some_are_missing_gives_the_others(medium: ConsulMedium) -> None:
    await medium.commit([], [Put(f"k{number}", b"") for number in range(0, 60, 2)])

    found = await medium.read([f"k{number}" for number in range(60)])

    assert [entry is not None for entry in found] == [number % 2 == 0 for number in range(60)]


async def test_a_lost_answer_is_unknown_and_the_transaction_is_not_sent_again(server: Cluster) -> None:
    """aiohttp repeats a PUT when a kept connection breaks."""
    sent: list[bytes] = []
    target, _, port = server.endpoints[0].rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target, int(port))
        while head := await _head(reader):
            length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
            body = await reader.readexactly(length)
            if base64.b64encode(b"lost") in body:
                sent.append(body)
                break
            back.write(head + body)
            answer = await there.readuntil(b"\r\n\r\n")
            size = next(int(h.split(b":")[1]) for h in answer.split(b"\r\n") if h.lower().startswith(b"content-length"))
            writer.write(answer + await there.readexactly(size))
        writer.close()
        back.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as between:
        own_port = between.sockets[0].getsockname()[1]
        async with opened(f"consul://127.0.0.1:{own_port}/lost{next(_roots)}") as medium:
            await medium.commit([], [Put("k", b"kept")])
            with pytest.raises(Unknown):
                await medium.commit([], [Put("k", b"lost")])
            await medium.commit([], [Put("k", b"after")])

    assert len(sent) == 1


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


# The log and its followers


async def test_a_change_costs_a_follower_the_change_and_not_the_prefix(medium: ConsulMedium) -> None:
    for start in range(0, 3000, 60):
        await medium.commit([], [Put(f"endpoints/{start + number}", b"x" * 200) for number in range(60)])
    async with following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("endpoints/7", b"new"), Delete("endpoints/8")])
        assert await told_until(steps, revision) == {"endpoints/7": b"new", "endpoints/8": None}

    log, _ = await medium.read_log()
    assert log.size < 300_000


async def test_writes_of_others_are_no_progress_and_do_not_raise_the_revision(
    server: Cluster, medium: ConsulMedium
) -> None:
    """The index of an empty prefix is that of the whole store."""
    assert await medium.revision() == 0
    await raw(server, "PUT", "/v1/kv/somebody/else", b"1")
    assert await medium.revision() == 0
    revision = await medium.commit([], [Put("k", b"")])
    await raw(server, "PUT", "/v1/kv/somebody/else", b"2")

    assert await medium.revision() == revision
    assert (await medium.scan("")).revision == revision


async def test_a_deletion_between_two_looks_is_told(medium: ConsulMedium) -> None:
    """After a disconnect, a blocking query shows what is there, not what is gone."""
    start = await medium.commit([], [Put("stays", b""), Put("goes", b"")])
    revision = await medium.commit([], [Delete("goes")])

    async with following(medium, start) as steps:
        assert await told_until(steps, revision) == {"goes": None}


async def test_untold_commits_wake_nobody_but_version_their_keys(medium: ConsulMedium) -> None:
    told = await medium.commit([], [Put("k", b"")])
    first = await medium.commit([], [Put(".kvnet/sessions/s", b"")], is_told=False)
    second = await medium.commit(
        [Unchanged(".kvnet/sessions/s", first)], [Put(".kvnet/sessions/s", b"")], is_told=False
    )

    assert second > first > told
    assert await medium.revision() == told


async def test_sweeping_loses_nothing_and_late_followers_hear_of_it(medium: ConsulMedium) -> None:
    revisions = [await medium.commit([], [Put(f"k{number}", b"")]) for number in range(5)]
    async with following(medium, revisions[0]) as steps:
        await told_until(steps, revisions[-1])
        log, _ = await medium.read_log()
        old = [one for one in log.records if one.revision <= revisions[2]]
        await medium.sweep(old, swept_value(log, old), log.swept)
        newest = await medium.revision()
        assert newest > revisions[-1]
        assert (await next_step(steps)) == Step(newest, ())
    with pytest.raises(Compacted):
        await anext(medium.follow(revisions[1], lambda _: True))
    async with following(medium, revisions[3]) as steps:
        assert await told_until(steps, newest) == {"k4": b""}


async def test_a_slot_that_is_just_being_used_is_not_swept(medium: ConsulMedium) -> None:
    await medium.commit([], [Put("k", b"")])
    log, _ = await medium.read_log()
    [slot] = log.records
    stale: list[Record] = [replace(slot, revision=slot.revision - 1)]

    await medium.sweep(stale, swept_value(log, stale), log.swept)

    assert (await medium.read_log())[0] == log


async def test_a_commit_whose_slot_was_swept_takes_another(medium: ConsulMedium) -> None:
    for number in range(200):
        await medium.commit([], [Put("k", b"%d" % number)])  # some slots are used again
    log, _ = await medium.read_log()
    slots = sorted(log.records, key=lambda one: one.revision)[:60]
    await medium.sweep(slots, swept_value(log, slots), log.swept)

    revisions = [await medium.commit([], [Put("k", b"after")]) for _ in range(5)]

    assert revisions == sorted(set(revisions))


async def test_a_wiped_store_is_compacted(server: Cluster) -> None:
    root = f"wiped{next(_roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("k", b"")])
        async with following(medium) as steps:
            await next_step(steps)
            await raw(server, "DELETE", f"/v1/kv/{root}/?recurse")
            with pytest.raises(Compacted):
                await next_step(steps)


async def test_a_restored_store_is_noticed_also_when_it_has_been_written_past_the_old_revision(server: Cluster) -> None:
    root = f"restored{next(_roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("old", b"")])
        _, _, saved = await raw(server, "GET", "/v1/snapshot")
        lost = await medium.commit([], [Put("lost", b"")])
        assert (await raw(server, "PUT", "/v1/snapshot", saved))[0] == 200
        async with opened(server.url(root)) as other:
            assert await _committed(other, Put("new", b"")) > lost
        with pytest.raises(Compacted):
            await anext(medium.follow(lost, lambda _: True))


async def _committed(medium: ConsulMedium, write: Put) -> int:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await medium.commit([], [write])
            except (Unavailable, Unknown):
                await asyncio.sleep(0.05)


async def test_a_scan_of_many_keys_is_one_state_with_its_revision(medium: ConsulMedium) -> None:
    for start in range(0, 6000, 60):
        revision = await medium.commit([], [Put(f"n/{start + number:05}", b"x" * 150) for number in range(60)])
    snapshot = await medium.scan("n/")

    assert len(snapshot.entries) == 6000
    assert snapshot.revision == revision
    assert [entry.key for entry in snapshot.entries] == sorted(entry.key for entry in snapshot.entries)
    assert not [entry for entry in (await medium.scan("")).entries if entry.key.startswith(".kvnet")]


# Who we are


async def test_a_denied_transaction_is_refused_and_not_a_conflict(guarded: Cluster) -> None:
    """Consul answers both with 409."""
    reader = await token_for(guarded, 'key_prefix "kvnet/" { policy = "read" }')
    medium = await _without_welcome(with_token(guarded, reader))
    with pytest.raises(Refused, match="may not"):
        await medium.commit([Absent("k")], [Put("k", b"")])
    await medium.close()


async def test_a_denied_list_is_refused_and_not_an_empty_store(guarded: Cluster) -> None:
    """Consul answers both with 404, or with an empty transaction."""
    async with opened(with_token(guarded, MANAGEMENT_TOKEN)) as owner:
        await owner.commit([], [Put("k", b"")])
    stranger = await token_for(guarded, 'key_prefix "other/" { policy = "write" }')
    medium = await _without_welcome(with_token(guarded, stranger))
    for denied in (medium.scan(""), medium.scan("k"), medium.read(["k"]), medium.commit([], [Put("k", b"")])):
        with pytest.raises(Refused):
            await denied
    await medium.close()


async def _without_welcome(url: str) -> ConsulMedium:
    """As when the permission is taken away while we run."""
    from backends.consul_http import ConsulHttp

    return ConsulMedium(
        ConsulHttp(parse_server_url(url, {})), "kvnet", rng=random.Random(1), clock=time.monotonic, sleep=asyncio.sleep
    )


@pytest.mark.parametrize(
    "rules", ["", 'key_prefix "kvnet/" { policy = "read" }', 'key_prefix "x" { policy = "write" }']
)
async def test_a_token_without_the_right_to_read_and_write_is_forbidden_at_start(guarded: Cluster, rules: str) -> None:
    with pytest.raises(StoreForbidden, match="may not"):
        async with opened(with_token(guarded, await token_for(guarded, rules))):
            pass


async def test_no_token_where_one_is_needed_is_forbidden_at_start(guarded: Cluster) -> None:
    with pytest.raises(StoreForbidden, match="may not read or write"):
        async with opened(guarded.url("kvnet")):
            pass


async def test_an_unknown_token_is_a_refused_login_and_is_not_shown(guarded: Cluster) -> None:
    token = "5ec2e700-0000-4000-8000-000000000000"
    with pytest.raises(StoreLoginRefused) as caught:
        async with opened(with_token(guarded, token)):
            pass
    assert token not in str(caught.value) + repr(caught.value) + caught.value.fix


async def test_a_token_with_the_prefix_a_certificate_and_default_deny_serves(guarded: Cluster) -> None:
    who = await guarded.grant("/kvnet/")
    async with opened(guarded.url("kvnet", who)) as medium, following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("served", b"yes")])
        assert (await told_until(steps, revision))["served"] == b"yes"


async def test_a_token_that_was_changed_in_its_file_is_taken(guarded: Cluster, tmp_path: Path) -> None:
    rules = 'key_prefix "kvnet/" { policy = "write" }'
    file = tmp_path / "token"
    first = await token_for(guarded, rules)
    file.write_text(first)
    async with opened(f"{guarded.url('kvnet')}&token_file={file}") as medium:
        await medium.commit([], [Put("k", b"")])
        family = cast(Consul, guarded.family)
        [accessor] = await _accessors(guarded, first)
        await family._ask(0, "DELETE", f"/v1/acl/token/{accessor}")
        with pytest.raises(Refused, match="does not know the token"):
            await medium.commit([], [Put("k", b"")])
        file.write_text(await token_for(guarded, rules))
        await medium.commit([], [Put("k", b"again")])


async def _accessors(cluster: Cluster, token: str) -> list[str]:
    family = cast(Consul, cluster.family)
    _, tokens = await family._ask(0, "GET", "/v1/acl/tokens")
    found = []
    for one in tokens:
        _, full = await family._ask(0, "GET", f"/v1/acl/token/{one['AccessorID']}")
        if full["SecretID"] == token:
            found.append(one["AccessorID"])
    return found


async def test_a_server_of_another_authority_is_untrusted(guarded: Cluster) -> None:
    assert guarded.certificates is not None
    url = with_token(guarded, MANAGEMENT_TOKEN).replace(
        str(guarded.certificates.ca), str(guarded.certificates.wrong_ca)
    )
    with pytest.raises(StoreUntrusted, match="not trusted"):
        async with opened(url):
            pass


@pytest.mark.parametrize("shown", ["none", "wrong"])
async def test_a_client_without_a_certificate_that_the_server_accepts_is_untrusted(
    guarded: Cluster, shown: str
) -> None:
    certificates = guarded.certificates
    assert certificates is not None
    url = f"consuls://{guarded.endpoints[0]}/kvnet?ca={certificates.ca}"
    if shown == "wrong":
        url += f"&cert={certificates.wrong_client.cert}&key={certificates.wrong_client.key}"
    with pytest.raises(StoreUntrusted, match="certificate"):
        async with opened(url):
            pass


async def test_plain_http_to_a_tls_server_and_the_reverse_are_told_apart(guarded: Cluster, server: Cluster) -> None:
    with pytest.raises(StoreUntrusted, match="speaks TLS only"):
        async with opened(f"consul://{guarded.endpoints[0]}/kvnet"):
            pass
    with pytest.raises(StoreUntrusted, match="does not speak TLS"):
        async with opened(f"consuls://{server.endpoints[0]}/kvnet"):
            pass


async def test_a_certificate_file_that_is_none_is_untrusted(server: Cluster, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(StoreUntrusted, match="cannot be used"):
        async with opened(f"consuls://{server.endpoints[0]}/kvnet?ca={tmp_path / 'ca.pem'}"):
            pass


async def test_connecting_writes_nothing(server: Cluster) -> None:
    root = f"untouched{next(_roots)}"
    async with opened(server.url(root)):
        pass

    assert (await raw(server, "GET", f"/v1/kv/{root}?keys"))[0] == 404


async def test_something_that_is_not_consul_is_broken() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        with pytest.raises(StoreBroken):
            async with opened(f"consul://127.0.0.1:{other.sockets[0].getsockname()[1]}/kvnet"):
                pass


# Servers that go away


async def test_nobody_there_is_unavailable_and_no_error_where_none_must_answer() -> None:
    url = "consul://127.0.0.1:1,127.0.0.1:2/kvnet"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        async with opened(url):
            pass
    async with opened(url, must_answer=False) as medium:
        for asked in (medium.read(["k"]), medium.commit([], [Put("k", b"")]), medium.revision(), medium.scan("")):
            with pytest.raises(Unavailable):
                await asked


async def test_an_endpoint_that_refuses_is_passed_over(server: Cluster) -> None:
    url = server.url(f"passed{next(_roots)}").replace("consul://", "consul://127.0.0.1:1,")
    async with opened(url) as medium, following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("k", b"")])
        assert (await next_step(steps)).revision == revision


async def test_a_half_open_connection_is_noticed_within_15_s_and_costs_once(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster:
        follower = next(index for index in range(3) if index != 0)
        leader = await cluster.leader()
        frozen = next(index for index in range(3) if index != leader)
        others = [endpoint for index, endpoint in enumerate(cluster.endpoints) if index != frozen]
        url = f"consul://{','.join([cluster.endpoints[frozen], *others])}/kvnet"
        assert follower
        async with opened(url) as medium, following(medium) as steps:
            await next_step(steps)
            await cluster.members[frozen].freeze()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await next_step(steps, 15)
            assert time.monotonic() - began < 15
            revision = await medium.commit([], [Put("k", b"")])
            async with following(medium, 0) as again:
                assert await told_until(again, revision) == {"k": b""}
            began = time.monotonic()
            await medium.read(["k"])
            assert time.monotonic() - began < 2
            await cluster.members[frozen].thaw()


async def test_nothing_acknowledged_is_lost_over_a_killed_leader_and_followers_hear_all(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        acknowledged: dict[str, int] = {}
        start = await medium.commit([], [Put("start", b"")])
        for number in range(60):
            if number == 20:
                await cluster.members[await cluster.leader()].kill()
            key = f"k{number:02}"
            acknowledged[key] = await _committed(medium, Put(key, b""))
        async with opened(cluster.url()) as other:
            snapshot = await other.scan("k")
            assert acknowledged.keys() <= {entry.key for entry in snapshot.entries}
            async with following(other, start) as steps:
                told = await told_until(steps, max(acknowledged.values()))
            assert acknowledged.keys() <= told.keys()


async def test_a_cluster_without_a_leader_is_waited_for_at_start(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster:
        await asyncio.gather(*(cluster.members[index].kill() for index in (1, 2)))
        starting = asyncio.create_task(connect(parse_server_url(cluster.url(), {}), rng=random.Random(1)))
        await asyncio.sleep(0)
        await cluster.members[1].start()
        async with asyncio.timeout(30):
            medium = await starting
        await _committed(medium, Put("k", b""))
        await medium.close()


async def test_the_log_is_where_an_operator_finds_it(server: Cluster) -> None:
    root = f"shown{next(_roots)}"
    async with opened(server.url(root)) as medium:
        await medium.commit([], [Put("networks/a", b'{"plain":"json"}')])
    assert (await raw(server, "GET", f"/v1/kv/{root}/networks/a?raw"))[2] == b'{"plain":"json"}'
    keys = json.loads((await raw(server, "GET", f"/v1/kv/{root}/{LOG}?keys"))[2])
    assert all(key.startswith(f"{root}/{SLOTS}") for key in keys)
