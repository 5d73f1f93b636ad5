"""Sessions believe the holder's own clock first, and no clock is trusted to expire somebody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from backends.lease import HeldSession, LeaseWatch
from backends.store import Entry, SessionLost, Unavailable
from tests.store.clock import VirtualClock

pytestmark = pytest.mark.anyio


async def _nothing() -> None:
    return


def held(clock: VirtualClock, refresh: Callable[[], Awaitable[object]]) -> HeldSession:
    return HeldSession(
        "id", 10, clock(), refresh=refresh, end=_nothing, clock=clock, sleep=clock.sleep, rng=random.Random(0)
    )


async def test_while_the_store_is_away_the_holder_loses_it_by_its_own_clock() -> None:
    clock = VirtualClock()
    is_away = False

    async def refresh() -> None:
        if is_away:
            raise Unavailable("away")

    session = held(clock, refresh)
    await clock.advance(25)
    assert not session.is_lost
    is_away = True
    await clock.advance(10)

    assert session.is_lost
    async with asyncio.timeout(1):
        await session.until_lost()
    await session.release()


async def test_a_short_absence_is_survived() -> None:
    clock = VirtualClock()
    refreshed: list[float] = []

    async def refresh() -> None:
        if 1008 < clock() < 1013:
            raise Unavailable("away")
        refreshed.append(clock())

    session = held(clock, refresh)
    await clock.advance(40)

    assert not session.is_lost
    assert max(later - earlier for earlier, later in pairwise(refreshed)) < 10
    await session.release()


async def test_a_blocked_loop_does_not_make_a_stale_session_look_alive() -> None:
    clock = VirtualClock()
    session = held(clock, _nothing)
    clock.now += 11  # no task has run meanwhile

    assert session.is_lost
    await session.release()


async def test_a_refusal_is_final() -> None:
    clock = VirtualClock()

    async def refresh() -> None:
        raise SessionLost("gone")

    session = held(clock, refresh)
    await clock.advance(5)

    assert session.is_lost
    await session.release()


async def test_a_closed_session_is_not_lost() -> None:
    clock = VirtualClock()
    session = held(clock, _nothing)
    lost = asyncio.create_task(session.until_lost())
    await session.close()
    await clock.advance(100)

    assert not session.is_lost
    assert not lost.done()
    lost.cancel()


def lease(version: int, ttl_s: int = 10) -> Entry:
    return Entry("lease", b"%d" % ttl_s, version)


def test_a_lease_expires_a_full_ttl_after_it_was_first_seen() -> None:
    watch = LeaseWatch()

    assert watch.expired([lease(1)], now=1_000_000) == []
    assert watch.expired([lease(1)], now=1_000_009.9) == []
    assert watch.expired([lease(1)], now=1_000_010) == [lease(1)]


def test_a_refresh_gives_a_full_ttl_again() -> None:
    watch = LeaseWatch()
    watch.expired([lease(1)], now=0)
    watch.expired([lease(2)], now=9)

    assert watch.expired([lease(2)], now=18) == []
    assert watch.expired([lease(2)], now=19) == [lease(2)]


def test_a_lease_that_went_and_came_is_new() -> None:
    watch = LeaseWatch()
    watch.expired([lease(1)], now=0)
    watch.expired([], now=5)

    assert watch.expired([lease(1)], now=20) == []
