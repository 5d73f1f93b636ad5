"""Sessions kept as entries: nobody is expired for what could not be seen, and an end is finished by whoever is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.medium import PRIVATE
from backends.store import (
    Absent,
    Check,
    Conflict,
    Delete,
    Entry,
    Put,
    SessionLost,
    StoreError,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from backends.stored_sessions import HELD, KEYS_AT_ONCE, LEASES, MARK, SESSIONS_PER_SECOND, StoredSessions
from tests.store.clock import VirtualClock
from tests.store.fake_medium import FakeMedium, FakeServer

pytestmark = pytest.mark.anyio

TTL_S = 10.0


class Site:
    """A server and clients of it; `sweep` runs the sweeper of one."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.clock = VirtualClock()

    def client(self, *, sweeps: bool = True) -> tuple[StoredSessions, FakeMedium]:
        medium = FakeMedium(self.server)
        return StoredSessions(medium, sweeps=sweeps, clock=self.clock, sleep=self.clock.sleep), medium

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.client()[0].run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def keys(self) -> set[str]:
        return set(self.server.state.entries)

    def value(self, sessions: StoredSessions, key: str) -> bytes:
        return sessions.seen(self.server.state.entries[key]).value


async def test_who_is_silent_for_a_ttl_is_expired_and_nothing_of_it_stays() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session), Put("b", b"")])
    async with site.sweeping():
        await site.clock.advance(TTL_S - 1)
        assert "a" in site.keys
        await site.clock.advance(4)

    assert site.keys == {"b"}
    with pytest.raises(SessionLost):
        await sessions.refresh(session, TTL_S)


async def test_who_refreshes_is_not_expired() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])
    async with site.sweeping():
        for _ in range(5):
            await site.clock.advance(TTL_S - 1)
            await sessions.refresh(session, TTL_S)

    assert "a" in site.keys


async def test_a_sweeper_that_was_frozen_expires_nobody_for_what_it_could_not_see() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])
    async with site.sweeping():
        await site.clock.advance(3)
        site.clock.now += 60  # nobody ran meanwhile: not this process, and maybe not the site
        await site.clock.advance(TTL_S - 2)
        assert "a" in site.keys
        await site.clock.advance(5)

    assert "a" not in site.keys


async def test_when_the_store_was_away_everybody_has_a_full_ttl_to_come_back() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])
    async with site.sweeping():
        await site.clock.advance(8)
        site.server.go_away()
        await site.clock.advance(2)
        site.server.come_back()
        await site.clock.advance(TTL_S - 2)
        assert "a" in site.keys
        await site.clock.advance(5)

    assert "a" not in site.keys


async def test_a_refresh_at_the_last_moment_counts() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])
    _, medium = site.client()
    sweeper = StoredSessions(medium, clock=site.clock, sleep=site.clock.sleep)
    ends = 0

    def refresh_first(checks: Sequence[Check], writes: Sequence[Write]) -> None:
        nonlocal ends
        ends += 1
        site.server.state.apply([Put(LEASES + session, b'{"ttl": 10}')])

    medium.before_commit = refresh_first
    task = asyncio.create_task(sweeper.run())
    await site.clock.advance(TTL_S + 3)
    task.cancel()

    assert ends == 1
    assert "a" in site.keys


@pytest.mark.parametrize("dies_at", range(7))
async def test_an_end_that_dies_in_the_middle_is_finished_by_another(dies_at: int) -> None:
    site = Site()
    sessions, medium = site.client()
    session = await sessions.grant(TTL_S)
    keys = [f"k/{number:03}" for number in range(4 * KEYS_AT_ONCE + 3)]
    for start in range(0, len(keys), 50):
        await sessions.commit([], [Put(key, b"", session) for key in keys[start : start + 50]])
    await sessions.commit([], [Put(keys[3], b"somebody else's")])
    left = dies_at

    def die(checks: Sequence[Check], writes: Sequence[Write]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unavailable("injected: dead")

    medium.before_commit = die
    try:
        await sessions.revoke(session)
    except Unavailable:
        assert dies_at < 6  # the end, and five chunks
    async with site.sweeping():
        await site.clock.advance(3 if dies_at else TTL_S + 3)

    assert site.keys == {keys[3]}


async def test_an_end_whose_answers_are_lost_is_finished_too() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])
    site.server.loses_answers = 1
    with pytest.raises(Unknown):
        await sessions.revoke(session)
    async with site.sweeping():
        await site.clock.advance(3)

    assert site.keys == set()


async def test_two_that_end_the_same_session_do_not_hinder_each_other() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put(f"k/{number}", b"", session) for number in range(50)])

    await asyncio.gather(*(site.client()[0].revoke(session) for _ in range(5)))

    assert site.keys == set()


async def test_a_put_under_a_session_costs_one_check_and_no_trip() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    first = await sessions.commit([], [Put("a", b"1", session)])
    site.server.reads.clear()
    site.server.commits.clear()

    await sessions.commit([Unchanged("a", first)], [Put("a", b"2", session)])

    assert site.server.reads == []
    assert [(len(checks), len(writes)) for checks, writes in site.server.commits] == [(2, 1)]


async def test_sixty_operations_under_three_sessions_fit_and_a_fourth_session_does_not() -> None:
    site = Site()
    sessions, _ = site.client()
    ids = [await sessions.grant(TTL_S) for _ in range(4)]

    await sessions.commit([], [Put(f"k/{number}", b"", ids[number % 3]) for number in range(60)])

    with pytest.raises(TooLarge, match="at most 3"):
        await sessions.commit([], [Put(f"k/{number}", b"", ids[number % 4]) for number in range(4)])


async def test_many_puts_of_new_keys_under_one_session_at_once_are_told_no_conflict() -> None:
    site = Site()
    clients = [site.client()[0] for _ in range(3)]
    session = await clients[0].grant(TTL_S)

    await asyncio.gather(
        *(
            clients[number % 3].commit([Absent(f"k/{number}")], [Put(f"k/{number}", b"", session)])
            for number in range(60)
        )
    )

    await clients[1].revoke(session)
    assert site.keys == set()


async def test_a_conflict_names_the_callers_keys_only() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("a", b"", session)])

    with pytest.raises(Conflict) as conflict:
        await sessions.commit([Absent("a")], [Put("b", b"", session)])

    assert conflict.value.keys == ("a",)


@pytest.mark.parametrize("value", [MARK, MARK + b"s:x:y", MARK + b"v:", MARK + b"t", b"", b"\0", b"\0kvnet"])
async def test_values_that_look_like_ours_come_back_as_they_were(value: bytes) -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    await sessions.commit([], [Put("plain", value), Put("held", value, session)])

    assert site.value(sessions, "plain") == site.value(sessions, "held") == value
    await sessions.revoke(session)
    assert site.keys == {"plain"}


async def test_what_looks_like_nothing_of_ours_is_shown_as_it_is() -> None:
    sessions, _ = Site().client()
    for value in (MARK + b"t", MARK + b"s:cut", MARK):
        assert isinstance(sessions.seen(Entry("k", value, 1)), Entry)


@pytest.mark.parametrize("session", ["", "a/b", "../x", "é", "a b", "0" * 600])
async def test_an_id_that_is_none_is_lost(session: str) -> None:
    sessions, _ = Site().client()
    with pytest.raises(SessionLost):
        await sessions.refresh(session, TTL_S)
    with pytest.raises(SessionLost):
        await sessions.commit([], [Put("a", b"", session)])


async def test_a_lease_that_cannot_be_read_does_not_stay_and_does_not_save_others() -> None:
    site = Site()
    sessions, _ = site.client()
    session = await sessions.grant(TTL_S)
    site.server.state.apply([Put(f"{LEASES}odd", b"\xff"), Put(f"{LEASES}broken", b'{"ended": 1}')])
    site.server.state.apply([Put(f"{LEASES}worse", b"{}"), Put(f"{HELD}worse", b"{}")])
    async with site.sweeping():
        await site.clock.advance(TTL_S + 4)

    assert f"{LEASES}{session}" not in site.keys
    assert f"{LEASES}odd" not in site.keys


async def test_who_is_not_to_sweep_does_not() -> None:
    site = Site()
    sessions, _ = site.client(sweeps=False)
    async with asyncio.timeout(1):
        await sessions.run()


async def test_the_more_sessions_there_are_the_rarer_they_are_looked_at() -> None:
    site = Site()
    site.server.state.apply([Put(f"{LEASES}{number}", b'{"ttl": 100}') for number in range(4 * SESSIONS_PER_SECOND)])
    async with site.sweeping():
        await site.clock.advance(40)

    assert 9 <= site.server.scans <= 14


ACTIONS = st.sampled_from(["put", "put", "plain", "delete", "revoke", "refresh", "pass"])


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(st.tuples(ACTIONS, st.integers(0, 5)), max_size=60), seed=st.integers(0, 2**32))
def test_whatever_races_no_key_outlives_its_session(actions: list[tuple[str, int]], seed: int) -> None:
    asyncio.run(_race(actions, random.Random(seed)))


async def _race(actions: list[tuple[str, int]], rng: random.Random) -> None:
    """Three clients act at once on three sessions and six keys; at the end all sessions are over."""
    site = Site()
    clients = [site.client()[0] for _ in range(3)]
    ids = [await clients[0].grant(TTL_S) for _ in range(3)]

    async def act(kind: str, number: int) -> None:
        client, session, key = rng.choice(clients), rng.choice(ids), f"k/{number}"
        for _ in range(rng.randint(0, 10)):
            await asyncio.sleep(0)
        try:
            if kind in {"put", "plain"}:
                await client.commit([], [Put(key, b"", session if kind == "put" else None)])
            elif kind == "delete":
                await client.commit([], [Delete(key)])
            elif kind == "revoke":
                await client.revoke(session)
            elif kind == "refresh":
                await client.refresh(session, TTL_S)
        except SessionLost:
            return
        except StoreError as error:
            raise AssertionError(f"{kind}: {error}") from error

    async with asyncio.TaskGroup() as group:
        for kind, number in actions:
            group.create_task(act(kind, number))
    for session in ids:
        await clients[0].revoke(session)
    left = site.server.state.entries
    assert not [entry for entry in left.values() if entry.value.startswith(MARK)]
    assert not [key for key in left if key.startswith(PRIVATE)]
