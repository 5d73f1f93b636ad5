"""Attach and detach: from a request to an interface that works, and back.

An attach leaves its intent on disk before the controller hears of it; whatever interrupts it, the next start knows what
to undo. When it returns, the interface is up and configured and this host's kernel knows every peer. When it fails,
nothing of it is left, or what is left is queued to go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from kvnet.errors import AlreadyAttached, IdTaken, KvnetError, NotFound
from kvnet.model import Network
from worker.alone import Turns
from worker.attachments import UNKNOWN, Attachments, Phase, Record
from worker.building import Building, kind_of
from worker.log import Log
from worker.making import Maker, Making
from worker.metrics.figures import Figures
from worker.metrics.measured import timed
from worker.placing import interface_for, order_for
from worker.ports import Namespace, Namespaces, Time
from worker.readiness import Readiness
from worker.release import Releaser
from worker.requests import AttachRequest, DetachRequest
from worker.settings import Settings
from worker.together import all_of
from worker.view import View


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
    """One per worker. Requests about the same endpoint id wait for each other.

    `until_told`: returns when the namespaces that are attached now know where to ask for names; never fails.
    """

    def __init__(
        self,
        settings: Settings,
        namespaces: Namespaces,
        attachments: Attachments,
        view: View,
        releaser: Releaser,
        readiness: Readiness,
        maker: Maker,
        building: Building,
        turns: Turns,
        *,
        new_id: Callable[[], str],
        boot_id: Callable[[], str],
        until_told: Callable[[], Awaitable[None]],
        figures: Figures,
        time: Time,
        log: Log,
    ) -> None:
        self._until_told = until_told
        self._figures = figures
        self._settings = settings
        self._namespaces = namespaces
        self._attachments = attachments
        self._view = view
        self._releaser = releaser
        self._readiness = readiness
        self._maker = maker
        self._building = building
        self._turns = turns
        self._new_id = new_id
        self._boot_id = boot_id
        self._time = time
        self._log = log

    async def attach(self, request: AttachRequest) -> dict[str, Any]:
        """
        Raises:
            HostFenced, StoreUnavailable, ControllerUnreachable: not now; nothing was changed.
            AlreadyAttached, IdTaken: this namespace, or this id, has an attachment.
            KvnetError: what the controller, the kernel or the namespace said; nothing is left.
        """
        with timed(self._figures, "attach", request.runtime):
            try:
                return await self._attach(request)
            except KvnetError as error:
                self._log.info(
                    "attach-failed", network=request.network, name=request.name, code=error.code, detail=error.detail
                )
                raise

    async def _attach(self, request: AttachRequest) -> dict[str, Any]:
        endpoint_id = request.id or self._new_id()
        async with self._turns.alone_with(endpoint_id):
            stopwatch = Stopwatch.start(self._time)
            former = self._attachments.get(endpoint_id)
            if former is not None and not self._is_unfinished(former, request):
                return await self._again(former, request, stopwatch)
            self._readiness.require()
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
        await self._until_told()
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
        async with self._turns.alone_with(endpoint):
            record = self._attachments.get(endpoint)
            if record is None:
                return None
            with timed(self._figures, "detach", record.runtime):
                return await self._releaser.release(record, "asked for")

    # the steps

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
            runtime=request.runtime,
            external=request.external,
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
        return replace(record, interface=interface, kind=record.kind if network is None else kind_of(network))

    def _is_on(self, record: Record, request: AttachRequest) -> bool:
        return request.network in (record.network, record.network_id, record.answer.get("network_name"))

    def _is_unfinished(self, former: Record, request: AttachRequest) -> bool:
        """The same attach failed before and nobody knows what came of it: it may simply be done again."""
        is_open = former.phase is Phase.DETACHING and not former.is_certain
        return is_open and (former.network, former.name) == (request.network, request.name)

    async def _create(
        self, record: Record, request: AttachRequest, stopwatch: Stopwatch, *, is_repeated: bool
    ) -> dict[str, Any]:
        body = request.body(record.endpoint, self._settings.host)
        async with self._maker.undone_unless_done(record, is_repeated=is_repeated, wait_s=request.wait) as making:
            making.kept = request.kept
            await self._maker.create(
                making, request.network, body, chooses_ports=request.chooses_ports, wait_s=request.wait
            )
            stopwatch.lap("controller")
            await self._until_built(making, request)
            stopwatch.lap("kernel")
            record = replace(making.record, phase=Phase.ATTACHED, since=self._time.now())
            self._attachments.keep(record)
        self._log.info("attached", endpoint=record.endpoint, network=record.network, interface=record.interface)
        await self._until_told()
        stopwatch.lap("names")
        return _answer(record, stopwatch)

    async def _until_built(self, making: Making, request: AttachRequest) -> None:
        """The record gets its interface's name and kind, if it has none yet."""
        with self._view.pinned(making.record.network_id):
            await self._building.until_built(making.record)
            if making.record.kind == UNKNOWN:
                making.record = await self._place(making.record, request)
            if not self._building.is_there(making.record):  # all was built, by passes that knew nothing of it yet
                await self._building.until_built_anew(making.record)
            self._building.require(making.record)

    async def _place(self, record: Record, request: AttachRequest) -> Record:
        """The first of its network on this host: only now the network is known, and so what interfaces are called."""
        namespace = await self._namespaces.look(record.netns)
        if namespace.identity != record.identity:
            raise NotFound(f"the namespace {record.netns} went away while it was attached")
        record = self._placed(record, request, await self._building.until_known(record), namespace)
        self._attachments.keep(record)
        return record

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


def _fits(record: Record, request: DetachRequest, path: str) -> bool:
    if request.id and record.endpoint != request.id:
        return False
    if request.name and record.name != request.name:
        return False
    if path and record.netns != path and not (("/" not in path) and record.netns.endswith(f"/{path}")):
        return False
    networks = (record.network, record.network_id, record.answer.get("network_name"))
    return not request.network or request.network in networks


def _answer(record: Record, stopwatch: Stopwatch) -> dict[str, Any]:
    return {
        "endpoint": dict(record.answer),
        "interface": record.interface,
        "netns": record.netns,
        "timing_ms": stopwatch.total(),
    }
