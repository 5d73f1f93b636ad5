"""Docker's events, for as long as there is a Docker: the stream is opened first, then everything is read, so that
nothing is missed between the two.

A Docker that is away for days costs one line of the log and an attempt every few seconds. Never acts on an event.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import cast

from kvnet.errors import KvnetError
from worker.log import Log
from worker.ports import Backoff, Time
from worker.runtimes.docker.ports import Engine, EngineAway, EngineEvent

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# A stream that lasted this long was a good one: the next one is tried for at once.
GOOD_S = 10.0


class Events:
    """`on_open` reads what is there now; while it does, events wait. `on_event` must not take long."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_open: Callable[[], Awaitable[None]],
        on_close: Callable[[], None],
        on_event: Callable[[EngineEvent], None],
        time: Time,
        log: Log,
    ) -> None:
        self.is_open = False
        self.version: tuple[int, int] = (0, 0)
        self.problem = "not asked yet"
        self._engine = engine
        self._on_open = on_open
        self._on_close = on_close
        self._on_event = on_event
        self._time = time
        self._log = log
        self._told = ""

    async def run(self) -> None:
        """Until cancelled."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            began = self._time.monotonic()
            try:
                await self._follow()
            except KvnetError as error:
                self._tell(error)
            finally:
                self.is_open = False
                self._on_close()
            if self._time.monotonic() - began >= GOOD_S:
                pauses.reset()
            await self._time.sleep(pauses.next(self._time))

    async def _follow(self) -> None:
        self.version = await self._engine.version()
        events = cast("AsyncGenerator[EngineEvent | None, None]", self._engine.events())
        async with contextlib.aclosing(events) as stream:
            async for event in stream:
                if event is not None:
                    self._on_event(event)
                    continue
                await self._on_open()
                self.is_open, self.problem, self._told = True, "", ""
                self._log.info("docker-followed", api=f"{self.version[0]}.{self.version[1]}")

    def _tell(self, error: KvnetError) -> None:
        """Once for each thing that is wrong, however its words change."""
        what = type(error).__name__ if isinstance(error, EngineAway) else error.detail
        if what != self._told:
            self._log.warning("docker-not-followed", code=error.code, detail=error.detail)
        self._told = what
        self.problem = error.detail
