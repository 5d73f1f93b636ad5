"""ZooKeeper's own traps, each by name, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import os

import pytest

from backends.medium import Step
from backends.store import (
    Absent,
    Compacted,
    Conflict,
    Delete,
    Present,
    Put,
    Snapshot,
    Unchanged,
    Write,
)
from backends.zookeeper import ZookeeperMedium
from backends.zookeeper_commit import GENERATION_S
from backends.zookeeper_log import decode, encode
from backends.zookeeper_nodes import Layout, directory_node, directory_of, name_node, name_of, split_key
from tests.servers.cluster import Cluster
from tests.store import zookeeper_kit as kit
from tests.store.watching import plain, until
from tests.store.zookeeper_kit import connected, following, plain_client

pytestmark = pytest.mark.anyio
cluster = kit.cluster
url = kit.url
medium = kit.medium

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
