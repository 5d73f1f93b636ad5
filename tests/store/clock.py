"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import time

SETTLE_S = 0.25


class VirtualClock:
    """Called it tells the time; its `sleep` takes the place of `asyncio.sleep`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Wake one sleeper after the other at its time, and let each finish what it does before the next wakes."""
        end = self.now + seconds
        await self._until_settled(0)
        while self._awake_at() <= end:
            at, _, woken = heapq.heappop(self._sleepers)
            self.now = max(self.now, at)
            if not woken.done():
                sleepers = self._sleeping() + 1
                woken.set_result(None)
                await self._until_settled(sleepers)
        self.now = end

    def _awake_at(self) -> float:
        return self._sleepers[0][0] if self._sleepers else float("inf")

    def _sleeping(self) -> int:
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def _until_settled(self, sleepers: int) -> None:
        """Until whoever woke sleeps again; bounded, for those that ended instead."""
        deadline = time.monotonic() + SETTLE_S
        for _ in range(5):
            await asyncio.sleep(0)
        while self._sleeping() < sleepers and time.monotonic() < deadline:
            await _a_moment()


async def _a_moment() -> None:
    await asyncio.sleep(0.001)
