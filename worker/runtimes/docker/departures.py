"""What is on its way out: begun when Docker leaves an endpoint, waited for when Docker deletes it.

A veth takes the kernel 20 ms to remove, which passes while Docker clears the sandbox; when it hears that the endpoint
is deleted, it is. Docker waits only so long: whoever meets later what is still on its way (the same address, the same
port, its network's removal) waits here for it. Nothing of this need survive a crash: the worker compares its endpoints
with Docker's when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kvnet.errors import Conflicting
from worker.attachments import Phase
from worker.log import Log
from worker.runtimes.docker.ports import Workloads

PATIENCE_S = 3.0
# Turns of the loop until Docker has its answer to Leave: what follows blocks the loop for the time of a file's writing.
ANSWER_FIRST = 5
T = TypeVar("T")


class Departures:
    def __init__(self, workloads: Workloads, log: Log) -> None:
        self._workloads = workloads
        self._log = log
        self._going: dict[str, asyncio.Task[Any]] = {}

    def is_going(self, endpoint: str) -> bool:
        return endpoint in self._going

    def is_owed(self, endpoint: str) -> bool:
        """It is on its way out, or will be as soon as the controller is back."""
        record = self._workloads.record(endpoint)
        return self.is_going(endpoint) or (record is not None and record.phase is Phase.DETACHING)

    def begin(self, endpoint: str, afterwards: Callable[[], Awaitable[None]] | None = None) -> asyncio.Task[Any]:
        """Again while it goes: the same. `afterwards`: done when it is gone, and part of its going."""
        task = self._going.get(endpoint)
        if task is None:
            task = self._going[endpoint] = asyncio.ensure_future(self._gone(endpoint, afterwards))
            task.add_done_callback(lambda ended: self._ended(endpoint, ended))
        return task

    async def until_gone(self, endpoint: str) -> None:
        """Whoever gives up waiting for it does not end it. A failure is in the log, and the worker's to deal with."""
        await asyncio.wait({self.begin(endpoint)})

    async def over(self, seconds: float = PATIENCE_S) -> None:
        """When those that have begun are over, or have taken too long."""
        if self._going:
            await asyncio.wait(self._going.values(), timeout=seconds)

    async def give_way(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Once more after they are over, if something was in the way."""
        begun = bool(self._going)
        try:
            return await attempt()
        except Conflicting:
            if not begun:
                raise
        await self.over()
        return await attempt()

    async def close(self) -> None:
        await self.over()
        rest = list(self._going.values())
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _gone(self, endpoint: str, afterwards: Callable[[], Awaitable[None]] | None) -> None:
        for _ in range(ANSWER_FIRST):
            await asyncio.sleep(0)
        await self._workloads.release(endpoint)
        if afterwards is not None:
            await afterwards()

    def _ended(self, endpoint: str, task: asyncio.Task[Any]) -> None:
        del self._going[endpoint]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            detail = f"{type(error).__name__}: {error}"
            self._log.warning("docker-departure-failed", endpoint=endpoint, detail=detail)
