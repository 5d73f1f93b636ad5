"""What Docker was told is gone, while it is still being taken away: Docker need not wait for the kernel to forget.

A veth takes the kernel 20 ms to remove, and Docker does nothing with the answer. Whoever meets what is on its way out
(the same address, the same port, its network's removal) waits here for it. Nothing of this need survive a crash: the
worker compares its endpoints with Docker's when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from kvnet.errors import Conflicting
from worker.log import Log

PATIENCE_S = 3.0
T = TypeVar("T")


class Departures:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._leaving: dict[str, asyncio.Task[Any]] = {}  # interfaces, by endpoint
        self._going: dict[str, asyncio.Task[Any]] = {}  # endpoints with all that they have

    def is_going(self, endpoint: str) -> bool:
        return endpoint in self._going

    def is_leaving(self, endpoint: str) -> bool:
        return endpoint in self._leaving or endpoint in self._going

    def leave(self, endpoint: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Its interface goes. Again while that goes on: nothing new."""
        if not self.is_leaving(endpoint):
            self._begin(self._leaving, endpoint, work)

    def go(self, endpoint: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """The endpoint goes, after its interface where that is on its way."""
        if endpoint not in self._going:
            self._begin(self._going, endpoint, work)

    async def over(self, seconds: float = PATIENCE_S) -> None:
        """When those that have begun are over, or have taken too long."""
        begun = [*self._leaving.values(), *self._going.values()]
        if begun:
            await asyncio.wait(begun, timeout=seconds)

    async def give_way(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Once more after they are over, if something was in the way."""
        begun = bool(self._leaving or self._going)
        try:
            return await attempt()
        except Conflicting:
            if not begun:
                raise
        await self.over()
        return await attempt()

    async def close(self) -> None:
        await self.over()
        rest = [*self._leaving.values(), *self._going.values()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _begin(
        self, among: dict[str, asyncio.Task[Any]], endpoint: str, work: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        def ended(task: asyncio.Task[Any]) -> None:
            del among[endpoint]
            error = None if task.cancelled() else task.exception()
            if error is not None:
                detail = f"{type(error).__name__}: {error}"
                self._log.warning("docker-departure-failed", endpoint=endpoint, detail=detail)

        among[endpoint] = asyncio.ensure_future(work())
        among[endpoint].add_done_callback(ended)
