"""The conformance suite: what a watch promises, on every adapter."""

from __future__ import annotations

import asyncio
import random

import pytest

from backends.store import Absent, Compacted, Conflict, Delete, Put, Store, Unavailable, Unchanged, Write
from tests.store.harness import Harness
from tests.store.watching import Watcher, plain, watching

pytestmark = pytest.mark.anyio

SEEDS = range(6)


async def test_the_first_batch_comes_at_once_also_when_nothing_happened(store: Store) -> None:
    snapshot = await store.list("w/")

    async with watching(store, "w/", snapshot.revision) as watcher:
        assert watcher.error is None
        assert watcher.changes == []
        assert watcher.revision >= snapshot.revision


async def test_puts_and_deletes_are_told(store: Store) -> None:
    async with watching(store, "w/", (await store.list("w/")).revision) as watcher:
        put = await store.commit([], [Put("w/a", b"1"), Put("w/b", b"2")])
        await watcher.until(lambda: len(watcher.entries) == 2)
        assert {entry.version for entry in watcher.entries.values()} == {put}

        await store.commit([], [Delete("w/a"), Put("w/b", b"3")])
        await watcher.until(lambda: "w/a" not in watcher.entries)
        assert watcher.entries["w/b"].value == b"3"


async def test_the_writes_of_other_clients_are_told(harness: Harness) -> None:
    mine, other = await harness.open(), await harness.open()
    async with watching(mine, "w/", 0) as watcher:
        for number in range(20):
            await (other if number % 2 else mine).commit([], [Put(f"w/{number}", b"")])

        await watcher.until(lambda: len(watcher.entries) == 20)


async def test_only_the_prefix_is_told(store: Store) -> None:
    async with watching(store, "w/", 0) as directory, watching(store, "w/a", 0) as exact:
        await store.commit([], [Put("v/a", b""), Put("w", b""), Put("wa/b", b""), Put("w/a", b""), Put("w/ab", b"")])
        await store.commit([], [Put("w/end", b""), Put("w/a/end", b"")])

        await directory.until(lambda: "w/end" in directory.entries)
        await exact.until(lambda: "w/a/end" in exact.entries)
        assert set(directory.entries) == {"w/a", "w/ab", "w/end", "w/a/end"}
        assert set(exact.entries) == {"w/a", "w/ab", "w/a/end"}


async def test_a_watch_of_everything_sees_everything_and_nothing_of_the_adapters_own(store: Store) -> None:
    async with watching(store, "", 0) as watcher:
        session = await store.session(10)
        await store.commit([], [Put("a", b""), Put("b/c", b"", session.id)])
        await session.close()
        await store.commit([], [Put("end", b"")])

        await watcher.until(lambda: "end" in watcher.entries and "b/c" not in watcher.entries)
        assert set(watcher.entries) == {"a", "end"}
        assert {key for key, _ in watcher.changes} <= {"a", "b/c", "end"}


async def test_a_watch_resumes_with_what_it_missed_deletions_included(store: Store) -> None:
    await store.commit([], [Put("w/kept", b"0"), Put("w/changed", b"0"), Put("w/gone", b"0")])
    snapshot = await store.list("w/")
    await store.commit([], [Put("w/changed", b"1"), Delete("w/gone")])
    await store.commit([], [Put("w/new", b"1"), Put("elsewhere", b"")])

    async with watching(store, "w/", snapshot.revision, snapshot.entries) as watcher:
        await watcher.until(lambda: "w/new" in watcher.entries)

        assert dict(watcher.changes) == {"w/changed": b"1", "w/gone": None, "w/new": b"1"}
        assert {key: entry.value for key, entry in watcher.entries.items()} == plain(await store.list("w/"))


async def test_a_key_that_was_made_and_deleted_meanwhile_ends_as_gone(store: Store) -> None:
    snapshot = await store.list("w/")
    await store.commit([], [Put("w/short", b"")])
    await store.commit([], [Delete("w/short")])
    await store.commit([], [Put("w/end", b"")])

    async with watching(store, "w/", snapshot.revision) as watcher:
        await watcher.until(lambda: "w/end" in watcher.entries)

        assert set(watcher.entries) == {"w/end"}


@pytest.mark.needs("compact")
async def test_history_that_is_gone_is_compacted(harness: Harness) -> None:
    store = await harness.open()
    old = await store.commit([], [Put("w/a", b"")])
    await store.commit([], [Delete("w/a")])
    await store.commit([], [Put("w/b", b"")])
    await harness.compact()

    async with watching(store, "w/", old) as watcher:
        assert isinstance(watcher.error, Compacted)

    snapshot = await store.list("w/")
    assert plain(snapshot) == {"w/b": b""}
    async with watching(store, "w/", snapshot.revision) as watcher:
        assert watcher.error is None
        await store.commit([], [Delete("w/b")])
        await watcher.until(lambda: ("w/b", None) in watcher.changes)


@pytest.mark.needs("compact")
async def test_a_watch_under_way_does_not_notice_a_compaction(harness: Harness) -> None:
    store = await harness.open()
    async with watching(store, "w/", 0) as watcher:
        await store.commit([], [Put("w/a", b""), Put("w/b", b"")])
        await store.commit([], [Delete("w/a")])
        await harness.compact()
        await store.commit([], [Delete("w/b"), Put("w/end", b"")])

        await watcher.until(lambda: set(watcher.entries) == {"w/end"})
        assert watcher.error is None


async def test_a_revision_ahead_of_the_store_is_compacted(store: Store) -> None:
    revision = await store.commit([], [Put("w/a", b"")])

    async with watching(store, "w/", revision + 1_000_000) as watcher:
        assert isinstance(watcher.error, Compacted)


async def test_progress_is_told_also_when_only_others_changed(store: Store) -> None:
    async with watching(store, "w/", 0) as watcher:
        revision = await store.commit([], [Put("elsewhere", b"")])

        await watcher.until(lambda: watcher.revision >= revision)
        assert watcher.changes == []


async def test_a_slow_reader_is_told_the_last_state(store: Store) -> None:
    batches = store.watch("w/", 0)
    await anext(batches)
    for number in range(200):
        await store.commit([], [Put("w/k", b"%d" % number), Put(f"w/{number % 7}", b"")])

    watcher = Watcher()
    async with asyncio.timeout(30):
        while watcher.entries.get("w/k") is None or watcher.entries["w/k"].value != b"199":
            watcher.take(await anext(batches))
    await batches.aclose()  # type: ignore[attr-defined]

    assert len(watcher.entries) == 8


async def test_many_watches_of_one_client_are_all_told(store: Store) -> None:
    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        told = [group.create_task(_first_change(store, f"many/{number}/")) for number in range(100)]
        for number in range(100):
            await store.commit([], [Put(f"many/{number}/k", b"%d" % number)])
        assert [await change for change in told] == [b"%d" % number for number in range(100)]


async def _first_change(store: Store, prefix: str) -> bytes:
    async for batch in store.watch(prefix, 0):
        for change in batch.changes:
            assert change.entry is not None
            return change.entry.value
    raise AssertionError("a watch does not end")


async def test_watches_of_a_closed_store_end(harness: Harness) -> None:
    store = await harness.open()
    async with watching(store, "w/", 0) as watcher:
        await store.close()
        await watcher.until(lambda: watcher.error is not None)

        assert isinstance(watcher.error, Unavailable)


@pytest.mark.parametrize("seed", SEEDS)
async def test_under_random_traffic_watches_are_ordered_complete_and_resumable(harness: Harness, seed: int) -> None:
    rng = random.Random(seed)
    clients = [await harness.open() for _ in range(3)]
    keys = [f"t/{number % 3}/{number}" for number in range(12)]
    prefixes = ["t/", "t/0/", "t/1", "", "t/2/5"]

    async def write(store: Store, rng: random.Random) -> None:
        for number in range(40):
            chosen = rng.sample(keys, rng.randint(1, 4))
            writes: list[Write] = [
                Delete(key) if rng.random() < 0.3 else Put(key, f"{key}={number}".encode()) for key in chosen
            ]
            entry = await store.get(chosen[0])
            check = Absent(chosen[0]) if entry is None else Unchanged(chosen[0], entry.version)
            try:
                await store.commit([check] if rng.random() < 0.5 else [], writes)
            except Conflict:
                continue

    async def follow(store: Store, prefix: str, rng: random.Random) -> Watcher:
        """Watches, drops the watch now and then, and resumes it from where it was."""
        snapshot = await store.list(prefix)
        watcher = Watcher({entry.key: entry for entry in snapshot.entries}, revision=snapshot.revision)
        while f"{prefix}end" not in watcher.entries:
            async for batch in store.watch(prefix, watcher.revision):
                watcher.take(batch)
                if f"{prefix}end" in watcher.entries or rng.random() < 0.2:
                    break
        return watcher

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        followers = {
            prefix: group.create_task(follow(clients[number % 3], prefix, random.Random(f"{seed}{prefix}")))
            for number, prefix in enumerate(prefixes)
        }
        writers = [group.create_task(write(client, random.Random(rng.random()))) for client in clients]
        await asyncio.gather(*writers)
        await clients[0].commit([], [Put(f"{prefix}end", b"") for prefix in prefixes])

    final = await clients[0].list("")
    for prefix, follower in followers.items():
        expected = {entry.key: entry for entry in final.entries if entry.key.startswith(prefix)}
        assert follower.result().entries == expected, f"seed {seed}, prefix {prefix!r}"
