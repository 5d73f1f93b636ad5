"""What can go wrong between a server and the watches of a client: one follower, and nothing is missed or made up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import followed
from backends.followed import FollowedStore
from backends.history import MAX_KEPT_BYTES
from backends.mirror import Mirror
from backends.store import Absent, Broken, Compacted, Delete, Put, Refused, Unavailable, Write
from backends.stored_sessions import StoredSessions
from kvnet.errors import StoreBroken, StoreForbidden, StoreUnavailable
from tests.store.clock import VirtualClock
from tests.store.fake_medium import FakeMedium, FakeServer
from tests.store.watching import plain, until, watching

pytestmark = pytest.mark.anyio

A_WHILE_S = 5.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that is real time, also where time is virtual."""
    monkeypatch.setattr(followed, "RETURN_S", 0.02)


@asynccontextmanager
async def opened(
    server: FakeServer, clock: VirtualClock | None = None, *, must_answer: bool = True, max_history: int = 50_000
) -> AsyncIterator[FollowedStore]:
    clock = clock or VirtualClock()
    medium = FakeMedium(server)
    sessions = StoredSessions(medium, clock=clock, sleep=clock.sleep)
    store = await FollowedStore.open(
        medium, sessions, must_answer=must_answer, clock=clock, sleep=clock.sleep, max_history=max_history
    )
    async with store:
        yield store


async def heard(server: FakeServer, store: FollowedStore) -> None:
    """Until the follower has heard of everything there is."""
    async with watching(store, "", server.state.revision):
        await until(lambda: store._feed.position >= server.state.revision)


async def test_watches_end_when_the_connection_does_and_resume_over_the_gap_without_asking_for_all() -> None:
    server, clock = FakeServer(), VirtualClock()
    async with opened(server, clock) as store, opened(server, clock) as other:
        await store.commit([], [Put("w/kept", b"0"), Put("w/gone", b"0")])
        async with watching(store, "w/", 0) as watcher:
            await watcher.until(lambda: len(watcher.entries) == 2)
            server.cut()
            await watcher.until(lambda: watcher.error is not None)
        assert isinstance(watcher.error, Unavailable)

        await other.commit([], [Delete("w/gone"), Put("w/new", b"1")])
        await other.commit([], [Put("elsewhere", b"")])
        await clock.advance(A_WHILE_S)
        async with watching(store, "w/", watcher.revision) as again:
            assert dict(again.changes) == {"w/gone": None, "w/new": b"1"}
        assert server.reads[-1] == ("w/gone", "w/new")


async def test_a_watch_that_is_opened_while_the_servers_are_away_fails_soon() -> None:
    server, clock = FakeServer(), VirtualClock()
    async with opened(server, clock) as store:
        revision = await store.commit([], [Put("w/a", b"")])
        server.go_away(Unavailable("injected: the switch burns"))
        await clock.advance(A_WHILE_S)

        async with watching(store, "w/", revision) as watcher:
            assert isinstance(watcher.error, Unavailable)
        server.come_back()
        await clock.advance(A_WHILE_S)
        async with watching(store, "w/", revision) as watcher:
            assert watcher.error is None


async def test_what_was_compacted_while_the_follower_was_away_is_compacted_for_its_watches() -> None:
    server, clock = FakeServer(), VirtualClock()
    async with opened(server, clock) as store, opened(server, clock) as other:
        revision = await store.commit([], [Put("w/a", b"")])
        await heard(server, store)
        server.go_away()
        await clock.advance(A_WHILE_S)
        server.come_back()
        await other.commit([], [Delete("w/a")])
        server.state.compact()
        await clock.advance(A_WHILE_S)

        async with watching(store, "w/", revision) as watcher:
            assert isinstance(watcher.error, Compacted)
        snapshot = await store.list("w/")
        async with watching(store, "w/", snapshot.revision) as watcher:
            await other.commit([], [Put("w/b", b"")])
            await watcher.until(lambda: set(watcher.entries) == {"w/b"})


async def test_a_store_that_went_back_in_time_is_compacted_and_followed_from_there() -> None:
    server, clock = FakeServer(), VirtualClock()
    async with opened(server, clock) as store:
        await store.commit([], [Put("w/a", b"old")])
        backup = server.backup()
        for number in range(5):
            newest = await store.commit([], [Put("w/a", b"%d" % number)])
        await heard(server, store)
        server.restore(backup)
        await clock.advance(A_WHILE_S)

        async with watching(store, "w/", newest) as watcher:
            assert isinstance(watcher.error, Compacted)
        snapshot = await store.list("w/")
        assert plain(snapshot) == {"w/a": b"old"}
        async with watching(store, "w/", snapshot.revision) as watcher:
            await store.commit([], [Put("w/a", b"new")])
            await watcher.until(lambda: "w/a" in watcher.entries)
            assert watcher.entries["w/a"].value == b"new"


async def test_a_medium_that_does_not_notice_that_its_store_went_back_is_not_believed() -> None:
    server, clock = FakeServer(), VirtualClock()
    async with opened(server, clock) as store:
        newest = await store.commit([], [Put("w/a", b"")])
        async with watching(store, "w/", newest) as watcher:
            await heard(server, store)
            server.state.revision -= 1
            server.state.feed.publish(newest - 1, [])
            server.state.feed.subscribe("")  # progress is told to somebody
            await watcher.until(lambda: watcher.error is not None)
        assert isinstance(watcher.error, Compacted)


async def test_a_revision_that_the_follower_has_not_heard_of_yet_is_not_ahead_of_the_store() -> None:
    server = FakeServer()
    async with opened(server) as store:
        server.steps_pass.clear()
        revision = await store.commit([], [Put("w/a", b"told by the list")])

        async with watching(store, "w/", revision) as watcher:
            assert watcher.revision == revision
            server.steps_pass.set()
            await store.commit([], [Put("w/b", b"")])
            await watcher.until(lambda: "w/b" in watcher.entries)
            assert set(watcher.entries) == {"w/b"}


async def test_a_watch_that_comes_while_a_step_is_under_way_is_told_what_nobody_had_wanted() -> None:
    server = FakeServer()
    async with opened(server) as store:
        before = await store.commit([], [Put("w/b", b"")])
        await heard(server, store)
        server.steps_pass.clear()
        await store.commit([], [Put("w/a", b"1"), Delete("w/b")])
        await until(lambda: server.steps_waiting == 1)  # its keys were asked for: nobody watches them

        async with watching(store, "w/", before) as watcher:
            assert watcher.changes == []
            server.steps_pass.set()
            await watcher.until(lambda: len(watcher.changes) == 2)
            assert dict(watcher.changes) == {"w/a": b"1", "w/b": None}


async def test_what_changes_again_while_it_is_read_is_never_newer_than_its_batch() -> None:
    server = FakeServer()
    async with opened(server) as store:
        before = server.state.revision
        server.steps_pass.clear()
        await store.commit([], [Put("w/a", b"1")])
        await until(lambda: server.steps_waiting == 1)
        async with watching(store, "w/", before) as watcher:
            last = await store.commit([], [Put("w/a", b"2")])
            server.steps_pass.set()
            # The watcher itself checks that no entry is newer than its batch.
            await watcher.until(lambda: "w/a" in watcher.entries and watcher.entries["w/a"].version == last)


async def test_what_nobody_wanted_is_read_when_a_watch_resumes_from_before() -> None:
    server = FakeServer()
    async with opened(server) as store:
        before = await store.commit([], [Put("w/gone", b"")])
        await store.commit([], [Put("w/a", b"1"), Delete("w/gone"), Put("v/a", b"")])
        await store.commit([], [Put("w/a", b"2")])
        await heard(server, store)
        server.reads.clear()

        async with watching(store, "w/", before) as watcher:
            assert dict(watcher.changes) == {"w/a": b"2", "w/gone": None}
        assert [sorted(keys) for keys in server.reads] == [["w/a", "w/gone"]]


async def test_a_long_value_is_not_kept_but_read_again() -> None:
    server = FakeServer(reads_eagerly=True)
    long = b"x" * (MAX_KEPT_BYTES + 1)
    async with opened(server) as store:
        before = server.state.revision
        await store.commit([], [Put("w/long", long), Put("w/short", b"1")])
        await heard(server, store)
        server.reads.clear()

        async with watching(store, "w/", before) as watcher:
            assert dict(watcher.changes) == {"w/long": long, "w/short": b"1"}
        assert server.reads == [("w/long",)]


async def test_history_is_bounded_and_says_when_it_does_not_reach_back() -> None:
    server = FakeServer()
    async with opened(server, max_history=5) as store:
        revisions = [await store.commit([], [Put(f"w/{number}", b"")]) for number in range(10)]
        await heard(server, store)

        async with watching(store, "w/", revisions[3]) as watcher:
            assert isinstance(watcher.error, Compacted)
        async with watching(store, "w/", revisions[4]) as watcher:
            assert set(watcher.entries) == {f"w/{number}" for number in range(5, 10)}


async def test_a_watch_from_the_beginning_is_told_all_there_is() -> None:
    server = FakeServer()
    async with opened(server) as first:
        await first.commit([], [Put("w/b", b""), Put("w/gone", b"")])
        await first.commit([], [Put("w/a", b""), Delete("w/gone")])
        async with opened(server) as store, watching(store, "w/", 0) as watcher:
            assert watcher.changes == [("w/b", b""), ("w/a", b"")]
            await first.commit([], [Delete("w/a")])
            await watcher.until(lambda: set(watcher.entries) == {"w/b"})


async def test_a_store_that_need_not_answer_is_there_before_its_servers() -> None:
    server, clock = FakeServer(), VirtualClock()
    server.go_away()
    async with opened(server, clock, must_answer=False) as store:
        for call in (store.get("a"), store.list(""), store.commit([], [Put("a", b"")]), store.session(10)):
            with pytest.raises(Unavailable):
                await call
        async with watching(store, "", 0) as watcher:
            assert isinstance(watcher.error, Unavailable)

        server.come_back()
        await clock.advance(A_WHILE_S)
        await store.commit([], [Put("a", b"")])
        async with watching(store, "", 0) as watcher:
            assert set(watcher.entries) == {"a"}


@pytest.mark.parametrize(
    ("why", "error"),
    [
        (Unavailable("no route to host"), StoreUnavailable),
        (Refused("this role may not"), StoreForbidden),
        (Broken("no space"), StoreBroken),
    ],
)
async def test_a_store_that_must_answer_says_why_it_does_not(
    monkeypatch: pytest.MonkeyPatch, why: Exception, error: type[Exception]
) -> None:
    async def fails(self: FakeMedium) -> None:
        raise why

    monkeypatch.setattr(FakeMedium, "_begin", fails)
    monkeypatch.setattr(followed, "OPEN_S", 0.05)
    with pytest.raises(error, match=str(why)):
        async with opened(FakeServer()):
            pass


async def test_closing_leaves_nothing_behind() -> None:
    server = FakeServer()
    before = asyncio.all_tasks()
    medium = FakeMedium(server)
    store = await FollowedStore.open(medium, StoredSessions(medium))
    session = await store.session(10)
    async with watching(store, "", 0) as watcher:
        await store.close()
        await store.close()
        await watcher.until(lambda: watcher.error is not None)

    assert isinstance(watcher.error, Unavailable)
    assert medium.is_closed
    assert not session.is_lost
    assert asyncio.all_tasks() == before
    assert server.state.feed._by_directory == {}


async def test_the_adapters_own_keys_are_not_for_others() -> None:
    server = FakeServer()
    async with opened(server) as store, watching(store, "", 0) as watcher:
        session = await store.session(10)
        await store.commit([], [Put("a", b"", session.id)])
        private = next(key for key in server.state.entries if key.startswith(".kvnet/"))

        assert await store.get(private) is None
        assert (await store.list(".kvnet/")).entries == ()
        writes: list[Write] = [Put(".kvnet/x", b""), Delete(private)]
        for number in range(3):
            with pytest.raises(ValueError, match="store's own"):
                await store.commit([Absent(".kvnet/x")] if number == 2 else [], writes[number : number + 1])
        await watcher.until(lambda: "a" in watcher.entries)
        assert [key for key, _ in watcher.changes] == ["a"]


async def test_thousands_of_watches_cost_the_servers_one_follower() -> None:
    server = FakeServer()
    async with opened(server) as store:
        watches = [store.watch(f"w/{number}/", 0) for number in range(2000)]
        for watch in watches:
            await anext(watch)

        assert len(server.state.feed._by_directory[""]) == 1
        await store.commit([], [Put("w/7/k", b"")])
        async with asyncio.timeout(5):
            batch = await anext(watches[7])
        assert [change.key for change in batch.changes] == ["w/7/k"]
        for watch in watches:
            await watch.aclose()  # type: ignore[attr-defined]


STEPS = st.sampled_from(["put", "put", "delete", "away", "back", "cut", "compact", "forget", "hold", "pass", "watch"])


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(STEPS, st.integers(0, 5)), max_size=40), seed=st.integers(0, 2**32))
def test_whatever_happens_mirrors_end_in_step(steps: list[tuple[str, int]], seed: int) -> None:
    asyncio.run(_check_mirrors(steps, random.Random(seed)))


async def _check_mirrors(steps: list[tuple[str, int]], rng: random.Random) -> None:
    async def soon(seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)

    server = FakeServer(reads_eagerly=rng.random() < 0.3)
    medium = FakeMedium(server)
    store = await FollowedStore.open(medium, StoredSessions(medium, sweeps=False), sleep=soon, rng=rng, max_history=8)
    mirrors: list[Mirror] = []
    tasks: list[asyncio.Task[None]] = []
    for kind, number in steps:
        if kind in {"put", "delete"}:
            key = f"m/{number}"
            write: Write = Put(key, b"%d" % rng.randint(0, 9)) if kind == "put" else Delete(key)
            server.state.apply([write])
        elif kind == "watch" and len(mirrors) < 4:
            mirrors.append(Mirror(store, rng.choice(["m/", "m/3", ""]), rng=rng, sleep=soon))
            tasks.append(asyncio.create_task(mirrors[-1].run()))
        else:
            await _disturb(server, store, kind)
        for _ in range(rng.randint(0, 8)):
            await asyncio.sleep(0)
    mirrors.append(Mirror(store, "m/", rng=rng, sleep=soon))
    tasks.append(asyncio.create_task(mirrors[-1].run()))
    server.come_back()
    server.steps_pass.set()
    final = server.state.apply([Put("m/end", b""), Put("m/3/end", b"")])
    try:
        for mirror in mirrors:
            await mirror.until(final, 5)
            told = {entry.key: entry for entry in (await store.list(mirror.prefix)).entries}
            assert dict(mirror.entries) == told, mirror.prefix
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


async def _disturb(server: FakeServer, store: FollowedStore, kind: str) -> None:
    if kind == "away":
        server.go_away()
    elif kind == "back":
        server.come_back()
    elif kind == "cut":
        server.cut()
    elif kind == "compact":
        server.state.compact()
    elif kind == "hold":
        server.steps_pass.clear()
    elif kind == "pass":
        server.steps_pass.set()
    elif kind == "forget" and not server.is_away and server.steps_pass.is_set():
        try:
            await store.forget_history()
        except (Unavailable, TimeoutError):
            return
