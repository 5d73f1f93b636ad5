"""ZooKeeper's and kazoo's own traps, each by name, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.connection import _SESSION_EXPIRED
from kazoo.security import READ_ACL_UNSAFE, make_digest_acl

from backends.medium import Step
from backends.store import (
    Absent,
    Compacted,
    Conflict,
    Delete,
    Present,
    Put,
    Refused,
    Snapshot,
    StoreError,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from backends.url import Endpoint, Secret, parse_server_url
from backends.zookeeper import ZookeeperMedium, connect
from backends.zookeeper_bridge import FORGET_AFTER_S, SESSION_S
from backends.zookeeper_commit import GENERATION_S
from backends.zookeeper_log import decode, encode
from backends.zookeeper_nodes import Layout, directory_node, directory_of, name_node, name_of, split_key
from backends.zookeeper_socket import PATIENCE_S
from backends.zookeeper_wire import Exists
from kvnet.errors import StoreForbidden, StoreLoginRefused, StoreUnavailable, StoreUntrusted
from tests.servers.cluster import Cluster
from tests.servers.family import Credentials
from tests.store.proxy import Proxy
from tests.store.watching import plain, until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("zookeeper-own")]

ODD_KEYS = [
    "a",
    "a/b",
    "a/b/c",
    "a,b/c",
    "x%2Fy/%",
    "sp ace/é",
    "😀/\ufffd😀",
    "./..",
    "../.",
    "[::1]/02:42:ac",
    ".",
    ",",
]


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    async with Cluster("zookeeper", tmp_path_factory.mktemp("zookeeper")) as cluster:
        yield cluster


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(f"test/{uuid.uuid4().hex}")


@pytest.fixture
async def medium(url: str) -> AsyncIterator[ZookeeperMedium]:
    async with connected(url) as medium:
        yield medium


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ZookeeperMedium]:
    medium = await connect(parse_server_url(url, {}), rng=random.Random(), **options)
    try:
        yield medium
    finally:
        await medium.close()


@asynccontextmanager
async def plain_client(cluster: Cluster, **options: Any) -> AsyncIterator[KazooClient]:
    """kazoo by itself, as an operator with zkCli.sh would be."""
    client = KazooClient(hosts=cluster.endpoints[0], **options)
    await asyncio.to_thread(client.start)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.stop)
        client.close()


class Follower:
    """What one follower was told, and how it ended."""

    def __init__(self, medium: ZookeeperMedium, after: int | None) -> None:
        self.steps: list[Step] = []
        self.error: StoreError | None = None
        self._steps = medium.follow(after, lambda key: True)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async for step in self._steps:
                self.steps.append(step)
        except StoreError as error:
            self.error = error

    @property
    def told(self) -> dict[str, bytes | None]:
        return {
            change.key: change.entry.value if change.entry else None for step in self.steps for change in step.changes
        }


@asynccontextmanager
async def following(medium: ZookeeperMedium, after: int | None = None) -> AsyncIterator[Follower]:
    follower = Follower(medium, after)
    try:
        await until(lambda: bool(follower.steps) or follower.error is not None)
        yield follower
    finally:
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)


async def children(medium: ZookeeperMedium, path: str) -> list[str]:
    return sorted((await medium._reads.children(path))[0])


# What is written, and where.


@pytest.mark.parametrize("key", ODD_KEYS)
def test_every_key_has_a_node_of_its_own_and_comes_back_from_it(key: str) -> None:
    directory, name = split_key(key)
    nodes = directory_node(directory), name_node(name)

    assert not any(node in {"", ".", ".."} or "/" in node or max(node) > "\uffef" for node in nodes)
    assert (directory_of(nodes[0]), name_of(nodes[1])) == (directory, name)
    assert len({(directory_node(split_key(one)[0]), name_node(split_key(one)[1])) for one in ODD_KEYS}) == len(ODD_KEYS)


async def test_keys_of_letters_that_zookeeper_forbids_are_kept_and_listed(medium: ZookeeperMedium) -> None:
    await medium.commit([], [Put(key, key.encode()) for key in ODD_KEYS])

    assert plain(await medium.scan("")) == {key: key.encode() for key in ODD_KEYS}
    assert [entry and entry.value for entry in await medium.read(ODD_KEYS)] == [key.encode() for key in ODD_KEYS]
    assert set(plain(await medium.scan("a"))) == {"a", "a/b", "a/b/c", "a,b/c"}
    assert set(plain(await medium.scan("a/"))) == {"a/b", "a/b/c"}
    assert set(plain(await medium.scan("😀/\ufffd"))) == {"😀/\ufffd😀"}


async def test_connecting_reading_and_a_conflict_write_nothing(cluster: Cluster, url: str) -> None:
    async with connected(url) as medium, plain_client(cluster) as client:
        before = await asyncio.to_thread(client.get_children, "/")
        assert await medium.scan("") == Snapshot((), 0)
        assert await medium.revision() == 0
        assert await medium.read(["a"]) == [None]
        with pytest.raises(Conflict):
            await medium.commit([Present("a")], [Put("b", b"")])
        async with following(medium) as follower:
            assert follower.steps == [Step(0, ())]

        assert await asyncio.to_thread(client.get_children, "/") == before
        assert not await asyncio.to_thread(client.exists, f"/{medium._layout.root[1:]}")


async def test_an_operator_finds_a_key_by_its_name(cluster: Cluster, medium: ZookeeperMedium) -> None:
    await medium.commit([], [Put("endpoints/3f2a/web", b"{}"), Put("meta/cluster", b"{}")])

    async with plain_client(cluster) as client:
        data, _ = await asyncio.to_thread(client.get, f"{medium._layout.root}/data/endpoints,3f2a/web")
        assert data == b"{}"


@pytest.mark.parametrize(
    "value", [b"\0kvnet:t", b"\0kvnet:v\0kvnet:t", b"\0kvnet:", b"", b"\xff\0\xfe", "é😀".encode()]
)
async def test_a_value_that_looks_like_a_tombstone_is_a_value(medium: ZookeeperMedium, value: bytes) -> None:
    async with following(medium) as follower:
        await medium.commit([], [Put("a", value)])
        await until(lambda: "a" in follower.told)

        assert follower.told == {"a": value}
        [entry] = await medium.read(["a"])
        assert entry is not None
        assert entry.value == value


@pytest.mark.parametrize("kind", ["noise", "zeros"])
async def test_the_largest_transaction_fits_a_request_with_its_log_entry(medium: ZookeeperMedium, kind: str) -> None:
    """jute.maxbuffer: above 1 MB the server cuts the connection, and with it every watch."""
    size = 5 * 1024
    values = [os.urandom(size) if kind == "noise" else bytes(size) for _ in range(59)]
    async with following(medium) as follower:
        await medium.commit([], [Put(f"big/{i}", value) for i, value in enumerate(values)])
        await until(lambda: len(follower.told) == len(values))

        assert follower.told == {f"big/{i}": value for i, value in enumerate(values)}
        assert follower.error is None


def test_a_log_entry_tells_what_was_written() -> None:
    writes: list[Write] = [Put("a", b"text"), Put("b", b"\xff"), Delete("c"), Put("d", b"")]

    assert list(decode(encode(writes))) == [("a", ["text"]), ("b", ["/w==", 64]), ("c", []), ("d", [""])]
    assert len(encode([Put("a", b"x" * 100_000)])) < 1000


def test_after_the_last_number_of_32_bits_the_log_goes_on_with_the_lowest() -> None:
    layout = Layout("kvnet")

    assert layout.entry(7) == "/kvnet/log/e-0000000007"
    assert layout.entry(2**31) == "/kvnet/log/e--2147483648"
    assert layout.entry(-(2**31) - 1) == "/kvnet/log/e-2147483647"


# Versions and checks.


async def test_a_check_fails_for_a_key_that_was_deleted_and_made_again_with_the_same_data_version(
    url: str, medium: ZookeeperMedium
) -> None:
    first = await medium.commit([Absent("ip")], [Put("ip", b"one")])
    async with connected(url) as other:
        await other.commit([], [Delete("ip")])
        second = await other.commit([Absent("ip")], [Put("ip", b"two")])

    with pytest.raises(Conflict):
        await medium.commit([Unchanged("ip", first)], [Delete("ip")])
    await medium.commit([Unchanged("ip", second)], [Delete("ip")])


async def test_what_was_seen_of_a_node_is_not_believed_for_as_long_as_a_tombstone_lives(url: str) -> None:
    now = [0.0]
    async with connected(url, clock=lambda: now[0]) as medium, connected(url) as other:
        first = await medium.commit([Absent("ip")], [Put("ip", b"one")])
        await other.commit([], [Delete("ip")])
        await other.janitor.bury(0)
        await other.commit([Absent("ip")], [Put("ip", b"two")])  # a new node: its data version is the first one's
        now[0] += 2 * GENERATION_S + 1

        with pytest.raises(Conflict):
            await medium.commit([Unchanged("ip", first)], [Put("ip", b"stolen")])


async def test_a_conflict_names_every_key_though_zookeeper_names_the_first_only(medium: ZookeeperMedium) -> None:
    version = await medium.commit([], [Put("a", b""), Put("b", b"")])

    with pytest.raises(Conflict) as caught:
        await medium.commit([Absent("b"), Present("c"), Unchanged("a", version), Absent("a")], [Put("d", b"")])

    assert caught.value.keys == ("a", "b", "c")
    assert await medium.read(["d"]) == [None]


async def test_a_refused_transaction_leaves_head_and_log_in_step(medium: ZookeeperMedium) -> None:
    for number in range(5):
        await medium.commit([], [Put("a", b"%d" % number)])
        with pytest.raises(Conflict):
            await medium.commit([Absent("a")], [Put("b", b"")])
    await medium.janitor.trim(0, 0)

    async with following(medium) as follower:
        await medium.commit([], [Put("a", b"last")])
        await until(lambda: follower.told == {"a": b"last"})


async def test_racing_first_commits_make_the_structure_once_and_all_of_them_succeed(url: str) -> None:
    async with connected(url) as one, connected(url) as two:
        await asyncio.gather(
            *(
                medium.commit([Absent(f"d{i}/{n}")], [Put(f"d{i}/{n}", b"")])
                for n, medium in enumerate((one, two))
                for i in range(10)
            )
        )

        assert len((await one.scan("")).entries) == 20


async def test_deleting_what_was_never_there_still_sees_who_makes_it_meanwhile(url: str) -> None:
    """[Delete b, Put a] against [Absent a, Put b]: afterwards there is never both."""
    async with connected(url) as one, connected(url) as two:
        for i in range(20):
            await asyncio.gather(
                one.commit([], [Delete(f"b{i}"), Put(f"a{i}", b"")]),
                two.commit([Absent(f"a{i}")], [Put(f"b{i}", b"")]),
                return_exceptions=True,
            )
            assert None in await one.read([f"a{i}", f"b{i}"])


async def test_an_untold_commit_has_a_new_version_and_no_step(medium: ZookeeperMedium) -> None:
    async with following(medium) as follower:
        first = await medium.commit([Absent("l")], [Put("l", b"1")], is_told=False)
        second = await medium.commit([Unchanged("l", first)], [Put("l", b"2")], is_told=False)
        await medium.commit([], [Put("a", b"")])
        await until(lambda: "a" in follower.told)

        assert second > first
        assert follower.told == {"a": b""}


async def test_reads_work_without_multiread(medium: ZookeeperMedium) -> None:
    """Servers before 3.6 do not have it."""
    medium._reads.has_multi = False
    await medium.commit([], [Put(f"k/{i}", b"%d" % i) for i in range(60)])

    async with following(medium, 0) as follower:
        await until(lambda: len(follower.told) == 60)
    assert len((await medium.scan("k/")).entries) == 60
    assert [entry is not None for entry in await medium.read(["k/1", "nope"])] == [True, False]


async def test_a_scan_is_as_of_one_revision_while_everything_is_rewritten(url: str, medium: ZookeeperMedium) -> None:
    await medium.commit([], [Put(f"p/{i}", b"0") for i in range(50)])
    async with connected(url) as other:

        async def rewrite() -> None:
            for number in range(1, 40):
                await other.commit([], [Put(f"p/{i}", b"%d" % number) for i in range(50)])

        writing = asyncio.create_task(rewrite())
        while not writing.done():
            assert len({entry.value for entry in (await medium.scan("p/")).entries}) == 1
        await writing


# Following.


async def test_a_follower_resumes_from_a_revision_that_this_client_never_saw(url: str, medium: ZookeeperMedium) -> None:
    revisions = [await medium.commit([], [Put(f"k/{i}", b"")]) for i in range(20)]

    async with connected(url) as other, following(other, revisions[7]) as follower:
        await until(lambda: len(follower.steps) == 13)

    assert [step.revision for step in follower.steps] == revisions[7:]


async def test_trimmed_history_is_compacted(url: str, medium: ZookeeperMedium) -> None:
    old = await medium.commit([], [Put("k", b"")])
    for i in range(230):
        await medium.commit([], [Put("k", b"%d" % i)])
    assert await medium.janitor.trim(0, 0) == 31

    async with connected(url) as other, following(other, old) as follower:
        assert isinstance(follower.error, Compacted)
    async with following(medium, old) as follower:  # and where the position is still known
        await until(lambda: isinstance(follower.error, Compacted))


async def test_a_root_that_is_removed_under_a_follower_is_compacted(cluster: Cluster, medium: ZookeeperMedium) -> None:
    await medium.commit([], [Put("k", b"")])
    async with following(medium) as follower, plain_client(cluster) as client:
        await asyncio.to_thread(client.delete, medium._layout.root, recursive=True)
        await until(lambda: isinstance(follower.error, Compacted))


async def test_a_root_that_was_made_anew_is_compacted_for_who_knew_the_old_one(
    cluster: Cluster, url: str, medium: ZookeeperMedium
) -> None:
    for _ in range(3):
        old = await medium.commit([], [Put("k", b"")])
    async with plain_client(cluster) as client:
        await asyncio.to_thread(client.delete, medium._layout.root, recursive=True)
    async with connected(url) as other:
        for _ in range(9):
            await other.commit([], [Put("j", b"")])
        async with following(other, old) as follower:
            assert isinstance(follower.error, Compacted)
    assert plain(await medium.scan("")) == {"j": b""}


async def test_a_revision_ahead_of_the_store_is_compacted(medium: ZookeeperMedium) -> None:
    revision = await medium.commit([], [Put("k", b"")])

    async with following(medium, revision + 1000) as follower:
        assert isinstance(follower.error, Compacted)


# The janitor.


async def test_tombstones_and_empty_directories_go_away(url: str, medium: ZookeeperMedium) -> None:
    await medium.commit([], [Put("d/1", b""), Put("d/2", b""), Put("e/1", b"")])
    await medium.commit([], [Delete("d/1"), Delete("d/2")])
    data = medium._layout.data
    assert await children(medium, f"{data}/d") == ["1", "2"]
    await medium.commit([], [Put("d/2", b"again")])

    await medium.janitor.bury(0)
    assert await children(medium, f"{data}/d") == ["2"]

    await medium.commit([], [Delete("d/2")])
    async with connected(url) as other:  # whoever deleted it is gone
        for _ in range(4):
            await other.janitor.sweep()
        assert await children(other, data) == ["e"]
        await medium.commit([Absent("d/2")], [Put("d/2", b"back")])  # and who believed in the directory is not misled
        assert plain(await other.scan("d/")) == {"d/2": b"back"}


async def test_one_client_at_a_time_is_the_janitor(url: str, medium: ZookeeperMedium) -> None:
    async with connected(url) as other:
        await medium.commit([], [Put("a", b"")])
        turns = [await medium.janitor._is_mine(), await other.janitor._is_mine(), await medium.janitor._is_mine()]

    assert turns == [True, False, True]


# kazoo.


async def test_closing_ends_all_threads(url: str) -> None:
    before = set(threading.enumerate())
    async with connected(url):
        ours = [thread for thread in set(threading.enumerate()) - before if "asyncio" not in thread.name]
        assert len(ours) == 3
    await until(lambda: not any(thread.is_alive() for thread in ours))


async def test_kazoo_logs_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected(url) as medium:
        await medium.commit([], [Put("secret", b"in-a-value")])
    with pytest.raises(StoreUnavailable):
        await connect(parse_server_url("zk://someone:a-password@127.0.0.1:1/kvnet", {}))

    assert not [record for record in caplog.records if "kazoo" in record.name]
    assert "in-a-value" not in caplog.text
    assert "a-password" not in caplog.text


async def test_a_lost_zookeeper_session_loses_nothing_here(medium: ZookeeperMedium) -> None:
    revision = await medium.commit([], [Put("a", b"")])
    async with following(medium) as follower:
        client: KazooClient = medium._bridge._client
        session = client.client_id
        client._call(_SESSION_EXPIRED, client.handler.async_result())  # what kazoo tests itself with
        await until(lambda: isinstance(follower.error, Unavailable))

    async with following(medium, revision) as follower:
        await medium.commit([Unchanged("a", revision)], [Put("a", b"2")])
        await until(lambda: follower.told == {"a": b"2"})
    assert client.client_id != session


async def test_an_answer_that_nobody_takes_any_more_is_no_noise(cluster: Cluster) -> None:
    """The head and the next entries are asked for together; when the first fails, nobody wants the others."""
    noise: list[str] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    proxy = Proxy(None, cluster.endpoints[0])
    await proxy.start()
    async with connected(f"zk://{proxy.endpoint}/test/{uuid.uuid4().hex}") as medium:
        await medium.commit([], [Put("a", b"")])
        loop.set_exception_handler(lambda _, context: noise.append(context["message"]))
        try:
            proxy.is_silent = True
            asked = [medium._log._look(lambda _: None, 1), medium._overview(), medium.read(["a"])]
            asking = [asyncio.ensure_future(one) for one in asked]
            await until(lambda: len(medium._bridge._client._pending) >= 7)
            await proxy.stop()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            del asked, asking
            gc.collect()
        finally:
            loop.set_exception_handler(before)

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert noise == []


async def test_more_requests_than_kazoos_pipe_holds_do_not_block_the_loop(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        await medium.commit([], [Put("a", b"")])
        await cluster.members[0].freeze()
        calls: list[asyncio.Future[Any]] = [asyncio.create_task(medium.read(["a"])) for _ in range(1000)]
        calls += [asyncio.create_task(medium.commit([Absent(f"k{i}")], [Put(f"k{i}", b"")])) for i in range(1000)]
        began = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0)
        assert time.monotonic() - began < 2
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} <= {Unavailable, Unknown}
        assert Unknown in {type(outcome) for outcome in outcomes[1000:]}


# Servers that die, freeze and come back.


async def test_nothing_is_lost_or_told_twice_over_a_killed_server(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        acknowledged: list[int] = []
        uncertain: set[int] = set()
        told: list[int] = []
        is_over = asyncio.Event()

        async def write() -> None:
            for number in range(100_000):
                if is_over.is_set():
                    return
                try:
                    await medium.commit([], [Put(f"n/{number:06d}", b"")])
                    acknowledged.append(number)
                except Unknown:
                    uncertain.add(number)
                except Unavailable:
                    await asyncio.sleep(0.05)

        async def follow() -> None:
            after: int | None = 0
            while True:
                try:
                    async for step in medium.follow(after, lambda key: True):
                        after = step.revision
                        told.extend(int(change.key[2:]) for change in step.changes)
                except Unavailable:
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(write()), asyncio.create_task(follow())]
        await until(lambda: len(told) > 50)
        await cluster.members[0].kill()
        await cluster.members[0].start()
        await cluster.until_healthy()
        seen = len(acknowledged)
        # kazoo's default back-off sleeps up to a minute; ours is back within a second or two.
        await until(lambda: len(acknowledged) > seen + 50)
        is_over.set()
        await tasks[0]
        await until(lambda: told[-1:] == acknowledged[-1:])
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)

        assert len(told) == len(set(told))
        assert set(acknowledged) <= set(told) <= set(acknowledged) | uncertain
        assert {int(entry.key[2:]) for entry in (await medium.scan("n/")).entries} == set(told)


async def test_a_server_that_takes_connections_and_says_nothing_costs_two_seconds_and_the_next_serves(
    cluster: Cluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kazoo would wait for a session's length, divided by the number of addresses."""
    silent = Proxy(None, cluster.endpoints[0])
    await silent.start()
    silent.is_silent = True
    monkeypatch.setattr("kazoo.protocol.connection.random.shuffle", lambda hosts: None)  # the silent one comes first
    began = time.monotonic()
    async with connected(url.replace("://", f"://{silent.endpoint},")) as medium:
        took = time.monotonic() - began
        await medium.commit([], [Put("a", b"")])
    await silent.stop()

    assert PATIENCE_S <= took < PATIENCE_S + 2


async def test_a_server_that_says_nothing_at_first_is_served_by_at_its_next_chance(cluster: Cluster) -> None:
    """One that is being killed, or that does not serve yet, takes connections; one address is no reason to wait."""
    proxy = Proxy(None, cluster.endpoints[0])
    await proxy.start()
    proxy.is_silent = True
    async with connected(f"zk://{proxy.endpoint}/test/{uuid.uuid4().hex}", must_answer=False) as medium:
        began = time.monotonic()
        await until(lambda: bool(medium._bridge.troubles))
        assert "said nothing" in medium._bridge.troubles[0].reason
        proxy.is_silent = False
        await until(lambda: medium._bridge.is_connected)
        assert time.monotonic() - began < PATIENCE_S + 2
        assert medium._bridge._client._session_timeout == SESSION_S * 1000
    await proxy.stop()


async def test_a_frozen_server_is_noticed_within_15_s_and_does_not_hold_up_closing(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster:
        medium = await connect(parse_server_url(cluster.url(), {}))
        await medium.commit([], [Put("a", b"")])
        async with following(medium) as follower:
            await cluster.members[0].freeze()
            began = time.monotonic()
            with pytest.raises(Unknown):
                await medium.commit([], [Put("a", b"2")])
            await until(lambda: isinstance(follower.error, Unavailable), deadline_s=15 - (time.monotonic() - began))
        before = time.monotonic()
        await medium.close()
        assert time.monotonic() - before < 6
        with pytest.raises(Unavailable):
            await medium.read(["a"])


async def test_what_is_asked_while_no_server_is_there_was_surely_not_sent(tmp_path: Path) -> None:
    """kazoo would keep it and send it later."""
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        revision = await medium.commit([], [Put("a", b"")])
        await cluster.members[0].kill()
        with pytest.raises((Unavailable, Unknown)):
            await medium.commit([Unchanged("a", revision)], [Put("a", b"")])
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("late", b"")])
        before = time.monotonic()
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("late", b"")])
        assert time.monotonic() - before < 1
        await cluster.members[0].start()
        await cluster.until_healthy()
        await until(lambda: medium._bridge.is_connected)

        assert await medium.read(["late"]) == [None]


async def test_a_store_that_is_away_can_be_opened_and_serves_when_it_comes(tmp_path: Path) -> None:
    cluster = Cluster("zookeeper", tmp_path)
    with pytest.raises(StoreUnavailable, match="refused"):
        await connect(parse_server_url(cluster.url(), {}))
    async with connected(cluster.url(), must_answer=False) as medium:
        with pytest.raises(Unavailable):
            await medium.read(["a"])
        async with cluster:
            await until(lambda: medium._bridge.is_connected)
            await medium.commit([], [Put("a", b"")])


async def test_a_leader_without_followers_serves_no_reads(tmp_path: Path) -> None:
    """A read behind `sync` alone would be answered from the past (ZOOKEEPER-1675)."""
    async with Cluster("zookeeper", tmp_path, members=3) as cluster:
        leader = await cluster.leader()
        alone = parse_server_url(cluster.url(), {})
        medium = await connect(replace(alone, endpoints=(alone.endpoints[leader],)))
        await medium.commit([], [Put("a", b"")])
        for index in {0, 1, 2} - {leader}:
            await cluster.members[index].freeze()
        with pytest.raises(Unavailable):
            await medium.read(["a"])
        await medium.close()


async def test_a_killed_leader_costs_some_seconds_and_no_acknowledged_commit(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, members=3) as cluster, connected(cluster.url()) as medium:
        await medium.commit([], [Put("a", b"1")])
        await cluster.members[await cluster.leader()].kill()

        async def write() -> int:
            async with asyncio.timeout(30):
                while True:
                    try:
                        return await medium.commit([Present("a")], [Put("b", b"")])
                    except (Unavailable, Unknown):
                        await asyncio.sleep(0.1)

        assert await write() > 2**32, "the new leader's zxids begin with its epoch"
        assert plain(await medium.scan("")) == {"a": b"1", "b": b""}


async def test_a_zookeeper_that_was_wiped_is_met_again_without_its_past(tmp_path: Path) -> None:
    """A server hangs up on a client that has seen later transactions than itself, and says nothing."""
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        for number in range(50):
            reached = await medium.commit([], [Put("k", str(number).encode())])
        follower = Follower(medium, reached)
        await until(lambda: bool(follower.steps))
        await cluster.wipe_all()
        wiped_at = time.monotonic()

        refused = await until_compacted(medium, reached)
        assert time.monotonic() - wiped_at > FORGET_AFTER_S / 2, "ZooKeeper let a client in that has seen more"
        assert isinstance(follower.error, Unavailable)
        assert "went back in time" in str(refused) or "wiped" in str(refused)
        with pytest.raises(Conflict):
            await medium.commit([Unchanged("k", reached)], [Put("k", b"decided before")])
        assert await medium.scan("") == Snapshot((), await medium.revision())
        await medium.commit([Absent("k")], [Put("k", b"anew")])


async def test_a_zookeeper_set_up_anew_is_told_from_the_old_one_whatever_its_revisions(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        reached = await medium.commit([], [Put("k", b"1")])
        follower = Follower(medium, reached)
        await until(lambda: bool(follower.steps))
        await cluster.wipe_all()
        async with connected(cluster.url()) as other:
            for number in range(50):
                assert await other.commit([], [Put("k", str(number).encode())]) > 0
            assert await other.revision() > reached

        assert "wiped" in str(await until_compacted(medium, reached))


async def until_compacted(medium: ZookeeperMedium, after: int) -> Compacted:
    async with asyncio.timeout(4 * FORGET_AFTER_S):
        while True:
            follower = Follower(medium, after)
            await asyncio.wait([follower.task], timeout=1.0)
            follower.task.cancel()
            if isinstance(follower.error, Compacted):
                return follower.error
            await asyncio.sleep(0.1)


# Who we are, and whom we believe.


async def test_sasl_a_right_password_owns_its_nodes_and_a_wrong_one_is_told_at_the_door(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, auth=True) as cluster:
        who, stranger = await cluster.grant(""), await cluster.stranger()
        async with connected(cluster.url(who=who)) as medium:
            await medium.commit([], [Put("a", b"")])
            acl = await asyncio.to_thread(medium._bridge._client.get_acls, "/kvnet/data")
            assert [str(one.id.id) for one in acl[0]] == [who.user]
        with pytest.raises(StoreLoginRefused) as refused:
            await connect(parse_server_url(cluster.url(who=Credentials(who.user, "guessed-wrong")), {}))
        assert "guessed-wrong" not in f"{refused.value!r} {refused.value}"
        with pytest.raises(StoreForbidden):
            await connect(parse_server_url(cluster.url(who=stranger), {}))


async def test_sasl_a_password_that_is_put_right_in_its_file_is_used_without_a_restart(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, auth=True) as cluster:
        who = await cluster.grant("")
        file = tmp_path / "password"
        file.write_text(who.password)
        url = replace(parse_server_url(cluster.url(who=who), {}), secret=Secret(file=str(file)))
        medium = await connect(url)
        await medium.commit([], [Put("a", b"1")])
        file.write_text("changed at the wrong end")
        await cluster.restart_all()
        await until(lambda: medium._bridge.refusals >= 3, deadline_s=20)
        with pytest.raises(Refused):
            await medium.read(["a"])
        file.write_text(who.password)
        await until(lambda: medium._bridge.is_connected, deadline_s=20)
        await until_served(medium)
        await medium.close()


async def until_served(medium: ZookeeperMedium) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await medium.read(["a"])
                return
            except (Unavailable, Refused):
                await asyncio.sleep(0.1)


async def test_digest_a_wrong_password_is_another_identity_and_the_error_says_so(cluster: Cluster) -> None:
    root = f"digest-{uuid.uuid4().hex}"
    right, wrong = Credentials("kvnet", "right-p:w/"), Credentials("kvnet", "wrong-password")
    async with connected(cluster.url(root, right)) as medium:
        await medium.commit([], [Put("a", b"")])
    async with connected(cluster.url(root, right)) as medium:
        assert len((await medium.scan("")).entries) == 1
    with pytest.raises(StoreForbidden, match="wrong password") as caught:
        await connect(parse_server_url(cluster.url(root, wrong), {}))
    assert "wrong-password" not in f"{caught.value!r}"
    with pytest.raises(StoreForbidden):
        await connect(parse_server_url(cluster.url(root), {}))


async def test_a_root_that_may_be_read_only_is_refused_and_nothing_is_tried_on_it(cluster: Cluster) -> None:
    root = f"readable-{uuid.uuid4().hex}"
    async with plain_client(cluster, auth_data=[("digest", "admin:admin")]) as client:
        acl = [*READ_ACL_UNSAFE, make_digest_acl("admin", "admin", all=True)]
        await asyncio.to_thread(client.create, f"/{root}", b"", acl)
        with pytest.raises(StoreForbidden, match="writing"):
            await connect(parse_server_url(cluster.url(root), {}))
        with pytest.raises(StoreForbidden, match="writing"):
            await connect(parse_server_url(cluster.url(f"{root}/below"), {}))
        assert await asyncio.to_thread(client.get_children, f"/{root}") == []


async def test_tls_only_the_given_authority_and_the_right_host_name_are_believed(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, client_certificates=True) as cluster:
        files = cluster.certificates
        assert files is not None
        url = parse_server_url(cluster.url(), {})
        assert url.tls is not None
        async with connected(cluster.url()) as medium:
            # Answers that TLS has decrypted already wake nobody who waits for the socket.
            await medium.commit([], [Put(f"k/{i}", bytes(1000)) for i in range(50)])
            for _ in range(5):
                began = time.monotonic()
                await asyncio.gather(*(medium._bridge.ask(Exists(medium._layout.head)) for _ in range(100)))
                await medium.scan("")
                assert time.monotonic() - began < 3, "the next ping woke it"

        with pytest.raises(StoreUntrusted, match="certificate is not accepted here"):
            await connect(replace(url, tls=replace(url.tls, ca=str(files.wrong_ca))))
        wrong = files.wrong_client
        with pytest.raises(StoreUntrusted, match="does not accept our certificate"):
            await connect(replace(url, tls=replace(url.tls, cert=str(wrong.cert), key=str(wrong.key))))
        with pytest.raises(StoreUntrusted, match="does not accept our certificate"):
            await connect(replace(url, tls=replace(url.tls, cert="", key="")))
        async with relay("127.0.0.2", url.endpoints[0].port) as port:
            elsewhere = Endpoint("127.0.0.2", port)
            with pytest.raises(StoreUntrusted, match="IP address mismatch"):
                await connect(replace(url, endpoints=(elsewhere,)))
        with pytest.raises(StoreUntrusted, match="cannot be used"):
            await connect(replace(url, tls=replace(url.tls, ca=str(files.client.key))))


async def test_tls_to_a_plain_port_says_so(cluster: Cluster) -> None:
    with pytest.raises(StoreUntrusted, match="does not speak TLS"):
        await connect(parse_server_url(f"zks://{cluster.endpoints[0]}/kvnet", {}))


@asynccontextmanager
async def relay(host: str, target: int) -> AsyncIterator[int]:
    """The same server at another address."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, to_there), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
