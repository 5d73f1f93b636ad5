"""Docker's two halves together: the plugin, which must answer whatever happens, and the follower, which may fail.

The plugin's socket is there before this is: Docker waits at it instead of giving up. What goes wrong in the follower is
logged and tried again; it never ends the plugin, and neither of them the worker. Decides nothing about networks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from worker.catalogue import NetworkCatalogue
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Backoff, Controller, Time
from worker.runtimes.docker.ledger import Ledger, OwnCalls
from worker.runtimes.docker.ports import Plugin, Workloads
from worker.settings import Settings

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class DockerRuntime:
    """One per worker. `listening`: where Docker calls us."""

    def __init__(
        self,
        listening: socket.socket,
        settings: Settings,
        workloads: Workloads,
        catalogue: NetworkCatalogue,
        controller: Controller,
        state: StateDir,
        *,
        is_gone: Callable[[str], Awaitable[bool]],
        time: Time,
        log: Log,
    ) -> None:
        from worker.runtimes.docker.plugin import DockerPlugin

        self._time = time
        self._log = log
        self._catalogue = catalogue
        self.ledger = Ledger(state, log)
        self.ledger.load()
        self._own = OwnCalls()
        self.plugin: Plugin = DockerPlugin(
            listening, settings, workloads, catalogue, controller, self.ledger, self._own, time=time, log=log
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._catalogue.run())
            group.create_task(self._again("plugin", self.plugin.run))

    def start_over(self) -> None:
        """The store was accepted as it is, so all of it is read anew."""
        self._catalogue.start_over()

    def status(self) -> Mapping[str, Any]:
        return {"plugin": self.plugin.status(), "networks": len(list(self.ledger.bindings()))}

    async def _again(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        """A part that ended with an error begins anew, after a pause."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            began = self._time.monotonic()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - a fault in one part must not end the others
                self._log.error("docker-part-failed", part=part, detail=f"{type(error).__name__}: {error}")
            if self._time.monotonic() - began > LONGEST_PAUSE_S:
                pauses.reset()
            await self._time.sleep(pauses.next(self._time))
