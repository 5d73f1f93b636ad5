"""Attach and detach: from a request to an interface that works, and back.

An attach leaves its intent on disk before the controller hears of it; whatever interrupts it, the next start knows what
to undo. When it returns, the interface is up and configured and this host's kernel knows every peer. When it fails,
nothing of it is left, or what is left is queued to go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, cast

from kvnet.errors import (
    AlreadyAttached,
    ControllerUnreachable,
    IdTaken,
    KernelRefused,
    KvnetError,
    NotFound,
    OutcomeUnknown,
    PortTaken,
    StoreUnavailable,
)
from kvnet.model import Driver, Network, PublishedPort, UplinkMode
from kvnet.wire import Endpoint
from worker.attachments import MACVLAN, UNKNOWN, VETH, Attachments, Phase, Record
from worker.log import Log
from worker.placing import interface_for, order_for
from worker.ports import Controller, Listeners, Namespace, Namespaces, Time
from worker.reconcile import Reconciler
from worker.release import Releaser
from worker.requests import AttachRequest, DetachRequest
from worker.session import Lifeline
from worker.settings import Settings
from worker.source import Mode, Source
from worker.together import all_of
from worker.view import View

# Refusals with one of these codes promise that nothing was written.
NOT_WRITTEN = frozenset({"store-unavailable", "contention"})
# Mirrors reconnect within this; those that do not would only make an attach wait for nothing.
STALE_S = 3.0
# So often another port is asked for where a program on this host has the one that the controller chose.
PORT_ATTEMPTS = 5


@dataclass(slots=True)
class Stopwatch:
    """How long each step took, in milliseconds."""

    time: Time
    began: float
    last: float
    steps: dict[str, float]

    @classmethod
    def start(cls, time: Time) -> Stopwatch:
        now = time.monotonic()
        return cls(time, now, now, {})

    def lap(self, step: str) -> None:
        now = self.time.monotonic()
        self.steps[step] = round((now - self.last) * 1000, 3)
        self.last = now

    def total(self) -> dict[str, float]:
        return {**self.steps, "total": round((self.time.monotonic() - self.began) * 1000, 3)}


class Attacher:
    """One per worker. Requests about the same endpoint id wait for each other."""

    def __init__(
        self,
        settings: Settings,
        controller: Controller,
        namespaces: Namespaces,
        listeners: Listeners,
        attachments: Attachments,
        view: View,
        source: Source,
        reconciler: Reconciler,
        releaser: Releaser,
        lifeline: Lifeline,
        *,
        new_id: Callable[[], str],
        boot_id: Callable[[], str],
        time: Time,
        log: Log,
    ) -> None:
        self._settings = settings
        self._controller = controller
        self._namespaces = namespaces
        self._listeners = listeners
        self._attachments = attachments
        self._view = view
        self._source = source
        self._reconciler = reconciler
        self._releaser = releaser
        self._lifeline = lifeline
        self._new_id = new_id
        self._boot_id = boot_id
        self._time = time
        self._log = log
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def attach(self, request: AttachRequest) -> dict[str, Any]:
        """
        Raises:
            HostFenced, StoreUnavailable, ControllerUnreachable: not now; nothing was changed.
            AlreadyAttached, IdTaken: this namespace, or this id, has an attachment.
            KvnetError: what the controller, the kernel or the namespace said; nothing is left.
        """
        endpoint_id = request.id or self._new_id()
        async with self._alone_with(endpoint_id):
            stopwatch = Stopwatch.start(self._time)
            former = self._attachments.get(endpoint_id)
            if former is not None and not self._is_unfinished(former, request):
                return await self._again(former, request, stopwatch)
            self._require_ready()
            namespace = await self._namespaces.look(request.netns)
            stopwatch.lap("namespace")
            record = self._intent(endpoint_id, request, namespace)
            await self._attachments.keep_durably(record)
            stopwatch.lap("intent")
            return await self._create(record, request, stopwatch, is_repeated=former is not None)

    async def detach(self, request: DetachRequest) -> dict[str, Any]:
        """Take away whatever fits; nothing that fits is no error."""
        path = await self._path_of(request.netns) if request.netns else ""
        found = [record.endpoint for record in self._candidates(request) if _fits(record, request, path)]
        outcomes = dict(zip(found, await all_of(map(self._release, found)), strict=True))
        return {
            "detached": [endpoint for endpoint, is_done in outcomes.items() if is_done is True],
            "queued": [endpoint for endpoint, is_done in outcomes.items() if is_done is False],
        }

    def _candidates(self, request: DetachRequest) -> Iterable[Record]:
        """With an id there is at most one, whatever this host carries."""
        if not request.id:
            return self._attachments
        record = self._attachments.get(request.id)
        return [] if record is None else [record]

    async def _release(self, endpoint: str) -> bool | None:
        """None: it is gone already."""
        async with self._alone_with(endpoint):
            record = self._attachments.get(endpoint)
            return None if record is None else await self._releaser.release(record, "asked for")

    # the steps

    def _require_ready(self) -> None:
        if self._lifeline.is_disputed:
            self._lifeline.require_open()
        if self._source.mode() is not Mode.LIVE:
            doubt = self._source.doubt()
            if doubt is not None:
                raise doubt.error()
            raise self._store_away("since it started")
        self._lifeline.require_open()
        stale_since = self._view.stale_since
        if stale_since is not None and self._time.monotonic() - stale_since > STALE_S:
            raise self._store_away(f"for {self._time.monotonic() - stale_since:.0f} s")

    def _store_away(self, how_long: str) -> KvnetError:
        if self._settings.uses_gateway:
            return ControllerUnreachable(
                f"this worker has not heard from the controller at {self._settings.controller} {how_long}",
                fix="start the controller, or the worker with the right --controller",
            )
        return StoreUnavailable(
            f"this worker has not heard from the store {how_long}",
            fix="bring the store back, or start the worker with the right --store",
        )

    def _intent(self, endpoint_id: str, request: AttachRequest, namespace: Namespace) -> Record:
        """No await between the look at the other records and this one's place among them."""
        there = [record for record in self._attachments if record.identity == namespace.identity]
        for record in there:
            if record.phase is not Phase.DETACHING and record.name == request.name and self._is_on(record, request):
                raise AlreadyAttached(
                    f"{request.name} is attached to {request.network} in {namespace.path} already, "
                    f"as {record.interface}",
                    fix=f"use it, or take it away first: kvnet detach --id {record.endpoint}",
                    context={"endpoint": record.endpoint, "interface": record.interface},
                )
        record = Record(
            endpoint=endpoint_id,
            network=request.network,
            name=request.name,
            netns=namespace.path,
            interface="",
            phase=Phase.ATTACHING,
            since=self._time.now(),
            identity=namespace.identity,
            boot_id=self._boot_id(),
            order=order_for(namespace.identity, list(self._attachments)),
            kind=UNKNOWN,
        )
        network = self._view.network_named(request.network)
        if network is not None or request.interface:
            record = self._placed(record, request, network, namespace)
        return record

    def _placed(self, record: Record, request: AttachRequest, network: Network | None, namespace: Namespace) -> Record:
        """With its interface chosen, and what that is as far as the network is known. No await before it is kept."""
        prefix = network.interface_prefix if network is not None else ""
        interface = record.interface or interface_for(
            record, request.interface, prefix, namespace, list(self._attachments)
        )
        return replace(record, interface=interface, kind=record.kind if network is None else _kind(network))

    def _is_on(self, record: Record, request: AttachRequest) -> bool:
        return request.network in (record.network, record.network_id, record.answer.get("network_name"))

    def _is_unfinished(self, former: Record, request: AttachRequest) -> bool:
        """The same attach failed before and nobody knows what came of it: it may simply be done again."""
        is_open = former.phase is Phase.DETACHING and not former.is_certain
        return is_open and (former.network, former.name) == (request.network, request.name)

    async def _create(
        self, record: Record, request: AttachRequest, stopwatch: Stopwatch, *, is_repeated: bool
    ) -> dict[str, Any]:
        created = False
        try:
            async with asyncio.timeout(self._settings.timing.attach_s + request.wait):
                body = request.body(record.endpoint, self._settings.host)
                for attempt in range(1, PORT_ATTEMPTS + 1):
                    endpoint = await self._controller.create_endpoint(request.network, body, wait_s=request.wait)
                    created = True
                    record = replace(record, network_id=endpoint["network"], answer=cast("dict[str, Any]", endpoint))
                    self._attachments.keep(record)
                    is_last = request.chooses_ports or attempt == PORT_ATTEMPTS
                    if await self._has_its_ports(record, endpoint, is_last=is_last):
                        break
                stopwatch.lap("controller")
                record = await self._until_built(record, request, endpoint)
                stopwatch.lap("kernel")
            record = replace(record, phase=Phase.ATTACHED, since=self._time.now())
            self._attachments.keep(record)
        except TimeoutError as error:
            await self._undo(record, is_certain=created)
            raise _too_slow(record, self._settings.timing.attach_s, created=created) from error
        except KvnetError as error:
            if created or is_repeated or _may_have_been_written(error):
                await self._undo(record, is_certain=created)
            else:
                self._attachments.forget(record.endpoint)
            raise
        except asyncio.CancelledError:
            self._releaser.order(replace(record, is_certain=created), "interrupted")
            raise
        self._log.info("attached", endpoint=record.endpoint, network=record.network, interface=record.interface)
        return _answer(record, stopwatch)

    async def _has_its_ports(self, record: Record, endpoint: Endpoint, *, is_last: bool) -> bool:
        """Whether no program has them; else, but for the last time, the endpoint is gone and another may be asked for.

        Raises:
            PortTaken: the last time.
        """
        ports = published(endpoint)
        if not ports:
            return True
        versions = sorted({ip_address(text).version for text in endpoint["addresses"]})
        there = await self._listeners.first(ports, versions)
        if there is None:
            return True
        if is_last:
            raise PortTaken(
                f"{there}, so it cannot be published for {record.name}",
                fix="stop that program, or publish another port or on another address",
                context={"host": self._settings.host, "pid": there.pid, "program": there.program},
            )
        self._log.info("port-taken", endpoint=record.endpoint, detail=str(there))
        with contextlib.suppress(NotFound):
            await self._controller.delete_endpoint(record.network_id, record.endpoint)
        return False

    async def _until_built(self, record: Record, request: AttachRequest, endpoint: Endpoint) -> Record:
        """The record with its interface's name and kind."""
        with self._view.pinned(record.network_id):
            await self._reconciler.until(record.network_id, endpoint["version"])
            if record.kind == UNKNOWN:
                record = await self._place(record, request)
                after = self._reconciler.number
                self._reconciler.touch([record.network_id], at_once=True)
                await self._reconciler.until(record.network_id, endpoint["version"], after=after)
            tables = self._view.tables(record.network_id)
            if tables is None or record.endpoint not in tables.endpoints.items:
                raise NotFound(f"endpoint {record.endpoint} was removed while it was attached", fix="attach it again")
            if record.endpoint in self._attachments.lost:
                raise NotFound(f"the namespace {record.netns} went away while it was attached")
            if not self._reconciler.has_link(record.network_id, record.device):
                why = "; ".join(self._reconciler.problems(record.network_id)) or "it is not in the plan"
                raise KernelRefused(f"the interface of {record.name} cannot be built: {why}", fix="see 'kvnet status'")
        return record

    async def _place(self, record: Record, request: AttachRequest) -> Record:
        """The first of its network on this host: only now the network is known, and so what interfaces are called."""
        namespace = await self._namespaces.look(record.netns)
        if namespace.identity != record.identity:
            raise NotFound(f"the namespace {record.netns} went away while it was attached")
        tables = self._view.tables(record.network_id)
        network = tables.network if tables is not None else None
        if network is None:
            raise NotFound(f"network {record.network} was removed while {record.name} was attached to it")
        record = self._placed(record, request, network, namespace)
        self._attachments.keep(record)
        return record

    async def _undo(self, record: Record, *, is_certain: bool) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timing.attach_s):
                await self._releaser.release(replace(record, is_certain=is_certain), "the attach failed")

    async def _again(self, record: Record, request: AttachRequest, stopwatch: Stopwatch) -> dict[str, Any]:
        """The same request again gets the same answer."""
        if record.phase is not Phase.ATTACHED:
            raise IdTaken(
                f"endpoint {record.endpoint} is being taken away",
                fix="repeat it in a few seconds, or choose another id",
            )
        path = await self._path_of(request.netns)
        same = (record.name, record.netns) == (request.name, path) and self._is_on(record, request)
        if not same or request.interface not in ("", record.interface):
            raise IdTaken(
                f"{record.endpoint} is {record.name} on {record.network}, {record.interface} in {record.netns}",
                fix="choose another id, or leave it out",
            )
        return _answer(record, stopwatch)

    async def _path_of(self, netns: str) -> str:
        """The path as it is recorded; of a namespace that is gone, its name has to do."""
        if "/" in netns:
            return netns
        try:
            return (await self._namespaces.look(netns)).path
        except NotFound:
            return netns

    @contextlib.asynccontextmanager
    async def _alone_with(self, endpoint_id: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(endpoint_id, (asyncio.Lock(), 0))
        self._locks[endpoint_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[endpoint_id]
            if users == 1:
                del self._locks[endpoint_id]
            else:
                self._locks[endpoint_id] = (lock, users - 1)


def published(endpoint: Endpoint) -> list[PublishedPort]:
    """The host ports that the controller gave it."""
    found = []
    for port in endpoint.get("ports") or ():
        at = port.get("host_address")
        address = ip_address(at) if at else None
        if address is not None and address.is_unspecified:
            address = None
        found.append(PublishedPort(port["port"], port.get("protocol", "tcp"), port.get("host_port"), address))
    return found


def _kind(network: Network) -> str:
    is_inside = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN
    return MACVLAN if is_inside else VETH


def _fits(record: Record, request: DetachRequest, path: str) -> bool:
    if request.id and record.endpoint != request.id:
        return False
    if request.name and record.name != request.name:
        return False
    if path and record.netns != path and not (("/" not in path) and record.netns.endswith(f"/{path}")):
        return False
    networks = (record.network, record.network_id, record.answer.get("network_name"))
    return not request.network or request.network in networks


def _may_have_been_written(error: KvnetError) -> bool:
    if isinstance(error, (ControllerUnreachable, OutcomeUnknown)):
        return True
    return error.status >= 500 and error.code not in NOT_WRITTEN


def _too_slow(record: Record, timeout_s: float, *, created: bool) -> KvnetError:
    if created:
        return KernelRefused(
            f"the interface of {record.name} was not ready within {timeout_s:g} s, so the attach was undone",
            fix="'kvnet status' on this host shows what it waits for",
        )
    return ControllerUnreachable(
        f"the controller did not answer within {timeout_s:g} s, so the attach was undone",
        fix="see the controller's log",
    )


def _answer(record: Record, stopwatch: Stopwatch) -> dict[str, Any]:
    return {
        "endpoint": dict(record.answer),
        "interface": record.interface,
        "netns": record.netns,
        "timing_ms": stopwatch.total(),
    }
