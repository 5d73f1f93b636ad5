"""What etcd does differently from what one would think, each with a test, on real servers of 3.4 and 3.5."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from backends import etcd, etcd_watch
from backends import etcd_wire as wire
from backends.etcd import EtcdMedium, EtcdSessions, connect
from backends.etcd_errors import Failed, Verdict
from backends.etcd_identity import SILENT_S
from backends.medium import Step
from backends.store import (
    Absent,
    Broken,
    Compacted,
    Conflict,
    Delete,
    Put,
    Refused,
    SessionLost,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
)
from backends.url import Secret, parse_server_url
from kvnet.errors import (
    AnotherCluster,
    Invalid,
    StoreBroken,
    StoreForbidden,
    StoreLoginRefused,
    StoreUnavailable,
    StoreUntrusted,
)
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.servers.etcd import OWNER, ROOT, Etcd
from tests.store.watching import until

pytestmark = pytest.mark.anyio
KINDS: tuple[Kind, ...] = ("etcd3.4", "etcd3.5")
DEADLINE_S = 30.0
_roots = count()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
async def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """One that nobody breaks; each test has its own root."""
    async with Cluster(kind, tmp_path_factory.mktemp("server")) as cluster:
        yield cluster


@pytest.fixture
async def medium(server: Cluster) -> AsyncIterator[EtcdMedium]:
    async with opened(server.url(f"root{next(_roots)}")) as medium:
        yield medium


@pytest.fixture(scope="module")
async def guarded(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """With users, of whom OWNER may do everything below /kvnet/."""
    async with Cluster(kind, tmp_path_factory.mktemp("guarded"), auth=True) as cluster:
        await cluster.grant("/kvnet/")
        yield cluster


@pytest.fixture(scope="module")
async def private(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """Speaks TLS only, and only with clients that show a certificate."""
    async with Cluster(kind, tmp_path_factory.mktemp("private"), tls=True, client_certificates=True) as cluster:
        yield cluster


@asynccontextmanager
async def opened(url: str, *, must_answer: bool = True) -> AsyncIterator[EtcdMedium]:
    medium = await connect(parse_server_url(url, {}), must_answer=must_answer, rng=random.Random(7))
    try:
        yield medium
    finally:
        await medium.close()


def ctl(cluster: Cluster) -> Etcd:
    assert isinstance(cluster.family, Etcd)
    return cluster.family


def everything(_: str) -> bool:
    return True


async def next_step(steps: AsyncIterator[Step], deadline_s: float = DEADLINE_S) -> Step:
    async with asyncio.timeout(deadline_s):
        return await anext(steps)


class Sent:
    """The names of the requests that a medium sends from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, medium: EtcdMedium) -> None:
        self.methods: list[str] = []
        for link in medium.cluster.links:
            monkeypatch.setattr(link, "call", self._telling(link.call))

    def _telling(self, call: Callable[..., Awaitable[wire.Answer]]) -> Callable[..., Awaitable[wire.Answer]]:
        async def tell(method: wire.Method[wire.Answer], *rest: object) -> wire.Answer:
            self.methods.append(method.path.rpartition("/")[2])
            return await call(method, *rest)

        return tell


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
    await medium.commit([Unchanged(entry.key, entry.version)], [Delete(entry.key)])

    assert (await medium.scan("")).entries == ()


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


@asynccontextmanager
async def following(medium: EtcdMedium) -> AsyncIterator[AsyncIterator[Step]]:
    steps = medium.follow(None, everything)
    await next_step(steps)
    try:
        yield steps
    finally:
        await steps.aclose()


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


# --- users ---


def as_user(cluster: Cluster, password: Secret, user: str = OWNER.user, root: str = "kvnet") -> str:
    login = f"{user}:{password.given}@" if password.given else f"{user}@"
    query = f"?password_file={password.file}" if password.file else ""
    return f"etcd://{login}{','.join(cluster.endpoints)}/{root}{query}"


async def test_a_user_with_a_role_for_the_root_reads_writes_follows_and_keeps_sessions(guarded: Cluster) -> None:
    async with opened(guarded.url(who=OWNER)) as medium, following(medium) as steps:
        sessions = EtcdSessions(medium)
        session = await sessions.grant(10)
        revision = await sessions.commit([], [Put("k", b"1", session)])

        assert (await next_step(steps)).revision == revision
        await sessions.refresh(session, 10)
        assert [entry.key for entry in (await medium.scan("")).entries] == ["k"]
        await sessions.revoke(session)


@pytest.mark.parametrize(
    "url",
    [
        f"etcd://{OWNER.user}:wrong-password@{{}}/kvnet",
        "etcd://nobody-knows-me:some-password@{}/kvnet",
        "etcd://{}/kvnet",
    ],
    ids=["wrong password", "unknown user", "no user"],
)
async def test_who_is_not_known_is_told_so_at_start(guarded: Cluster, url: str) -> None:
    for must_answer in (True, False):
        with pytest.raises(StoreLoginRefused) as caught:
            async with opened(url.format(guarded.endpoints[0]), must_answer=must_answer):
                pass
        assert "password@" not in str(caught.value)
        assert "wrong-password" not in repr(caught.value)


async def test_an_unreadable_password_file_is_named(guarded: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="missing"):
        async with opened(as_user(guarded, Secret(file=str(tmp_path / "missing")))):
            pass


@pytest.mark.parametrize(
    "grant", ["", "read /kvnet/ --prefix=true", "readwrite /kvnet/a", "write /kvnet/ --prefix=true"]
)
async def test_who_may_not_read_and_write_all_below_the_root_is_told_so_at_start_and_nothing_is_written(
    guarded: Cluster, grant: str
) -> None:
    family = ctl(guarded)
    name = f"u{next(_roots)}"
    await family.ctl("user", "add", f"{name}:some-password")
    if grant:
        await family.ctl("role", "add", name)
        await family.ctl("role", "grant-permission", name, *grant.split())
        await family.ctl("user", "grant-role", name, name)
    before = await family.ctl("get", "/", "--prefix=true", "-w", "fields")

    for must_answer in (True, False):
        with pytest.raises(StoreForbidden) as caught:
            async with opened(as_user(guarded, Secret("some-password"), name), must_answer=must_answer):
                pass
        assert caught.value.fix.endswith("readwrite --prefix=true /kvnet/")
        assert "some-password" not in str(caught.value)
    after = await family.ctl("get", "/", "--prefix=true", "-w", "fields")
    assert [line for line in after.splitlines() if "Revision" in line] == [
        line for line in before.splitlines() if "Revision" in line
    ]


async def test_a_permission_that_is_taken_away_later_is_a_refusal_also_of_watches(guarded: Cluster) -> None:
    """A refused watch is created and canceled in one answer: who looks only at `created` waits for ever."""
    family = ctl(guarded)
    name = f"u{next(_roots)}"
    await family.ctl("user", "add", f"{name}:some-password")
    await family.ctl("role", "add", name)
    await family.ctl("role", "grant-permission", name, "readwrite", "/kvnet/", "--prefix=true")
    await family.ctl("user", "grant-role", name, name)
    async with opened(as_user(guarded, Secret("some-password"), name)) as medium:
        await medium.commit([], [Put("k", b"1")])
        await family.ctl("user", "revoke-role", name, name)

        with pytest.raises(Refused):
            await medium.commit([], [Put("k", b"2")])
        with pytest.raises(Refused):
            await medium.scan("")
        with pytest.raises(Refused):
            await next_step(medium.follow(None, everything))
        with pytest.raises(Refused):
            await etcd_watch.open_watch(medium.cluster, b"/kvnet/", b"/kvnet0", 1)


async def test_changed_users_and_roles_make_no_request_fail(guarded: Cluster) -> None:
    """Every token is of a revision of the users; with an older one etcd says "revision in header is old"."""
    family = ctl(guarded)
    async with opened(guarded.url(who=OWNER)) as medium:
        for i in range(5):
            await family.ctl("role", "add", f"r{next(_roots)}")
            await medium.commit([], [Put("k", b"%d" % i)])
            await family.ctl("role", "add", f"r{next(_roots)}")
            async with following(medium):
                pass


async def test_a_token_that_died_with_its_server_is_replaced_once_for_all_who_wait(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Cluster(kind, tmp_path, auth=True) as cluster:
        await cluster.grant("/kvnet/")
        file = tmp_path / "password"
        file.write_text(f"{OWNER.password}\n")
        async with opened(as_user(cluster, Secret(file=str(file)))) as medium:
            sent = Sent(monkeypatch, medium)
            await ctl(cluster).ctl("user", "delete", OWNER.user)
            await ctl(cluster).ctl("user", "add", f"{OWNER.user}:new-password")
            await ctl(cluster).ctl("user", "grant-role", OWNER.user, "below-kvnet")
            file.write_text("new-password\n")
            await cluster.restart_all()
            await asyncio.gather(*(medium.commit([], [Put(f"k/{i}", b"1")]) for i in range(64)))

            assert sent.methods.count("Authenticate") == 1
            async with following(medium):
                pass
            file.write_text("wrong-password\n")
            await cluster.restart_all()
            with pytest.raises(Refused) as caught:
                await medium.revision()
            assert "wrong-password" not in str(caught.value)


async def test_an_expired_token_is_replaced(tmp_path: Path) -> None:
    async with Cluster("etcd3.5", tmp_path, auth=True, token_ttl_s=1) as cluster:
        await cluster.grant("/kvnet/")
        async with opened(cluster.url(who=OWNER)) as medium:
            token = medium.cluster._token
            async with asyncio.timeout(DEADLINE_S):
                while medium.cluster._token == token:
                    await asyncio.sleep(1.5)  # only a token that nobody uses expires
                    await medium.commit([], [Put("k", b"1")])


async def test_a_user_is_no_error_where_there_are_no_users_and_serves_when_there_are(
    kind: Kind, tmp_path: Path
) -> None:
    async with Cluster(kind, tmp_path) as cluster:
        family = ctl(cluster)
        async with opened(as_user(cluster, Secret(ROOT.password), ROOT.user)) as medium:
            await medium.commit([], [Put("k", b"1")])
            await family.secure()
            await medium.commit([], [Put("k", b"2")])
            await family.ctl("--user", f"{ROOT.user}:{ROOT.password}", "auth", "disable")
            await medium.commit([], [Put("k", b"3")])


# --- trust ---


def over_tls(cluster: Cluster, *, host: str = "127.0.0.1", scheme: str = "etcds", **files: object) -> str:
    port = cluster.endpoints[0].rpartition(":")[2]
    query = "&".join(f"{name}={file}" for name, file in files.items())
    return f"{scheme}://{host}:{port}/kvnet" + (f"?{query}" if query else "")


@asynccontextmanager
async def reached_at(address: str, endpoint: str) -> AsyncIterator[None]:
    """The server is to be reached at another address, too."""
    host, _, port = endpoint.rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))

    async with await asyncio.start_server(serve, address, int(port)):
        yield


async def test_both_sides_show_certificates(private: Cluster) -> None:
    for host in ("127.0.0.1", "localhost"):
        pair = private.certificates.client
        url = over_tls(private, host=host, ca=private.certificates.ca, cert=pair.cert, key=pair.key)
        async with opened(url) as medium, following(medium) as steps:
            revision = await medium.commit([], [Put("k", b"1")])
            assert (await next_step(steps)).revision == revision


async def test_a_server_that_cannot_be_trusted_is_told_from_one_that_is_away(private: Cluster, server: Cluster) -> None:
    known = private.certificates
    ours = {"cert": known.client.cert, "key": known.client.key}
    theirs = {"cert": known.wrong_client.cert, "key": known.wrong_client.key}
    cases = {
        over_tls(private, ca=known.wrong_ca, **ours): "its certificate is not accepted",
        over_tls(private, **ours): "its certificate is not accepted",
        over_tls(
            private, host="127.0.0.2", ca=known.ca, **ours
        ): "its certificate is not accepted: IP address mismatch",
        over_tls(private, ca=known.ca): "does not accept our certificate",
        over_tls(private, ca=known.ca, **theirs): "does not accept our certificate",
        over_tls(private, scheme="etcd"): "speaks TLS only",
        over_tls(server, ca=known.ca, **ours): "does not speak TLS",
    }
    async with reached_at("127.0.0.2", private.endpoints[0]):
        for url, reason in cases.items():
            for must_answer in (True, False):
                with pytest.raises(StoreUntrusted, match=reason):
                    async with opened(url, must_answer=must_answer):
                        pass


async def test_files_that_hold_something_else_are_named(private: Cluster, tmp_path: Path) -> None:
    known = private.certificates
    odd = tmp_path / "odd.pem"
    odd.write_text("not a certificate")
    for files in ({"ca": odd}, {"ca": known.ca, "cert": odd, "key": known.client.key}):
        with pytest.raises(StoreUntrusted, match=r"odd\.pem"):
            async with opened(over_tls(private, **files)):
                pass


# --- whose answers ---


async def test_endpoints_of_two_clusters_are_refused_at_start(server: Cluster, guarded: Cluster) -> None:
    endpoints = f"{server.endpoints[0]},{guarded.endpoints[0]}"
    with pytest.raises(AnotherCluster, match=r"belongs to etcd cluster [0-9a-f]+.* to [0-9a-f]+"):
        async with opened(f"etcd://{endpoints}/kvnet", must_answer=False):
            pass


async def test_a_cluster_set_up_anew_is_taken_when_the_old_one_is_gone_and_followed_from_its_beginning(
    kind: Kind, tmp_path: Path
) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium:
        reached = await medium.commit([], [Put("k", b"1")])
        await next_step(medium.follow(None, everything))
        await cluster.wipe_all()
        for _ in range(3):  # so that its revisions do not tell
            await ctl(cluster).ctl("put", "/other", "1")

        assert "another etcd cluster" in str(await until_compacted(medium, reached))
        with pytest.raises(Unavailable, match="not read yet"):
            await medium.commit([Absent("k")], [Put("k", b"2")])
        assert await ctl(cluster).ctl("get", "/kvnet", "--prefix=true") == ""

        await next_step(medium.follow(None, everything))
        await medium.commit([Absent("k")], [Put("k", b"2")])


async def until_compacted(medium: EtcdMedium, after: int) -> Compacted:
    async with asyncio.timeout(SILENT_S + DEADLINE_S):
        while True:
            try:
                await next_step(medium.follow(after, everything))
            except Compacted as error:
                return error
            except (Broken, Unavailable):
                await asyncio.sleep(0.2)


# --- failures ---


async def test_a_server_that_is_away_is_unavailable_at_once_and_again_there_later(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster:
        await cluster.kill_all()
        with pytest.raises(StoreUnavailable, match="Connection refused"):
            async with opened(cluster.url()):
                pass
        async with opened(cluster.url(), must_answer=False) as medium:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await medium.commit([], [Put("k", b"1")])
            assert time.monotonic() - began < 3.0
            await cluster.start()
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    with suppress(Unavailable):
                        await medium.commit([Absent("k")], [Put("k", b"1")])
                        break
                    await asyncio.sleep(0.05)


async def test_a_commit_whose_answer_is_lost_is_unknown(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium:
        await medium.commit([], [Put("k", b"1")])
        await cluster.members[0].freeze()
        writing = asyncio.ensure_future(medium.commit([], [Put("k", b"2")]))
        reading = asyncio.ensure_future(medium.read(["k"]))
        await asyncio.wait([writing, reading], timeout=0.2)
        await cluster.members[0].kill()

        with pytest.raises(Unknown):
            await writing
        with pytest.raises(Unavailable):
            await reading


async def test_a_frozen_server_costs_a_commit_its_bound_and_the_next_are_not_even_sent(
    kind: Kind, tmp_path: Path
) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium, following(medium) as steps:
        await cluster.members[0].freeze()
        began = time.monotonic()
        watching = asyncio.ensure_future(next_step(steps, 20.0))
        with pytest.raises(Unknown):
            await medium.commit([], [Put("k", b"1")])
        assert time.monotonic() - began < 6.0
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("k", b"2")])
        assert time.monotonic() - began < 10.0
        with pytest.raises(Unavailable):
            await watching
        assert time.monotonic() - began < 15.0


async def test_closing_ends_what_is_under_way_without_cancelling_who_waits(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster:
        medium = await connect(parse_server_url(cluster.url(), {}), rng=random.Random(7))
        steps = medium.follow(None, everything)
        await next_step(steps)
        await cluster.members[0].freeze()
        under_way = [
            asyncio.ensure_future(medium.commit([], [Put("k", b"1")])),
            asyncio.ensure_future(medium.revision()),
            asyncio.ensure_future(next_step(steps)),
        ]
        await asyncio.wait(under_way, timeout=0.2)
        await medium.close()
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [Unknown, Unavailable, Unavailable]
        with pytest.raises(Unavailable):
            await medium.revision()
        await medium.close()


async def fill(medium: EtcdMedium) -> None:
    for i in range(100):
        await medium.commit([], [Put(f"k/{i}", bytes(200_000))])


async def test_a_full_etcd_says_what_to_do_and_still_reads(kind: Kind, tmp_path: Path) -> None:
    options = [f"--quota-backend-bytes={4 << 20}"]
    async with Cluster(kind, tmp_path, options=options) as cluster, opened(cluster.url()) as medium:
        with pytest.raises(Broken, match="compact"):
            await fill(medium)

        assert len((await medium.scan("k/")).entries) > 5
        with pytest.raises(StoreBroken, match="defrag"):
            async with opened(cluster.url()):
                pass
        async with opened(cluster.url(), must_answer=False) as another:
            assert await another.revision() > 0


# --- three members ---


async def test_a_frozen_member_costs_a_few_seconds_and_only_once(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        in_use = medium.cluster._order()[0].name
        member = next(member for member in cluster.members if member.endpoint == in_use)
        await member.freeze()
        began = time.monotonic()
        await asyncio.gather(*(medium.read(["k"]) for _ in range(64)))
        assert time.monotonic() - began < 5.0
        began = time.monotonic()
        for _ in range(20):
            await medium.commit([], [Put("k", b"1")])
        assert time.monotonic() - began < 5.0
        async with following(medium) as steps:
            revision = await medium.commit([], [Put("k", b"2")])
            assert (await next_step(steps)).revision == revision


async def test_a_dead_member_costs_nothing_that_was_not_under_way(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        leader = await cluster.leader()
        in_use = next(m for m in cluster.members if m.endpoint == medium.cluster._order()[0].name)
        if in_use.index == leader:  # the loss of the leader is another test
            medium.cluster.leave(medium.cluster._order()[0])
            in_use = next(m for m in cluster.members if m.endpoint == medium.cluster._order()[0].name)
        await in_use.kill()
        await until(lambda: not medium.cluster._order()[0].is_connected)

        for i in range(20):
            await medium.commit([], [Put("k", b"%d" % i)])


async def test_without_a_majority_nobody_hangs(kind: Kind, tmp_path: Path) -> None:
    """A member without a leader says so: also to watches, which would otherwise look quiet for ever."""
    async with (
        Cluster(kind, tmp_path, members=3) as cluster,
        opened(cluster.url()) as medium,
        following(medium) as steps,
    ):
        await medium.commit([], [Put("k", b"1")])
        await next_step(steps)
        in_use = medium.cluster._order()[0].name
        others = [member for member in cluster.members if member.endpoint != in_use]
        await asyncio.gather(*(member.kill() for member in others))

        with pytest.raises(Unavailable):
            await next_step(steps, 15.0)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("k", b"2")])
        assert time.monotonic() - began < 2.0
        await asyncio.gather(*(member.start() for member in others))
        await cluster.until_healthy()
        [entry] = await medium.read(["k"])
        assert entry is not None
        assert entry.value == b"1"


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
    url = server.url(f"root{next(_roots)}").replace("/root", ",127.0.0.1:1/root")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, url, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, output) == (0, b"")
