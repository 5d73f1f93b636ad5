"""Sessions of stores that want to be refreshed.

`HeldSession` is the holder's side. It believes its own clock first: when no refresh got through for a TTL, counted from
the start of the last one that did, the session is lost, whatever the store may say later. `LeaseWatch` is the other
side where the store is a plain file: it finds sessions whose holders are silent. Neither trusts a wall clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from backends.store import MIN_TTL_S, Entry, Revision, SessionLost, StoreError

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


def require_ttl(ttl_s: float) -> float:
    """
    Raises:
        ValueError: below the floor.
    """
    if not ttl_s >= MIN_TTL_S:
        raise ValueError(f"a session of {ttl_s} s; at least {MIN_TTL_S:g} s")
    return float(ttl_s)


class HeldSession:
    """A session that refreshes itself until it is closed, released or lost.

    `refresh` raises SessionLost when the store knows it no more, any other StoreError when it is to be tried again.
    `end` makes its keys vanish.
    """

    def __init__(
        self,
        session_id: str,
        ttl_s: float,
        good_from: float,
        *,
        refresh: Callable[[], Awaitable[object]],
        end: Callable[[], Awaitable[object]],
        clock: Clock,
        sleep: Sleep,
        rng: random.Random,
    ) -> None:
        self._id = session_id
        self._ttl_s = ttl_s
        self._good_until = good_from + ttl_s
        self._refresh = refresh
        self._end = end
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._lost = asyncio.Event()
        self._over = False
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._expire())]

    @property
    def id(self) -> str:
        return self._id

    @property
    def is_over(self) -> bool:
        return self._over or self._lost.is_set()

    @property
    def is_lost(self) -> bool:
        return not self._over and (self._lost.is_set() or self._clock() >= self._good_until)

    async def until_lost(self) -> None:
        await self._lost.wait()

    async def close(self) -> None:
        if self._over:
            return
        await self.release()
        try:
            await self._end()
        except StoreError:
            return  # away: the keys vanish with the TTL

    async def release(self) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while not self._lost.is_set():
            await self._sleep(self._ttl_s / 3 * self._rng.uniform(0.8, 1.0))
            while not await self._refreshed():
                await self._sleep(self._ttl_s / 20 * self._rng.uniform(0.5, 1.0))

    async def _refreshed(self) -> bool:
        """True when there is nothing to repeat."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._ttl_s / 3):
                await self._refresh()
        except SessionLost:
            self._lost.set()
            return True
        except (StoreError, TimeoutError):
            return self._lost.is_set()
        self._good_until = began + self._ttl_s
        return True

    async def _expire(self) -> None:
        while not self._lost.is_set():
            left_s = self._good_until - self._clock()
            if left_s <= 0:
                self._lost.set()
            else:
                await self._sleep(left_s)


@dataclass(frozen=True, slots=True)
class _Seen:
    version: Revision
    since: float


class LeaseWatch:
    """Finds leases that were not refreshed for their TTL *while this process was looking*.

    A lease is an entry that each refresh rewrites; its value is the TTL. So neither a jump of the clock nor a downtime
    of the whole site expires anybody: every holder has a full TTL from the moment somebody looks again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def expired(self, leases: Iterable[Entry], now: float) -> list[Entry]:
        before = self._seen
        self._seen = {}
        expired = []
        for lease in leases:
            seen = before.get(lease.key)
            if seen is None or seen.version != lease.version:
                seen = _Seen(lease.version, now)
            elif now - seen.since >= float(lease.value):
                expired.append(lease)
            self._seen[lease.key] = seen
        return expired
