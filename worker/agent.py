"""The worker as a whole: puts the parts together, starts them in order, and lets them go.

Stopping leaves the data plane as it is and the session to run out: the workloads still run, and a restart within the
TTL takes the session over. Decides nothing about networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from backends.levelled import LevelledStore
from backends.passing import TimedStore
from backends.store import Store, StoreError
from kvnet import keys, sentinel
from kvnet.model import Condition, Driver
from kvnet.spans import UNTOLD, Tracer
from worker.alone import Turns
from worker.answering import Answerer
from worker.asked import Asked
from worker.attach import Attacher
from worker.attachments import Attachments
from worker.building import Building
from worker.catalogue import NetworkCatalogue
from worker.chronicle import Chronicle
from worker.content import Content
from worker.disk import StateDir
from worker.ended import Ended
from worker.givenup import GivenUp
from worker.handover import Handover
from worker.inquiry import Inquiry
from worker.log import Log
from worker.making import Maker
from worker.memory import Memory
from worker.metrics.figures import Figures
from worker.metrics.measured import answering, naming
from worker.metrics.scrape import Scrape
from worker.metrics.text import Registry
from worker.pausing import Pause
from worker.ports import Controller, HostKernel, Listeners, Namespaces, Time
from worker.readiness import Readiness
from worker.reconcile import Reconciler
from worker.registration import Registration
from worker.release import Releaser
from worker.repairs import Repairs
from worker.report import Reporter
from worker.server import Operation
from worker.session import Lifeline
from worker.settings import DockerMode, Settings
from worker.source import Mode, Source
from worker.trust import Trust
from worker.view import View

if TYPE_CHECKING:
    from worker.dns.service import NameService
    from worker.runtimes.docker.runtime import DockerRuntime

MODE_S = 0.5
NEW_S = 5.0
SLOW = {"doctor": 2, "look": 2}  # questions that keep threads busy: so many of a kind at once


class Worker:
    """One host's agent over the given ports. `start` first, then `run`. `new_id`: of so many bytes, never the same."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        controller: Controller,
        kernel: HostKernel,
        namespaces: Namespaces,
        listeners: Listeners,
        state: StateDir,
        *,
        time: Time,
        log: Log,
        tracer: Tracer = UNTOLD,
        new_id: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self.settings = settings
        self._controller = controller
        self._new_id = new_id
        self._namespaces = namespaces
        self._state = state
        self._time = time
        self._log = log
        self.docker: DockerRuntime | None = None
        self.figures = Figures(Registry())
        timed = TimedStore(store, self.figures.stored)
        self._store = LevelledStore(timed, lambda: sentinel.level_of(self.view.meta.mirror.entries))
        self.attachments = Attachments(state, log)
        self.view = View(
            self._store, settings.host, time=time, on_networks=self._networks_changed, on_local=self._local_changed
        )
        self._build_judgement(self._store, namespaces)
        self._build_passes(kernel, tracer)
        self._build_voice(self._store, kernel)
        self._build_hands(self._store, controller, kernel, namespaces, listeners)
        self.names = self._name_service()
        self._build_answers(kernel)
        self.scrape = Scrape(self, self.figures.registry, time.now())

    def _build_passes(self, kernel: HostKernel, tracer: Tracer) -> None:
        """What brings the kernel to what is wanted, and remembers it."""
        settings, time, timing, log = self.settings, self._time, self.settings.timing, self._log
        self.inquiry = Inquiry(self._controller, time=time, log=log)
        self.repairs = Repairs(time, self._is_new)
        self._owes_look = False
        self.chronicle = Chronicle(
            log,
            time,
            origins=self.view.origins,
            name_of=self.view.name_of,
            figures=self.figures,
            tell=self.inquiry.tell,
            on_repair=self.repairs.note,
            on_lost=self.figures.events_lost.add,
            tracer=tracer,
        )
        self.pause = Pause(settings.host, time, log)
        self.reconciler = Reconciler(
            kernel,
            self.source,
            time=time,
            timing=timing,
            log=log,
            on_report=lambda: self.reporter.changed(),
            on_underlay=lambda: self.registration.look_again(),
            concerns=self._concerns,
            chronicle=self.chronicle,
            pause=self.pause,
        )
        self.pause.on_change = self.reconciler.paused_or_not
        self.memory = Memory(
            self._state, self.view, self.source, self.trust, self.reconciler, time=time, timing=timing, log=log
        )

    def _build_answers(self, kernel: HostKernel) -> None:
        """What is said when this host is asked."""
        settings, time = self.settings, self._time
        self.asked = Asked(self, self._store, self._controller, kernel, self._namespaces, time, self._log)
        kinds = answering(self.figures, self.asked.kinds())
        self.answerer = Answerer(self._store, settings.host, kinds, time=time, log=self._log, at_once=SLOW)

    def _build_judgement(self, store: Store, namespaces: Namespaces) -> None:
        """What is known, and how far it is believed."""
        settings = self.settings
        self.trust = Trust(
            self._state,
            self.view,
            time=self._time,
            doubt_s=settings.timing.doubt_s,
            log=self._log,
            accept=settings.accept_store,
            expected=settings.cluster,
            on_accepted=self._start_over,
        )
        self.source = Source(
            store,
            self.view,
            self.trust,
            self.attachments,
            namespaces,
            on_missing=lambda record: self.releaser.suspect(record),
            is_disputed=lambda: self.lifeline.is_disputed,
            is_settled=lambda: self.lifeline.is_settled,
            dns=settings.dns.packed if settings.dns is not None else b"",
            serves_docker=settings.docker.mode is not DockerMode.OFF,
        )

    def _name_service(self) -> NameService | None:
        settings = self.settings
        if settings.dns is None:
            return None
        from worker.dns.service import Cluster, NameService

        return NameService(
            settings.dns,
            settings.host,
            Cluster(self.view, self.source),
            lambda: self.attachments,
            time=self._time,
            log=self._log,
            namespace_files=settings.namespace_files,
            measured=partial(naming, self.figures),
        )

    async def _until_told(self) -> None:
        if self.names is not None:
            await self.names.until_told()

    def _build_voice(self, store: Store, kernel: HostKernel) -> None:
        """What this host tells the others."""
        settings, state, time, timing, log = self.settings, self._state, self._time, self.settings.timing, self._log
        incarnation = f"{time.rng.getrandbits(64):016x}"
        self.lifeline = Lifeline(
            store,
            self.view,
            state,
            incarnation,
            time=time,
            timing=timing,
            log=log,
            on_settled=self.reconciler.touch_everything,
            objection=self.trust.objection,
        )
        self.registration = Registration(
            store,
            self.view,
            kernel,
            self.lifeline,
            settings.underlay,
            on_change=self._underlay_changed,
            time=time,
            timing=timing,
            log=log,
        )
        self.reporter = Reporter(
            store,
            settings.host,
            Content(self).now,
            self.trust,
            time=time,
            timing=timing,
            log=log,
            hosts=lambda: len(self.view.hosts.items),
        )
        self.attachments.on_change = self.reporter.changed

    def _build_hands(
        self,
        store: Store,
        controller: Controller,
        kernel: HostKernel,
        namespaces: Namespaces,
        listeners: Listeners,
    ) -> None:
        """What gives workloads their interfaces, and takes them away."""
        settings, time, log = self.settings, self._time, self._log
        self.releaser = self._releaser(store, controller, kernel, namespaces)
        readiness = Readiness(settings, self.lifeline, self.source, self.view, time)
        maker = Maker(settings, controller, listeners, self.attachments, self.releaser, time, log)
        building = Building(self.view, self.attachments, self.reconciler)
        turns = Turns()
        self.attacher = Attacher(
            settings,
            namespaces,
            self.attachments,
            self.view,
            self.releaser,
            readiness,
            maker,
            building,
            turns,
            new_id=lambda: self._new_id(8),
            boot_id=lambda: self.registration.boot_id,
            until_told=self._until_told,
            figures=self.figures,
            time=time,
            log=log,
        )
        self.workloads = Handover(
            settings,
            controller,
            kernel,
            namespaces,
            listeners,
            self.attachments,
            self.view,
            self.reconciler,
            self.releaser,
            readiness,
            maker,
            building,
            turns,
            new_id=lambda: self._new_id(4),
            boot_id=lambda: self.registration.boot_id,
            time=time,
            log=log,
        )

    def _releaser(self, store: Store, controller: Controller, kernel: HostKernel, namespaces: Namespaces) -> Releaser:
        return Releaser(
            store,
            controller,
            kernel,
            namespaces,
            self.attachments,
            GivenUp(self._state, self._log),
            Ended(self._state, self.settings.host, self.view.local.mirror.entries, self._time, self._log),
            self.view,
            self.source,
            self.trust,
            touch=self.reconciler.touch,
            time=self._time,
            timing=self.settings.timing,
            log=self._log,
        )

    def serve_docker(self, listening: socket.socket) -> None:
        """Before `run`.

        Raises:
            StateUnusable: what Docker was told cannot be read.
        """
        from worker.runtimes.docker.runtime import DockerRuntime

        self.docker = DockerRuntime(
            listening,
            self.settings,
            self.workloads,
            NetworkCatalogue(self._store, time=self._time),
            self._controller,
            self._state,
            is_gone=self._is_gone,
            is_believed=lambda: self.source.mode() is Mode.LIVE,
            underlay=lambda: self.view.own.underlay if self.view.own is not None else None,
            on_conditions=self.reporter.changed,
            on_call=lambda call, seconds, is_failed: self.figures.called(call, seconds, is_failed=is_failed),
            time=self._time,
            log=self._log,
        )

    async def start(self) -> None:
        """What must hold before anything else is tried.

        Raises:
            NotFound: the underlay address is on no interface.
            StateUnusable: the state directory cannot be read.
            AnotherCluster: the store answers, and is not that of the cluster that was meant.
        """
        await self._require_cluster()
        await self.registration.look_around()
        await self.attachments.load_mark(self._new_id(4))
        self.attachments.load(self._time.now(), is_new_store=self.settings.accept_store)

    async def _require_cluster(self) -> None:
        """A store that is away, or empty yet, is waited for: what runs here must go on."""
        if self.settings.cluster:
            with contextlib.suppress(StoreError):
                entry = await self._store.get(keys.CLUSTER)
                objection = self.trust.objection(entry) if entry is not None else None
                if objection is not None:
                    raise objection.error()

    async def run(self) -> None:
        """Until cancelled."""
        parts = (
            self.view,
            self.reconciler,
            self.lifeline,
            self.registration,
            self.reporter,
            self.releaser,
            self.workloads,
            self.memory,
            self.answerer,
            self.inquiry,
        )
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part.run())
            group.create_task(self._watch_mode())
            if self.docker is not None:
                group.create_task(self.docker.run())
            if self.names is not None:
                group.create_task(self.names.run())

    def operations(self) -> Mapping[str, Operation]:
        """Of the local socket."""
        return self.asked.operations()

    # what the parts tell each other

    def _networks_changed(self, networks: Collection[str]) -> None:
        self.chronicle.changed(networks)
        if self.reconciler.has_seen_everything:
            self.reconciler.touch(networks)
        else:
            self.reconciler.touch_everything()
        self.memory.changed()

    def _local_changed(self) -> None:
        self.releaser.look_again()
        self.memory.changed()

    def _underlay_changed(self) -> None:
        """This host's record is another one, or its address is gone or back: tunnels and MTUs follow from it."""
        self.reconciler.touch(list(self.view.network_ids))
        self.reporter.changed()

    def _concerns(self, network_id: str) -> Sequence[Condition]:
        """What is wrong with the host, as far as it concerns the network."""
        problem = self.registration.problem
        tables = self.view.tables(network_id)
        network = tables.network if tables is not None else None
        crosses = network is not None and network.driver in (Driver.OVERLAY, Driver.ROUTED)
        nameless = self.names.conditions if self.names is not None else ()
        crowded = self.registration.crowding.conditions
        return [*([problem] if problem is not None and crosses else []), *crowded, *nameless, *self.pause.conditions]

    def _is_new(self, device: str) -> bool:
        """Whether it is the interface of a workload that came a moment ago."""
        record = self.attachments.of_device(device)
        return record is not None and self._time.now() - record.since < NEW_S

    def _start_over(self) -> None:
        """The store was accepted as it is: whatever was numbered before means nothing."""
        self._owes_look = True
        self.attachments.start_over()
        self.reconciler.start_over()
        self.registration.start_over()
        self.reporter.start_over()
        self.answerer.start_over()
        if self.docker is not None:
            self.docker.start_over()

    async def _is_gone(self, network_id: str) -> bool:
        """Whether the store itself says that there is no such network, and may be believed."""
        if self.source.mode() is not Mode.LIVE or await self.trust.confirm(self._store) is not None:
            return False
        with contextlib.suppress(StoreError):
            return await self._store.get(keys.network(network_id)) is None
        return False

    async def _watch_mode(self) -> None:
        """Whether the store can be believed changes without any of our keys changing."""
        mode: Mode | None = None
        while True:
            now = self.source.mode()
            if now is not mode:
                doubt = self.source.doubt()
                tell = self._log.warning if doubt is not None else self._log.info
                tell("mode", mode=now.value, **({"code": doubt.code, "detail": doubt.detail} if doubt else {}))
                self.reconciler.touch_everything()
                self.releaser.hurry()
            mode = now
            if self._owes_look and not self.view.is_starting_over:
                self._owes_look = False  # what was done before all was read anew counts for nothing
                self.reconciler.touch(self.view.network_ids)
                self.reconciler.touch_everything()
            await self._time.sleep(MODE_S)

    def monotonic(self) -> float:
        return self._time.monotonic()
