"""Endpoints whose interface another program moves into the workload: claimed, handed over, taken back, released.

A claim outlives its interface, and a restart of the worker: only its runtime, or whoever removes the endpoint, ends it.
Its interface is made as soon as its endpoint is there, so that the runtime finds it ready, and waits on the host.
An interface that was handed over is made once; until it is known what the runtime called it, nothing may make it again,
for it could be anywhere. What a crash leaves between two steps is taken away at the next start. Knows no runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, cast

from datapath.names import handed_name
from datapath.packing import packed_mac
from kvnet.errors import Conflicting, KernelRefused, KvnetError, NotFound, StateUnusable
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody
from worker import hostports
from worker.alone import Turns
from worker.attachments import UNKNOWN, VETH, Attachments, Phase, Record
from worker.building import Building, kind_of
from worker.hostports import PORT_ATTEMPTS
from worker.log import Log
from worker.making import Maker
from worker.placing import order_for
from worker.ports import Backoff, Controller, HostKernel, Listeners, Namespaces, Time
from worker.readiness import Readiness
from worker.reconcile import Reconciler
from worker.release import Releaser
from worker.settings import Settings
from worker.view import View


class Handover:
    """`Workloads` for the runtimes. Calls about the same endpoint wait for each other."""

    def __init__(
        self,
        settings: Settings,
        controller: Controller,
        kernel: HostKernel,
        namespaces: Namespaces,
        listeners: Listeners,
        attachments: Attachments,
        view: View,
        reconciler: Reconciler,
        releaser: Releaser,
        readiness: Readiness,
        maker: Maker,
        building: Building,
        turns: Turns,
        *,
        new_id: Callable[[], str],
        boot_id: Callable[[], str],
        time: Time,
        log: Log,
    ) -> None:
        self._settings = settings
        self._controller = controller
        self._kernel = kernel
        self._namespaces = namespaces
        self._listeners = listeners
        self._attachments = attachments
        self._view = view
        self._reconciler = reconciler
        self._releaser = releaser
        self._readiness = readiness
        self._maker = maker
        self._building = building
        self._turns = turns
        self._new_id = new_id
        self._boot_id = boot_id
        self._time = time
        self._log = log

    # what there is

    def records(self) -> Sequence[Record]:
        return list(self._attachments)

    def record(self, endpoint: str) -> Record | None:
        return self._attachments.get(endpoint)

    def lost(self) -> Sequence[Record]:
        found = (self._attachments.get(endpoint) for endpoint in sorted(self._attachments.lost))
        return [record for record in found if record is not None and record.phase is not Phase.DETACHING]

    # an endpoint's life

    async def claim(self, network: str, body: EndpointBody, *, runtime: str) -> Record:
        """
        Raises:
            HostFenced, StoreUnavailable, ControllerUnreachable: not now; nothing was changed.
            StateUnusable: it cannot be noted; nothing was changed.
            KvnetError: what the controller said; nothing is left.
        """
        self._readiness.require()
        endpoint = self._attachments.marked(self._new_id())
        is_made_now = self._is_made_early(network)
        record = Record(
            endpoint=endpoint,
            network=network,
            name=body["name"],
            netns="",
            interface=handed_name(endpoint) if is_made_now else "",
            phase=Phase.ATTACHING,
            since=self._time.now(),
            boot_id=self._boot_id(),
            kind=VETH if is_made_now else UNKNOWN,
            runtime=runtime,
            is_handed_over=is_made_now,
        )
        # A power failure ends the workload as well; then the mark in its id tells whose the endpoint was.
        self._attachments.keep(record)
        async with self._maker.undone_unless_done(record) as making:
            full: EndpointBody = {**body, "id": record.endpoint, "host": self._settings.host}
            chooses = hostports.chooses_all(body.get("ports", ()))
            await self._maker.create(making, network, full, then=Phase.CLAIMED, chooses_ports=chooses)
        record = making.record
        self._log.info("claimed", endpoint=record.endpoint, network=network, runtime=runtime)
        return record

    async def call_it(self, endpoint: str, external: str) -> Record:
        """
        Raises:
            NotFound: there is no such endpoint.
            StateUnusable: not noted.
        """
        async with self._turns.alone_with(endpoint):
            return self._kept(replace(self._known(endpoint), external=external))

    async def hand_over(self, endpoint: str, netns: str, routes: Sequence[str] = ()) -> Record:
        """
        Raises:
            NotFound: there is no such endpoint.
            Conflicting: another namespace has its interface.
            HostFenced, StoreUnavailable, ControllerUnreachable: not now; it is claimed as before.
            KernelRefused: it cannot be built; it is claimed as before.
        """
        async with self._turns.alone_with(endpoint):
            record = self._known(endpoint)
            if record.phase is Phase.ATTACHED:
                return _same(record, netns)
            self._readiness.require()
            before = record
            record = replace(
                record,
                netns=netns,
                interface=handed_name(endpoint),
                is_handed_over=True,
                boot_id=self._boot_id(),
                routes=tuple(routes),
            )
            if before.is_handed_over:
                self._attachments.note(record)  # that it has an interface is on disk
            else:
                self._kept(record)
            async with self._withdrawn_unless_done(record):
                built = self._built(record, is_made_already=before.is_handed_over)
                record, identity = await asyncio.gather(built, self._namespaces.identity(netns))
                order = order_for(identity, self.records()) if identity else 0
                record = replace(record, identity=identity, order=order)
                record = self._kept(replace(record, phase=Phase.ATTACHED, since=self._time.now()))
        self._log.info("handed-over", endpoint=endpoint, network=record.network, netns=netns)
        return record

    async def settle(self, endpoint: str) -> Record:
        """
        Raises:
            NotFound: there is no such endpoint, or its interface is not in its namespace (yet).
        """
        async with self._turns.alone_with(endpoint):
            return await self._settled(self._known(endpoint))

    async def add_route(self, endpoint: str, destination: str) -> Record:
        """
        Raises:
            NotFound: as of `settle`.
            KernelRefused: the kernel does not take it.
        """
        network = ip_network(destination)
        async with self._turns.alone_with(endpoint):
            record = await self._settled(self._known(endpoint))
            packed = network.network_address.packed
            await self._kernel.lead_inside(record.netns, record.interface, packed, network.prefixlen)
            if destination in record.routes:
                return record
            return self._kept(replace(record, routes=(*record.routes, destination)))

    async def take_back(self, endpoint: str) -> None:
        """
        Raises:
            KernelRefused: the interface is still there; a later release takes it away.
        """
        async with self._turns.alone_with(endpoint):
            record = self._attachments.get(endpoint)
            if record is not None and record.phase in (Phase.ATTACHED, Phase.CLAIMED) and record.interface:
                await self._withdraw(record)
                self._log.info("taken-back", endpoint=endpoint, network=record.network)

    async def release(self, endpoint: str) -> bool:
        """
        Raises:
            StateUnusable: it cannot be noted, so nothing was done.
        """
        async with self._turns.alone_with(endpoint):
            record = self._attachments.get(endpoint)
            return record is None or await self._releaser.release(record, "asked for")

    async def change(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        """
        Raises:
            NotFound: there is no such endpoint.
            PortTaken: a program of this host has one of the ports; none is published.
            KernelRefused: the ports do not lead there in time.
            KvnetError: what the controller said.
        """
        timeout_s = self._settings.timing.attach_s
        async with self._turns.alone_with(endpoint):
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._change(endpoint, body)
            except TimeoutError as error:
                raise KernelRefused(
                    f"the change of endpoint {endpoint} was not done within {timeout_s:g} s",
                    fix="'kvnet status' on this host shows what it waits for",
                ) from error

    # what a crash left

    async def run(self) -> None:
        """Once, after the start: what was between two steps is finished, or undone."""
        for record in self._attachments.of_phase(Phase.ATTACHED):
            if record.is_handed_over:
                await self._settle_if_there(record.endpoint)
        backoff = Backoff(self._settings.timing.retry_s, self._settings.timing.retry_max_s)
        while left := [r.endpoint for r in self._attachments.of_phase(Phase.CLAIMED) if _is_left_over(r)]:
            for endpoint in left:
                await self._withdraw_what_is_left(endpoint)
            await self._time.sleep(backoff.next(self._time))

    async def _settle_if_there(self, endpoint: str) -> None:
        try:
            await self.settle(endpoint)
        except KvnetError as error:
            self._log.info("not-settled", endpoint=endpoint, code=error.code, detail=error.detail)

    async def _withdraw_what_is_left(self, endpoint: str) -> None:
        async with self._turns.alone_with(endpoint):
            record = self._attachments.get(endpoint)
            if record is None or not _is_left_over(record):
                return
            try:
                await self._withdraw(record)
            except KvnetError as error:
                self._log.warning("left-over", endpoint=endpoint, code=error.code, detail=error.detail)

    # the steps

    def _known(self, endpoint: str) -> Record:
        record = self._attachments.get(endpoint)
        if record is None or record.phase not in (Phase.CLAIMED, Phase.ATTACHED):
            raise NotFound(f"this host has no endpoint {endpoint}", fix="'kvnet status' shows those that it has")
        return record

    def _kept(self, record: Record) -> Record:
        self._attachments.keep(record)
        return record

    def _is_made_early(self, network: str) -> bool:
        """Where the network is known here, and its interfaces are veths, for others are not found without a record of
        their place."""
        known = self._view.network_named(network)
        return known is not None and kind_of(known) == VETH

    async def _built(self, record: Record, *, is_made_already: bool) -> Record:
        """With its kind, which the first of a network on this host learns only now."""
        with self._view.pinned(record.network_id):
            network = self._building.network(record) or await self._building.until_known(record)
            record = replace(record, kind=kind_of(network))
            self._attachments.note(record)
            if is_made_already:
                await self._building.until_there(record)
            else:
                await self._building.until_built_anew(record)
            self._building.require(record)
        return record

    @asynccontextmanager
    async def _withdrawn_unless_done(self, record: Record) -> AsyncIterator[None]:
        """What ends the block early leaves a claim without an interface."""
        timeout_s = self._settings.timing.attach_s
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except (KvnetError, TimeoutError, asyncio.CancelledError) as error:
            latest = self._attachments.get(record.endpoint)
            if latest is not None and latest.phase is Phase.CLAIMED:
                await self._withdraw_in_time(latest)
            if isinstance(error, TimeoutError):
                raise KernelRefused(
                    f"the interface of {record.name} was not ready within {timeout_s:g} s",
                    fix="'kvnet status' on this host shows what it waits for",
                ) from error
            raise

    async def _withdraw_in_time(self, record: Record) -> None:
        try:
            async with asyncio.timeout(self._settings.timing.attach_s):
                await self._withdraw(record)
        except (KvnetError, TimeoutError) as error:
            self._log.warning("left-over", endpoint=record.endpoint, detail=str(error))

    async def _withdraw(self, record: Record) -> None:
        """First nobody may want it any more, then it goes, then it is forgotten where it was."""
        record = replace(record, phase=Phase.CLAIMED, since=self._time.now(), is_handed_over=False)
        try:
            self._attachments.keep(record)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)
            self._attachments.note(record)  # its namespace, gone or not, tells the next start as much
        self._attachments.lost.discard(record.endpoint)
        await self._releaser.remove_interface(record)
        # The last pass still believes it to be there.
        self._reconciler.touch([record.network_id], read=True)
        self._attachments.keep(replace(record, interface="", netns="", identity="", order=0, routes=()))

    async def _settled(self, record: Record) -> Record:
        if record.phase is Phase.ATTACHED and not record.is_handed_over:
            return record
        interface = ""
        if record.phase is Phase.ATTACHED:
            interface = await self._name_inside(record)
        if not interface:
            raise NotFound(
                f"the interface of {record.name} is not in {record.netns or 'its namespace'}",
                fix="its runtime moves it there; ask again in a moment",
            )
        identity = record.identity or await self._namespaces.identity(record.netns)
        return self._kept(replace(record, interface=interface, identity=identity, is_handed_over=False))

    async def _name_inside(self, record: Record) -> str:
        try:
            return await self._kernel.name_inside(record.device, record.netns, packed_mac(record.answer["mac"]))
        except KernelRefused as error:
            raise NotFound(f"the interface of {record.name} cannot be found: {error.detail}") from error

    async def _change(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        changed = await self._changed(endpoint, body)
        if "ports" not in body:
            return changed
        for attempt in range(1, PORT_ATTEMPTS + 1):
            there = await hostports.who_listens(self._listeners, changed)
            if there is None:
                break
            await self._changed(endpoint, {"ports": []})
            if hostports.chooses_all(body.get("ports") or ()) or attempt == PORT_ATTEMPTS:
                raise hostports.taken(there, self._settings.host)
            changed = await self._changed(endpoint, body)
        await self._building.until_built(self._known(endpoint))
        return changed

    async def _changed(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        record = self._known(endpoint)
        changed = await self._controller.update_endpoint(record.network_id, endpoint, body)
        record = self._attachments.get(endpoint) or record
        self._attachments.keep(replace(record, name=changed["name"], answer=cast("dict[str, Any]", changed)))
        return changed


def _is_left_over(record: Record) -> bool:
    return bool(record.interface) and not record.is_handed_over


def _same(record: Record, netns: str) -> Record:
    if record.netns != netns:
        raise Conflicting(
            f"the interface of {record.name} is in {record.netns}",
            fix="take it back first, or ask for another endpoint",
            context={"endpoint": record.endpoint},
        )
    return record
