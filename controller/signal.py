"""A bell that any number of tasks may wait for. It carries nothing: who wakes looks for himself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        if not self._waiters:  # rung at every endpoint that comes; mostly nobody waits
            return
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `is_true`, looking at every ring; False if it did not become true in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not is_true():
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                return is_true()
            finally:
                self._waiters.discard(waiter)
        return True
