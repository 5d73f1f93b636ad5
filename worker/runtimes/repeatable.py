"""Attachments for runtimes that start a program for each: the id follows from how the runtime calls the attachment.

So a call that is repeated after a lost answer, or by a program that knows nothing any more, means the same endpoint.
What is left of an earlier life of the same container is taken away before it is attached anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kvnet.errors import (
    AlreadyAttached,
    Conflicting,
    ControllerUnreachable,
    Forbidden,
    Invalid,
    KernelRefused,
    KvnetError,
    NamespaceNotFound,
    NameTaken,
    NotFound,
)
from kvnet.model import Driver
from kvnet.rules import NAME
from kvnet.wire import Endpoint, NetworkBody
from worker.attach import Attacher
from worker.attachments import Attachments, Phase, Record
from worker.kernel.look import SeenInterface
from worker.ports import Backoff, Controller, Namespaces, Time
from worker.requests import AttachRequest, DetachRequest
from worker.view import View

# Of an earlier life of a container, while another release of it is under way.
RELEASE_ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 6, 0.05, 0.5
ID_DIGITS = 16
DEFAULT_WAY = "0.0.0.0/0"
GRANT = (
    "a host that makes or looks up networks for its runtime joins with that right: "
    "'kvnet host join-token HOST --docker' and, there, 'kvnet worker join --replace'; "
    "containers on networks that are there need none by CNI"
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looks:
    """How interfaces are read: in a namespace, and on the host. Both block; None: it is not there."""

    inside: Callable[[str, str], SeenInterface | None]
    here: Callable[[str], SeenInterface | None]


@dataclass(frozen=True, slots=True)
class Attached:
    """`outer`: the half on the host, where there is one. All of it as it was just read.

    `is_through_us`: the gateways are this host's own, not those of a physical network.
    """

    record: Record
    inner: SeenInterface
    outer: SeenInterface | None
    is_through_us: bool = True

    def server(self, address: str) -> str:
        """Where names are answered, if the workload gets there over this interface; else ""."""
        ways = {route.destination for route in self.inner.routes}
        return address if f"{address}/32" in ways or (self.is_through_us and DEFAULT_WAY in ways) else ""


class Repeatable:
    def __init__(
        self,
        host: str,
        attacher: Attacher,
        controller: Controller,
        namespaces: Namespaces,
        attachments: Attachments,
        view: View,
        looks: Looks,
        time: Time,
        new_network_id: Callable[[], str],
    ) -> None:
        self._host = host
        self._attacher = attacher
        self._controller = controller
        self._namespaces = namespaces
        self._attachments = attachments
        self._view = view
        self._looks = looks
        self._time = time
        self._new_network_id = new_network_id

    def endpoint_id(self, external: str) -> str:
        """Another one on every host: what a runtime calls a container says nothing beyond its host."""
        return hashlib.sha256(f"{self._host}/{external}".encode()).hexdigest()[:ID_DIGITS]

    def record(self, external: str) -> Record | None:
        return self._attachments.get(self.endpoint_id(external))

    def records(self, runtime: str) -> list[Record]:
        return [record for record in self._attachments if record.runtime == runtime]

    def endpoint_is_stored(self, record: Record) -> bool:
        """As far as this host hears of the store; what it does not know, it does not deny."""
        tables = self._view.tables(record.network_id)
        return tables is None or not tables.is_ready or record.endpoint in tables.endpoints.items

    async def attach(self, request: AttachRequest, create: NetworkBody | None = None) -> Attached:
        """`request.id` is `endpoint_id` of its `external`; `create`: the network, if there is none yet.

        Raises:
            NamespaceNotFound: there is no such namespace.
            Conflicting: another namespace has this attachment, or the interface's name is taken.
            KvnetError: as `Attacher.attach`; nothing is left.
        """
        request = await self._after_earlier_lives(request)
        try:
            await self._attach(request)
        except NamespaceNotFound:
            raise
        except NotFound:
            if create is None or self._view.network_named(request.network) is not None:
                raise
            await self._create(create)
            await self._attach(request)
        record = self._attachments.get(request.id)
        inner = None if record is None else await self.look(record)
        if record is None or inner is None:
            await self.detach(request.id)
            raise KernelRefused(f"{request.interface} vanished from {request.netns} while it was attached")
        network = self._view.network_named(record.network_id)
        is_through_us = network is not None and network.driver is not Driver.TRANSPARENT
        return Attached(record, inner, await self.look_outside(record), is_through_us)

    async def detach(self, endpoint_id: str) -> bool:
        """False: the interface is gone, the endpoint goes as soon as the controller is back.

        An endpoint that the store has for this host under the id goes even if nothing is known of it here any more.
        """
        answer = await self._attacher.detach(DetachRequest(id=endpoint_id))
        network = self._view.local.items.get(endpoint_id)
        if not answer["detached"] and not answer["queued"] and network is not None:
            try:
                await self._controller.delete_endpoint(network, endpoint_id)
            except NotFound:
                return True
        return not answer["queued"]

    async def look(self, record: Record) -> SeenInterface | None:
        return await asyncio.to_thread(self._looks.inside, record.netns, record.interface)

    async def is_in(self, record: Record, netns: str) -> bool:
        """Whether that path is the attachment's namespace, however it is called."""
        return await self._namespaces.identity(netns) == record.identity

    async def look_outside(self, record: Record) -> SeenInterface | None:
        return None if record.is_inside else await asyncio.to_thread(self._looks.here, record.device)

    async def _after_earlier_lives(self, request: AttachRequest) -> AttachRequest:
        """The request, as it fits what is there: the same again, or something new."""
        former = self._attachments.get(request.id)
        if former is None or not former.is_certain:
            return request  # what nobody knows the fate of is simply done again
        is_there = former.phase is Phase.ATTACHED
        if not is_there or await self._namespaces.identity(former.netns) != former.identity:
            await self._until_released(former)
            return request
        namespace = await self._namespaces.look(request.netns)
        if namespace.identity != former.identity:
            raise Conflicting(
                f"{former.name} has this interface in another namespace, {former.netns}", fix="take that away first"
            )
        if former.interface not in namespace.interfaces:
            raise Conflicting(f"{former.interface} was taken out of {former.netns} by somebody", fix="detach it first")
        _require_same(former, request)
        return replace(request, netns=former.netns, name=former.name)

    async def _until_released(self, former: Record) -> None:
        """
        Raises:
            ControllerUnreachable: it stays queued.
        """
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        for _ in range(RELEASE_ATTEMPTS):
            if await self.detach(former.endpoint):
                return
            await self._time.sleep(pauses.next(self._time))
        raise ControllerUnreachable(
            f"what an earlier start of {former.name} left cannot be released yet", fix="repeat it in a moment"
        )

    async def _attach(self, request: AttachRequest) -> None:
        try:
            await self._attacher.attach(request)
        except AlreadyAttached:
            # A container may be in one network with several interfaces: each needs a name of its own.
            name = f"{request.name}-{request.interface}"
            if not NAME.match(name):
                raise
            aliases = tuple(dict.fromkeys([*request.aliases, request.name]))
            await self._attacher.attach(replace(request, name=name, aliases=aliases))

    async def _create(self, body: NetworkBody) -> None:
        """Of hosts that do it at once one makes it; the others have it, too.

        Raises:
            Forbidden: this host may not make networks.
        """
        with contextlib.suppress(NameTaken):
            await made_by_the_host(self._controller.create_network({**body, "id": self._new_network_id()}))


async def made_by_the_host(making: Awaitable[T]) -> T:
    """Says how a host gets the right that it lacks.

    Raises:
        Forbidden
    """
    try:
        return await making
    except Forbidden as error:
        raise Forbidden(f"{error.detail}: make networks for a container runtime", fix=GRANT) from error


def _require_same(former: Record, request: AttachRequest) -> None:
    """Whoever asks for what the attachment does not have is not answered as if it had.

    Raises:
        Conflicting
    """
    endpoint = endpoint_of(former)
    there = {*endpoint["addresses"], endpoint["mac"]}
    for wanted in filter(None, (request.address, request.address6, request.mac)):
        if wanted not in there:
            raise Conflicting(
                f"{former.name} is attached already, with {', '.join(endpoint['addresses'])}, not {wanted}",
                fix="take that away first",
            )


def kept_of(message: Mapping[str, Any]) -> frozenset[int]:
    """
    Raises:
        Invalid: not a list of sockets.
    """
    given = message.get("kept", [])
    if not isinstance(given, list) or not all(type(one) is int and one > 0 for one in given):
        raise Invalid.field("/kept", "not a list of sockets' numbers")
    return frozenset(given)


def endpoint_of(record: Record) -> Endpoint:
    return record.answer  # type: ignore[return-value]


def first_error(errors: list[KvnetError]) -> str:
    return f"{errors[0].detail}{f' (and {len(errors) - 1} more)' if len(errors) > 1 else ''}"
