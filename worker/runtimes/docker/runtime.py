"""Docker's two halves together: the plugin, which must answer whatever happens, and the follower, which may fail.

The plugin's socket is there before this is: Docker waits at it instead of giving up. What goes wrong in the follower is
logged and tried again; it never ends the plugin, and neither of them the worker. Decides nothing about networks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kvnet.errors import KvnetError, StateUnusable
from kvnet.model import Address, Condition
from worker.catalogue import NetworkCatalogue
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Backoff, Controller, Time
from worker.runtimes.docker.engine import DockerEngine
from worker.runtimes.docker.events import Events
from worker.runtimes.docker.follower import Follower
from worker.runtimes.docker.ledger import Ledger, OwnCalls
from worker.runtimes.docker.names import Namer
from worker.runtimes.docker.plugin import DockerPlugin
from worker.runtimes.docker.ports import Engine, EngineEvent, Plugin, Workloads
from worker.runtimes.docker.revive import Reviver
from worker.runtimes.docker.steps import Steps
from worker.runtimes.docker.sweep import Sweeper
from worker.settings import Settings

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CONDITIONS_S = 0.5
IDENTITY = "docker-identity"


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
        is_believed: Callable[[], bool],
        underlay: Callable[[], Address | None],
        on_conditions: Callable[[], None],
        on_call: Callable[[str, float, bool], None] = lambda _call, _seconds, _is_failed: None,
        time: Time,
        log: Log,
    ) -> None:
        self._state = state
        self._time = time
        self._log = log
        self._catalogue = catalogue
        self._on_conditions = on_conditions
        self.ledger = Ledger(state, log)
        self.ledger.load()
        own = OwnCalls()
        self.plugin: Plugin = DockerPlugin(
            listening,
            settings,
            workloads,
            catalogue,
            controller,
            self.ledger,
            own,
            underlay=underlay,
            on_failed_start=lambda: self.reviver.kick(),
            on_call=on_call,
            time=time,
            log=log,
        )
        self._engine = engine = DockerEngine(settings.docker.api)
        steps = Steps(
            engine,
            catalogue,
            self.ledger,
            own,
            controller,
            self.plugin,
            settings.host,
            is_gone=is_gone,
            time=time,
            log=log,
        )
        self.follower = Follower(
            engine, steps, catalogue, self.ledger, workloads, settings, is_believed=is_believed, time=time, log=log
        )
        self.namer = Namer(engine, workloads, time=time, log=log)
        self.sweeper = Sweeper(engine, self.follower, workloads, self.ledger, controller, time=time, log=log)
        self.reviver = Reviver(engine, self.follower, catalogue, controller, time=time, log=log)
        self.events = self._events()

    def _events(self) -> Events:
        return Events(
            self._engine,
            on_open=self._opened,
            on_close=self.follower.lose_sight,
            on_event=self._event,
            time=self._time,
            log=self._log,
        )

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._catalogue.run())
                group.create_task(self._again("plugin", self.plugin.run))
                group.create_task(self._again("networks", self.follower.run))
                group.create_task(self._again("names", self.namer.run))
                group.create_task(self._again("sweep", self.sweeper.run))
                group.create_task(self._again("restarts", self.reviver.run))
                group.create_task(self._again("events", self.events.run))
                group.create_task(self._watch_conditions())
        finally:
            await self._engine.close()

    def start_over(self) -> None:
        """The store was accepted as it is, so all of it is read anew."""
        self._catalogue.start_over()

    def conditions(self) -> Sequence[tuple[str, Condition]]:
        """What is wrong, with our ids of the networks that it concerns."""
        bound = ((self.ledger.binding(docker), condition) for docker, condition in self.reviver.conditions())
        down = [(binding.network, condition) for binding, condition in bound if binding is not None]
        return [*self.follower.conditions().items(), *self.sweeper.conditions(), *down]

    def status(self) -> Mapping[str, Any]:
        """`problem`: why Docker is not followed, "" if it is."""
        major, minor = self.events.version
        return {
            "reachable": self.events.is_open,
            "problem": self.events.problem,
            "api": f"{major}.{minor}" if major else "",
            "networks": len(list(self.ledger.bindings())),
            "conditions": [{"code": c.code, "detail": c.detail, "since": c.since} for _, c in self.conditions()],
            "plugin": dict(self.plugin.status()),
        }

    async def _opened(self) -> None:
        await self._recognise(self._engine)
        await self.follower.read_anew(self.events.version)
        await self.namer.read_anew()
        self.sweeper.kick()
        self.reviver.begin_anew()

    async def _recognise(self, engine: Engine) -> None:
        """What was bound to a Docker whose memory was wiped since is not what its users have removed."""
        identity = await engine.identity()
        known = (self._state.read(IDENTITY) or b"").decode(errors="replace")
        if identity == known or not identity:
            return
        if known:
            self._log.warning("docker-replaced", detail="this host's Docker has forgotten all of its networks")
            for binding in self.ledger.bindings():
                await self.ledger.unbind(binding.docker)
        try:
            self._state.write(IDENTITY, identity.encode(), durable=False)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)

    async def _watch_conditions(self) -> None:
        told: Sequence[tuple[str, Condition]] = []
        while True:
            await self._time.sleep(CONDITIONS_S)
            now = self.conditions()
            if now != told:
                self._on_conditions()
            told = now

    def _event(self, event: EngineEvent) -> None:
        if event.kind == "network" and event.action in ("create", "destroy"):
            self.follower.on_event(event)
        elif event.kind == "network" and event.action == "disconnect":
            self.follower.kick()
        self.namer.on_event(event)

    async def _again(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        """A part that ended with an error begins anew, after a pause."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            began = self._time.monotonic()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - a fault in one part must not end the others
                self._log.error("docker-part-failed", part=part, detail=_words(error))
            if self._time.monotonic() - began > LONGEST_PAUSE_S:
                pauses.reset()
            await self._time.sleep(pauses.next(self._time))


def _words(error: BaseException) -> str:
    """Of what a task group gathered, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.detail if isinstance(error, KvnetError) else f"{type(error).__name__}: {error}"
