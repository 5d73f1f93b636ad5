"""The conformance suite: what a session promises, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from backends.store import MIN_TTL_S, Absent, Put, SessionLost, Store
from tests.store.harness import TTL_S, Harness
from tests.store.watching import plain, watching

pytestmark = pytest.mark.anyio


async def test_a_dead_holders_keys_vanish_and_watches_are_told(harness: Harness) -> None:
    holder, other = await harness.open(), await harness.open()
    session = await holder.session(TTL_S)
    await holder.commit([Absent("alive/h")], [Put("alive/h", b"1", session.id), Put("hosts/h", b"")])

    async with watching(other, "alive/", 0) as watcher:
        await watcher.until(lambda: "alive/h" in watcher.entries)
        await holder.close()
        await harness.let_time_pass(harness.surely_expired_s)
        await watcher.until(lambda: "alive/h" not in watcher.entries)

    assert plain(await other.list("")) == {"hosts/h": b""}


async def test_a_living_holder_keeps_its_keys(harness: Harness) -> None:
    holder, other = await harness.open(), await harness.open()
    session = await holder.session(TTL_S)
    await holder.commit([], [Put("alive/h", b"1", session.id)])

    await harness.let_time_pass(harness.surely_expired_s)

    assert not session.is_lost
    assert await other.get("alive/h") is not None


async def test_closing_a_session_takes_its_keys_at_once(store: Store) -> None:
    session = await store.session(TTL_S)
    await store.commit([], [Put("a", b"", session.id), Put("b", b"", session.id), Put("c", b"")])

    await session.close()
    await session.close()

    assert plain(await store.list("")) == {"c": b""}


async def test_a_put_with_a_session_that_is_gone_writes_nothing(store: Store) -> None:
    session = await store.session(TTL_S)
    await session.close()

    with pytest.raises(SessionLost):
        await store.commit([], [Put("a", b""), Put("b", b"", session.id)])

    assert (await store.list("")).entries == ()


async def test_a_session_is_taken_over_by_its_id(harness: Harness) -> None:
    first, second = await harness.open(), await harness.open()
    session = await first.session(TTL_S)
    await first.commit([], [Put("alive/h", b"1", session.id)])
    await first.close()

    resumed = await second.session(TTL_S, resume=session.id)
    await harness.let_time_pass(harness.surely_expired_s)

    assert resumed.id == session.id
    assert not resumed.is_lost
    assert await second.get("alive/h") is not None
    await resumed.close()
    assert await second.get("alive/h") is None


async def test_a_session_that_ran_out_cannot_be_taken_over(harness: Harness) -> None:
    first, second = await harness.open(), await harness.open()
    session = await first.session(TTL_S)
    await first.close()
    await harness.let_time_pass(harness.surely_expired_s)

    with pytest.raises(SessionLost):
        await second.session(TTL_S, resume=session.id)


async def test_a_released_session_runs_out(harness: Harness) -> None:
    holder, other = await harness.open(), await harness.open()
    session = await holder.session(TTL_S)
    await holder.commit([], [Put("a", b"", session.id)])

    await session.release()
    assert await other.get("a") is not None
    await harness.let_time_pass(harness.surely_expired_s)

    assert await other.get("a") is None


async def test_the_holder_is_told_when_its_session_is_ended_by_another(harness: Harness) -> None:
    holder, other = await harness.open(), await harness.open()
    session = await holder.session(TTL_S)
    lost = asyncio.create_task(session.until_lost())
    taken = await other.session(TTL_S, resume=session.id)
    await taken.close()

    await harness.let_time_pass(TTL_S)
    async with asyncio.timeout(5):
        await lost

    assert session.is_lost


async def test_a_key_put_again_without_the_session_stays(store: Store) -> None:
    session = await store.session(TTL_S)
    await store.commit([], [Put("a", b"1", session.id), Put("b", b"1", session.id)])
    await store.commit([], [Put("a", b"2")])

    await session.close()

    assert plain(await store.list("")) == {"a": b"2"}


async def test_two_sessions_do_not_share_their_keys(store: Store) -> None:
    one, two = await store.session(TTL_S), await store.session(TTL_S)
    await store.commit([], [Put("a", b"", one.id), Put("b", b"", two.id)])

    await one.close()

    assert plain(await store.list("")) == {"b": b""}
    assert one.id != two.id


async def test_a_ttl_below_the_floor_is_a_misuse(store: Store) -> None:
    with pytest.raises(ValueError, match="at least 10 s"):
        await store.session(MIN_TTL_S - 0.1)


async def test_a_session_that_never_was_cannot_be_taken_over(store: Store) -> None:
    with pytest.raises(SessionLost):
        await store.session(TTL_S, resume="0123456789abcdef0123456789abcdef")


@pytest.mark.needs("restart")
async def test_a_session_outlives_a_restart_of_the_server(harness: Harness) -> None:
    holder = await harness.open()
    session = await holder.session(2 * TTL_S)  # three servers may take longer to come back than the shortest lasts
    await holder.commit([], [Put("alive/h", b"1", session.id)])

    await harness.restart()
    await harness.let_time_pass(TTL_S + harness.surely_expired_s)

    assert not session.is_lost
    assert await holder.get("alive/h") is not None
