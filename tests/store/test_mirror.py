"""A mirror is in step, says when it is not, and reports every difference exactly once."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.mirror import MAX_BACKOFF_S, Mirror
from backends.store import Batch, Change, Delete, Entry, Put, Revision, Store, Unavailable, Write
from tests.store.faults import FaultyStore
from tests.store.harness import Harness
from tests.store.watching import until

pytestmark = pytest.mark.anyio


class Told:
    """What `on_change` was told, folded into a state."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.changes: list[Change] = []

    def __call__(self, changes: Sequence[Change]) -> None:
        assert changes
        for change in changes:
            if change.entry is None:
                del self.entries[change.key]  # a key that was not there is not reported as gone
            else:
                assert self.entries.get(change.key) != change.entry, "reported twice"
                self.entries[change.key] = change.entry
            self.changes.append(change)


@asynccontextmanager
async def mirroring(store: Store, prefix: str, told: Told | None = None) -> AsyncIterator[Mirror]:
    async def soon(seconds: float) -> None:
        assert seconds <= MAX_BACKOFF_S
        await asyncio.sleep(seconds / 100)

    mirror = Mirror(store, prefix, on_change=told, rng=random.Random(0), sleep=soon)
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


async def test_it_has_what_was_there_and_what_comes(harness: Harness) -> None:
    store, other = await harness.open(), await harness.open()
    await store.commit([], [Put("m/a", b"1"), Put("n/a", b"")])
    told = Told()
    async with mirroring(store, "m/", told) as mirror:
        assert not mirror.in_step
        await mirror.until_in_step(5)
        assert mirror.in_step
        assert set(mirror.entries) == {"m/a"}

        revision = await other.commit([], [Put("m/b", b"2"), Delete("m/a")])
        await mirror.until(revision, 5)

        assert {key: entry.value for key, entry in mirror.entries.items()} == {"m/b": b"2"}
        assert told.entries == dict(mirror.entries)
        assert mirror.stale_since is None


async def test_until_returns_for_a_revision_that_did_not_touch_the_prefix(harness: Harness) -> None:
    store = await harness.open()
    async with mirroring(store, "m/") as mirror:
        await mirror.until_in_step(5)
        await mirror.until(await store.commit([], [Put("elsewhere", b"")]), 5)


async def test_who_waits_is_woken_in_the_order_of_revisions_after_the_change_was_told() -> None:
    store = MemoryStore()
    woken: list[tuple[int, int]] = []
    told = Told()
    async with mirroring(store, "m/", told) as mirror, asyncio.TaskGroup() as group:
        await mirror.until_in_step(5)

        async def wait(revision: int) -> None:
            await mirror.until(revision, 5)
            woken.append((revision, len(told.changes)))

        for revision in (3, 1, 2):
            group.create_task(wait(revision))
        await asyncio.sleep(0)
        for number in range(3):
            await store.commit([], [Put(f"m/{number}", b"")])

    assert [revision for revision, _ in woken] == [1, 2, 3]
    assert all(changes >= revision for revision, changes in woken)


class Merging(MemoryStore):
    """What came and went since the last batch is told as gone."""

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        yield Batch((), after)
        yield Batch((Change(f"{prefix}short", None),), after + 2)
        await asyncio.Event().wait()


async def test_what_came_and_went_unseen_is_no_change_but_is_told_as_progress() -> None:
    told, heard = Told(), list[int]()
    async with Merging() as store, mirroring(store, "a/", told) as mirror:
        mirror.on_nothing = lambda: heard.append(mirror.revision)

        await mirror.until(2, 1.0)

        assert (heard, told.changes) == ([2], [])


class Ending(MemoryStore):
    """A watch fails, and whoever mirrors is ended before he hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mirroring: asyncio.Task[None] | None = None

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        yield Batch((), after)
        assert self.mirroring is not None
        self.mirroring.cancel()
        raise Unavailable("refused at the last")


async def test_a_watch_that_fails_as_its_mirror_ends_is_nobodys_surprise() -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    store = Ending()
    store.mirroring = asyncio.create_task(Mirror(store, "m/").run())
    await asyncio.gather(store.mirroring, return_exceptions=True)
    store.mirroring = None
    await asyncio.sleep(0)  # until the loop has let go of the two
    gc.collect()

    assert told == []


async def test_waiting_is_bounded() -> None:
    async with mirroring(MemoryStore(), "m/") as mirror:
        with pytest.raises(TimeoutError):
            await mirror.until(1, 0.01)
    with pytest.raises(TimeoutError):
        await Mirror(MemoryStore(), "m/").until_in_step(0.01)


async def test_while_the_store_is_away_the_last_state_stays_and_it_says_since_when() -> None:
    store = FaultyStore(MemoryStore(), random.Random(0))
    await store.commit([], [Put("m/a", b"")])
    told = Told()
    async with mirroring(store, "m/", told) as mirror:
        await mirror.until_in_step(5)
        store.go_away()
        await until(lambda: mirror.stale_since is not None)
        since = mirror.stale_since

        assert mirror.in_step
        assert set(mirror.entries) == {"m/a"}
        assert isinstance(mirror.last_error, Unavailable)
        await store.store.commit([], [Delete("m/a"), Put("m/b", b"")])
        await until(lambda: mirror.stale_since == since)

        store.come_back()
        await until(lambda: set(mirror.entries) == {"m/b"})
        assert mirror.stale_since is None
        assert told.entries == dict(mirror.entries)


async def test_after_a_compaction_the_difference_is_told_deletions_included() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory, random.Random(0))
    await store.commit([], [Put("m/kept", b""), Put("m/gone", b""), Put("m/changed", b"0")])
    told = Told()
    async with mirroring(store, "m/", told) as mirror:
        await mirror.until_in_step(5)
        told.changes.clear()
        store.go_away()
        await until(lambda: mirror.stale_since is not None)
        await memory.commit([], [Delete("m/gone"), Put("m/changed", b"1"), Put("m/new", b"")])
        memory.state.compact()
        store.come_back()
        await until(lambda: "m/new" in mirror.entries)

        assert sorted(change.key for change in told.changes) == ["m/changed", "m/gone", "m/new"]
        assert told.entries == dict(mirror.entries)


async def test_after_a_store_went_back_in_time_the_difference_is_told() -> None:
    store = FaultyStore(MemoryStore(), random.Random(0))
    for number in range(5):
        await store.commit([], [Put(f"m/{number}", b"")])
    told = Told()
    async with mirroring(store, "m/", told) as mirror:
        await mirror.until_in_step(5)
        store.go_away()
        await until(lambda: mirror.stale_since is not None)
        store.store = MemoryStore(MemoryState())  # restored from an old backup
        await store.store.commit([], [Put("m/0", b"old")])
        store.come_back()
        await until(lambda: mirror.revision == 1)

        assert {key: entry.value for key, entry in mirror.entries.items()} == {"m/0": b"old"}
        assert told.entries == dict(mirror.entries)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "delete", "away", "back", "compact"]), st.integers(0, 5)), max_size=40
    ),
    seed=st.integers(0, 2**32),
)
def test_whatever_happens_it_ends_in_step_and_told_everything(steps: list[tuple[str, int]], seed: int) -> None:
    asyncio.run(_check_mirror(steps, random.Random(seed)))


async def _check_mirror(steps: list[tuple[str, int]], rng: random.Random) -> None:
    memory = MemoryStore()
    store = FaultyStore(memory, rng, failing=0.2)
    told = Told()
    async with mirroring(store, "m/", told) as mirror:
        for kind, number in steps:
            write: Write = Put(f"m/{number}", b"%d" % rng.randint(0, 9)) if kind == "put" else Delete(f"m/{number}")
            if kind in {"put", "delete"}:
                await memory.commit([], [write])
            elif kind == "compact":
                memory.state.compact()
            elif kind == "away":
                store.go_away()
            else:
                store.come_back()
            for _ in range(rng.randint(0, 8)):
                await asyncio.sleep(0)
        store.come_back()
        store.failing = 0.0
        revision = await memory.commit([], [Put("m/end", b"")])
        await mirror.until(revision, 5)

        assert dict(mirror.entries) == {entry.key: entry for entry in (await memory.list("m/")).entries}
        assert told.entries == dict(mirror.entries)
