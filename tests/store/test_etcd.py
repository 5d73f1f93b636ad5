"""What etcd does differently from what one would think, each with a test, on real servers of 3.4 and 3.5."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import etcd, etcd_watch
from backends import etcd_wire as wire
from backends.etcd import EtcdMedium, EtcdSessions
from backends.etcd_errors import Failed, Verdict
from backends.medium import Step
from backends.open import open_store
from backends.store import (
    Absent,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Put,
    Revision,
    SessionLost,
    TooLarge,
    Unavailable,
    Unchanged,
    room_of,
)
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.store import etcd_kit as kit
from tests.store.etcd_kit import ctl, everything, following, next_step, opened, roots

pytestmark = pytest.mark.anyio
kind = kit.kind
server = kit.server
medium = kit.medium


# --- what an error means ---


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        ("UNAVAILABLE", "etcdserver: no leader", Verdict.ELSEWHERE),
        ("UNKNOWN", "raft proposal dropped", Verdict.ELSEWHERE),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Verdict.ELSEWHERE),
        ("UNAVAILABLE", "etcdserver: rpc not supported for learner", Verdict.ELSEWHERE),
        ("UNAVAILABLE", "etcdserver: leader changed", Verdict.LOST),
        ("UNAVAILABLE", "etcdserver: request timed out", Verdict.LOST),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to previous leader failure", Verdict.LOST),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to connection lost", Verdict.LOST),
        ("UNAVAILABLE", "etcdserver: server stopped", Verdict.LOST),
        ("UNAVAILABLE", "Socket closed", Verdict.LOST),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Verdict.LOST),
        ("CANCELLED", "etcdserver: request cancelled", Verdict.LOST),
        ("UNKNOWN", "something that nobody has seen before", Verdict.LOST),
        ("INTERNAL", "stream error", Verdict.LOST),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Verdict.LOGIN),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", Verdict.LOGIN),
        ("UNKNOWN", "auth: revision in header is old", Verdict.LOGIN),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", Verdict.LOGIN),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Verdict.FINAL),
        ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password", Verdict.FINAL),
        ("NOT_FOUND", "etcdserver: requested lease not found", Verdict.FINAL),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Verdict.FINAL),
        ("DATA_LOSS", "etcdserver: corrupt cluster", Verdict.FINAL),
    ],
)
def test_only_what_surely_was_not_done_counts_as_not_done(code: str, details: str, verdict: Verdict) -> None:
    assert Failed(code, details).verdict is verdict


# --- keys, versions and lists ---


async def test_a_key_made_anew_never_has_a_version_it_had_before(medium: EtcdMedium) -> None:
    """etcd's own `version` starts at 1 again; `mod_revision` does not."""
    first = await medium.commit([Absent("k")], [Put("k", b"1")])
    await medium.commit([], [Delete("k")])
    second = await medium.commit([Absent("k")], [Put("k", b"2")])

    assert second > first
    with pytest.raises(Conflict):
        await medium.commit([Unchanged("k", first)], [Delete("k")])


async def test_no_version_stands_for_absence(medium: EtcdMedium) -> None:
    with pytest.raises(Conflict) as caught:
        await medium.commit([Unchanged("k", 0)], [Put("k", b"1")])

    assert caught.value.keys == ("k",)


async def test_keys_lie_below_a_leading_slash_and_neighbours_are_not_seen(server: Cluster, medium: EtcdMedium) -> None:
    root = medium._root.decode()
    await medium.commit([], [Put("a/b", b"ours")])
    await ctl(server).ctl("put", f"{root.rstrip('/')}0", "a neighbour")
    await ctl(server).ctl("put", f"{root.rstrip('/')}", "no child")

    assert (await ctl(server).ctl("get", f"{root}a/b")).split() == [f"{root}a/b", "ours"]
    assert [entry.key for entry in (await medium.scan("")).entries] == ["a/b"]


async def test_a_foreign_key_that_is_no_text_does_not_break_a_list(server: Cluster, medium: EtcdMedium) -> None:
    key = medium._root + b"\xff\xfe"
    await medium.cluster.ask(wire.TXN, wire.txn([], [wire.put_op(key, b"x")], []))

    [entry] = (await medium.scan("")).entries
    assert entry.key == r"\xff\xfe"
    await medium.commit([Unchanged(entry.key, entry.version)], [Delete(entry.key)])

    assert (await medium.scan("")).entries == ()


@given(key=st.one_of(st.binary(max_size=30), st.text(alphabet="\\x5cf8é/", max_size=12).map(str.encode)))
def test_any_bytes_of_a_key_are_told_as_text_and_found_again(key: bytes) -> None:
    told = etcd.as_text(key)

    assert etcd.as_bytes(told) == key
    assert told.encode().decode() == told


@given(key=st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=32), max_size=20))
def test_no_key_of_printable_ascii_stands_for_another(key: str) -> None:
    assert all(byte >= 0x80 or byte in key.encode() for byte in etcd.as_bytes(key))
    assert etcd.as_text(etcd.as_bytes(key)) == key or "\\x" in key


async def test_private_keys_are_listed_only_when_asked_for(medium: EtcdMedium) -> None:
    await medium.commit([], [Put("a", b"1"), Put(".kvnet/x", b"2")])

    assert [entry.key for entry in (await medium.scan("")).entries] == ["a"]
    assert [entry.key for entry in (await medium.scan(".kvnet/")).entries] == [".kvnet/x"]


async def test_a_list_of_many_pages_is_as_of_one_revision(medium: EtcdMedium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PAGE", 7)
    revision = await medium.commit([], [Put(f"k/{i:02}", b"old") for i in range(50)])
    ask = medium.cluster.ask

    async def ask_and_write(method, request, **how):
        answer = await ask(method, request, **how)
        await ask(wire.TXN, wire.txn([], [wire.put_op(medium._root + b"k/49", b"new")], []))
        return answer

    monkeypatch.setattr(medium.cluster, "ask", ask_and_write)
    snapshot = await medium.scan("k/")

    assert snapshot.revision == revision
    assert [entry.key for entry in snapshot.entries] == [f"k/{i:02}" for i in range(50)]
    assert {entry.value for entry in snapshot.entries} == {b"old"}


async def test_a_list_whose_revision_is_compacted_between_pages_starts_again(
    server: Cluster, medium: EtcdMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "PAGE", 7)
    await medium.commit([], [Put(f"k/{i:02}", b"old") for i in range(20)])
    ask = medium.cluster.ask
    left = [1]

    async def ask_and_compact(method, request, **how):
        answer = await ask(method, request, **how)
        if left and left.pop():
            newest = await ask(wire.TXN, wire.txn([], [wire.put_op(medium._root + b"k/19", b"new")], []))
            await ctl(server).ctl("compact", str(newest.header.revision))
        return answer

    monkeypatch.setattr(medium.cluster, "ask", ask_and_compact)
    snapshot = await medium.scan("k/")

    assert len(snapshot.entries) == 20
    assert snapshot.entries[-1].value == b"new"


async def test_a_list_may_be_larger_than_grpc_takes_by_default(medium: EtcdMedium) -> None:
    for i in range(30):
        await medium.commit([], [Put(f"k/{i}", bytes(200_000))])

    assert sum(len(entry.value) for entry in (await medium.scan("k/")).entries) == 6_000_000


async def test_a_conflict_names_every_failed_check_as_of_one_revision(medium: EtcdMedium) -> None:
    version = await medium.commit([], [Put("a", b"1"), Put("b", b"1")])

    with pytest.raises(Conflict) as caught:
        await medium.commit(
            [Absent("b"), Absent("a"), Unchanged("a", version), Unchanged("c", version), Absent("d")], [Put("e", b"")]
        )

    assert caught.value.keys == ("a", "b", "c")
    assert await medium.read(["e", "d"]) == [None, None]


class Fickle(EtcdMedium):
    """Somebody removes the key `a` whenever a commit has failed, before one looks why; and may put it back then."""

    comes_back = False

    async def _versions(self, keys: Sequence[str]) -> list[Revision]:
        await self.commit([], [Delete("a")])
        versions = await super()._versions(keys)
        if self.comes_back:
            await self.commit([], [Put("a", b"again")])
        return versions


async def test_a_commit_goes_again_when_what_it_requires_holds_after_all(medium: EtcdMedium) -> None:
    fickle = Fickle(medium.cluster, "fickle")
    await fickle.commit([], [Put("a", b"theirs")])

    version = await fickle.commit([Absent("a")], [Put("a", b"mine")])

    assert await fickle.read(["a"]) == [Entry("a", b"mine", version)]


async def test_a_commit_does_not_go_again_for_ever(medium: EtcdMedium) -> None:
    fickle = Fickle(medium.cluster, "fickle-ever")
    fickle.comes_back = True
    await fickle.commit([], [Put("a", b"theirs")])

    with pytest.raises(Unavailable):
        await fickle.commit([Absent("a")], [Put("a", b"mine")])

    [entry] = await fickle.read(["a"])
    assert entry is not None
    assert entry.value == b"again"


async def test_the_most_operations_an_adapter_may_ask_for_fit(medium: EtcdMedium) -> None:
    checks = [Absent(f"k/{i}") for i in range(31)]
    writes = [Put(f"k/{i}", b"") for i in range(32)]

    await medium.commit(checks, writes)

    with pytest.raises(Conflict) as caught:
        await medium.commit(checks, writes)
    assert len(caught.value.keys) == 31


async def test_what_a_site_made_smaller_is_too_large_and_not_written(kind: Kind, tmp_path: Path) -> None:
    options = ["--max-txn-ops=4", "--max-request-bytes=4096"]
    async with Cluster(kind, tmp_path, options=options) as small, opened(small.url()) as medium:
        for writes in ([Put(f"k{i}", b"") for i in range(9)], [Put("k", bytes(100_000))], [Put("k", bytes(5_000_000))]):
            with pytest.raises(TooLarge):
                await medium.commit([], writes)

        assert (await medium.scan("")).entries == ()


# --- following ---


async def test_a_follower_ahead_of_the_store_is_told_instead_of_waiting_for_ever(medium: EtcdMedium) -> None:
    with pytest.raises(Compacted):
        await next_step(medium.follow(await medium.revision() + 1, everything))


async def test_a_follower_from_compacted_history_is_told(server: Cluster, medium: EtcdMedium) -> None:
    old = await medium.commit([], [Put("k", b"1")])
    await medium.commit([], [Put("k", b"2")])
    newest = await medium.commit([], [Put("k", b"3")])
    await ctl(server).ctl("compact", str(newest))

    with pytest.raises(Compacted):
        await next_step(medium.follow(old, everything))


async def test_a_transaction_is_one_step(medium: EtcdMedium) -> None:
    async with following(medium) as steps:
        revision = await medium.commit([], [Put(f"k/{i}", bytes(4_900)) for i in range(60)])
        step = await next_step(steps)

    assert step.revision == revision
    assert len(step.changes) == 60


async def test_private_keys_and_deletions_are_told_as_they_should(medium: EtcdMedium) -> None:
    async with following(medium) as steps:
        hidden = await medium.commit([], [Put(".kvnet/x", b"1")])
        assert await next_step(steps) == Step(hidden, ())
        await medium.commit([], [Put("k", b"1")])
        await next_step(steps)
        gone = await medium.commit([], [Delete("k")])
        step = await next_step(steps)

    assert (step.revision, step.changes[0].key, step.changes[0].entry) == (gone, "k", None)


async def test_what_happened_before_the_follower_came_is_caught_up(medium: EtcdMedium) -> None:
    after = await medium.commit([], [Put("k", b"0")])
    last = [await medium.commit([], [Put("k", b"%d" % i)]) for i in range(1, 1500)][-1]
    steps = medium.follow(after, everything)
    reached, values = 0, []
    while reached < last:
        step = await next_step(steps)
        assert step.revision > reached
        reached = step.revision
        values += [change.entry.value for change in step.changes if change.entry]
    await steps.aclose()

    assert values[-1] == b"1499"


async def test_a_sign_of_life_is_never_taken_for_progress(
    server: Cluster, medium: EtcdMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revision may overtake events before 3.4.26 and 3.5.9, so it makes no step and no revision."""
    monkeypatch.setattr(etcd_watch, "SIGN_OF_LIFE_EVERY_S", 0.02)
    monkeypatch.setattr(etcd_watch, "SILENCE_S", 1.0)
    async with following(medium) as steps:
        waiting = asyncio.ensure_future(next_step(steps))
        for i in range(5):
            await ctl(server).ctl("put", "/elsewhere", str(i))
        await asyncio.wait([waiting], timeout=2.0)  # longer than the silence that it would not survive
        assert not waiting.done()
        revision = await medium.commit([], [Put("k", b"1")])
        step = await waiting

    assert step.revision == revision


async def test_a_follower_that_is_given_up_ends_its_stream(medium: EtcdMedium) -> None:
    for _ in range(120):  # a connection has room for some hundred streams; then new ones wait without a word
        async with following(medium):
            pass

    assert await medium.revision() > 0


# --- sessions ---


async def test_a_lease_that_is_gone_is_lost_however_etcd_says_it(medium: EtcdMedium) -> None:
    """KeepAlive says TTL=0, a put says NOT_FOUND; what is no id at all is no session either."""
    sessions = EtcdSessions(medium)
    gone = await sessions.grant(10)
    await sessions.commit([], [Put("alive", b"1", gone)])
    await sessions.revoke(gone)
    await sessions.revoke(gone)

    assert await medium.read(["alive"]) == [None]
    for session in (gone, "", "x", "0" * 16, "f" * 16, "7" + "f" * 15, "٣" * 16):
        with pytest.raises(SessionLost):
            await sessions.refresh(session, 10)
        with pytest.raises(SessionLost):
            await sessions.commit([], [Put("k", b"1"), Put("alive", b"1", session)])
        await sessions.revoke(session)
    assert (await medium.scan("")).entries == ()


async def test_a_ttl_of_a_fraction_is_rounded_up(medium: EtcdMedium) -> None:
    sessions = EtcdSessions(medium)
    session = await sessions.grant(10.2)
    answer = await medium.cluster.ask(wire.KEEP_ALIVE, wire.keep_alive(int(session, 16)))

    assert answer.TTL == 11


async def test_a_put_without_the_session_takes_the_key_out_of_it(medium: EtcdMedium) -> None:
    sessions = EtcdSessions(medium)
    session = await sessions.grant(10)
    await sessions.commit([], [Put("k", b"1", session)])
    await sessions.commit([], [Put("k", b"2")])
    await sessions.revoke(session)

    [entry] = await medium.read(["k"])
    assert entry is not None
    assert entry.value == b"2"


async def test_a_lease_outlives_its_server(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium:
        sessions = EtcdSessions(medium)
        session = await sessions.grant(10)
        await sessions.commit([], [Put("k", b"1", session)])
        await cluster.restart_all()
        await sessions.refresh(session, 10)

        assert await medium.read(["k"]) != [None]


# --- event loops ---


async def test_it_serves_on_the_loop_that_the_controller_runs_on(server: Cluster) -> None:
    """uvloop, in a process of its own: gRPC knows one event loop a process. It says nothing on the terminal."""
    program = (
        "import asyncio, random, sys, uvloop\n"
        "from backends.etcd import connect\n"
        "from backends.store import Absent, Put\n"
        "from backends.url import parse_server_url\n"
        "async def main():\n"
        "    medium = await connect(parse_server_url(sys.argv[1]), rng=random.Random(7))\n"
        "    steps = medium.follow(None, lambda key: True)\n"
        "    await anext(steps)\n"
        "    revision = await medium.commit([Absent('k')], [Put('k', b'1')])\n"
        "    assert (await anext(steps)).revision == revision\n"
        "    await steps.aclose()\n"
        "    await medium.close()\n"
        "uvloop.run(main())\n"
    )

    # One endpoint is dead: that, too, is told to callers only.
    url = server.url(f"root{next(roots)}").replace("/root", ",127.0.0.1:1/root")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, url, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, output) == (0, b"")


async def test_who_packs_may_send_more_than_the_floor_and_etcd_takes_it(server: Cluster) -> None:
    most = etcd.ROOM.of_a_kind
    keys = [f"k/{number}" for number in range(most)]
    async with await open_store(server.url("packed"), packs=True) as store:
        assert room_of(store) == etcd.ROOM
        await store.commit([Absent(key) for key in keys], [Put(key, b"") for key in keys])
        assert len((await store.list("k/")).entries) == most
        with pytest.raises(Conflict) as caught:
            await store.commit([Absent(key) for key in keys], [Put(key, b"") for key in keys])
        assert caught.value.keys == tuple(sorted(keys))
        for checks, writes in ((0, most + 1), (most + 1, 0), (most, most + 1)):
            with pytest.raises(TooLarge):
                await store.commit(
                    [Absent(f"n/{number}") for number in range(checks)],
                    [Put(f"n/{number}", b"") for number in range(writes)],
                )
