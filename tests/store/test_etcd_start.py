"""Who is let in by etcd, and who is refused at the door: users, tokens, certificates, another cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from backends import etcd_watch
from backends import etcd_wire as wire
from backends.etcd import EtcdMedium, EtcdSessions
from backends.etcd_identity import SILENT_S
from backends.store import (
    Absent,
    Broken,
    Compacted,
    Put,
    Refused,
    Unavailable,
)
from backends.url import Secret
from kvnet.errors import (
    AnotherCluster,
    Invalid,
    StoreForbidden,
    StoreLoginRefused,
    StoreUntrusted,
)
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.servers.etcd import OWNER, ROOT
from tests.store import etcd_kit as kit
from tests.store.etcd_kit import DEADLINE_S, ctl, everything, following, next_step, opened, roots

pytestmark = pytest.mark.anyio
kind = kit.kind
server = kit.server
guarded = kit.guarded


@pytest.fixture(scope="module")
async def private(kind: Kind, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """Speaks TLS only, and only with clients that show a certificate."""
    async with Cluster(kind, tmp_path_factory.mktemp("private"), tls=True, client_certificates=True) as cluster:
        yield cluster


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
    name = f"u{next(roots)}"
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
    name = f"u{next(roots)}"
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
            await family.ctl("role", "add", f"r{next(roots)}")
            await medium.commit([], [Put("k", b"%d" % i)])
            await family.ctl("role", "add", f"r{next(roots)}")
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
