"""What a worker can be asked: by its local socket, and by controllers through the store.

Attach and detach come over the socket alone; whoever asks from afar changes no network. What takes much to load or to
find out is loaded, and found out, when somebody asks for the first time: most hosts are well, and a worker is to be
small. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backends.store import Store
from datapath.words import describe
from worker.answering import Kind
from worker.log import Log
from worker.ports import Controller, HostKernel, Namespaces, Time
from worker.requests import parse_attach, parse_detach
from worker.runtimes.programs import program_operations
from worker.server import Operation
from worker.status import status
from worker.threads import Threads

if TYPE_CHECKING:
    from worker.agent import Worker
    from worker.looking import Looker
    from worker.probing.prober import Prober

EXAMINING = 8


class Asked:
    """Of one worker. Ask nothing before the worker is whole."""

    def __init__(
        self,
        worker: Worker,
        store: Store,
        controller: Controller,
        kernel: HostKernel,
        namespaces: Namespaces,
        time: Time,
        log: Log,
    ) -> None:
        self._worker = worker
        self._store = store
        self._controller = controller
        self._kernel = kernel
        self._namespaces = namespaces
        self._time = time
        self._log = log
        self._examining = Threads(EXAMINING, "doctor")

    def operations(self) -> Mapping[str, Operation]:
        """Of the local socket."""
        worker = self._worker
        return {
            "attach": lambda message: worker.attacher.attach(parse_attach(message)),
            "detach": lambda message: worker.attacher.detach(parse_detach(message)),
            "status": self._status,
            "plan": self._plan,
            "ping": self._ping,
            "metrics": self._metrics,
            "ask": worker.answerer.ask,
            **program_operations(
                worker.settings,
                self._store,
                self._controller,
                self._namespaces,
                worker.attacher,
                worker.attachments,
                worker.view,
                self._status,
                self._time,
                self._log,
            ),
        }

    def kinds(self) -> Mapping[str, Kind]:
        """What controllers, and the command line on this host, can ask; never a change of a network."""
        return {
            "status": self._status,
            "probe": lambda parameters: self._prober.answer(parameters),
            "doctor": self._doctor,
            "look": lambda parameters: self._looker.answer(parameters),
            **self._worker.pause.kinds,
        }

    @cached_property
    def _prober(self) -> Prober:
        from worker.probing.prober import Prober

        return Prober(self._worker.view, self._worker.attachments, time=self._time)

    @cached_property
    def _looker(self) -> Looker:
        from worker.looking import Knowing, Looker

        one = self._worker
        knowing = Knowing(
            one.settings, one.view, one.source, one.attachments, one.reconciler, lambda: not one.lifeline.is_open
        )
        return Looker(self._kernel, knowing, one.pause, one.repairs)

    async def _doctor(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        from worker.doctor.answer import Doctor

        one = self._worker
        return await Doctor(one.settings, self._store, one.view, self._status, self._examining.run).answer(parameters)

    async def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        one = self._worker
        known = status(
            one.settings,
            one.view,
            one.source,
            one.attachments,
            one.reconciler,
            one.lifeline,
            one.registration,
            self._time,
            one.pause.conditions,
        )
        return known if one.docker is None else {**known, "docker": one.docker.status()}

    async def _plan(self, _: Mapping[str, Any]) -> dict[str, Any]:
        plan = await self._worker.reconciler.preview()
        return {
            "host": self._worker.settings.host,
            "operations": [describe(operation) for operation in plan.operations],
            "conflicts": [
                {"network": c.network, "device": c.device, "code": c.code, "detail": c.detail} for c in plan.conflicts
            ],
        }

    async def _metrics(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": self._worker.figures.registry.render()}

    async def _ping(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"host": self._worker.settings.host}
