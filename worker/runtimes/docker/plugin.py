"""Docker's calls by name: checked, bounded in time, counted, and answered as Docker reads answers.

Docker itself would wait for ever, and forgets an endpoint or network whatever the answer to its removal is. So every
call has a deadline, teardown always succeeds (what could not be done is the worker's to do later), and everything else
says in one line why not, for that line is all that a user of `docker` sees. Nothing here ever calls Docker.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvnet.errors import Invalid, KvnetError
from kvnet.model import Address
from kvnet.request import asked_by
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.departures import Departures
from worker.runtimes.docker.endpoint_driver import EndpointDriver
from worker.runtimes.docker.http import HttpServer, Reply, Request
from worker.runtimes.docker.ipam_driver import IpamDriver
from worker.runtimes.docker.ledger import Ledger, OwnCalls
from worker.runtimes.docker.members import Members, failure, parsed, success
from worker.runtimes.docker.network_driver import NetworkDriver
from worker.runtimes.docker.patience import Patience
from worker.runtimes.docker.pools import Pools
from worker.runtimes.docker.ports import Catalogue, Workloads
from worker.runtimes.docker.wire import AddressRequest, EndpointRequest, NetworkRequest, PoolRequest, port_map
from worker.runtimes.docker.words import Mistyped, words_of
from worker.settings import Settings

ANSWER_S = 7.0
TEARDOWN_S = 5.0  # removing a container takes three of these, one after the other
KEPT_TIMES = 512
OF_A_START = frozenset(
    {
        "IpamDriver.RequestAddress",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
        "NetworkDriver.ProgramExternalConnectivity",
    }
)
OK, BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, FAULT = 200, 400, 404, 405, 500

Handle = Callable[[Any], Awaitable[Mapping[str, Any]]]


class Late(KvnetError):
    code = "docker-call-late"
    status = 504
    title = "It took too long"


@dataclass(frozen=True, slots=True)
class Call:
    """`parse` None: it has no arguments, and whatever comes with it is not looked at.

    `answers_repeats`: also with no content, which is a repeat of a call whose connection broke.
    """

    handle: Handle
    parse: Callable[[Members], Any] | None = None
    is_teardown: bool = False
    answers_repeats: bool = False


OnCall = Callable[[str, float, bool], None]


@dataclass(slots=True)
class Tally:
    """How often a call came, and how long it took of late."""

    count: int = 0
    failed: int = 0
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))

    def shown(self) -> Mapping[str, Any]:
        times = sorted(self.took_s)
        share = {f"p{part}_ms": round(times[len(times) * part // 100] * 1000, 3) for part in (50, 99) if times}
        return {"count": self.count, "failed": self.failed, **share}


class DockerPlugin:
    """`listening`: where Docker calls; whoever opened it closes it. `underlay`: this host's address, once known.

    `on_failed_start`: a container will not start, because of what Docker is about to be told.
    `on_call`: is told of every call, how long it took and whether it failed.
    """

    def __init__(
        self,
        listening: socket.socket,
        settings: Settings,
        workloads: Workloads,
        catalogue: Catalogue,
        controller: Controller,
        ledger: Ledger,
        own: OwnCalls,
        *,
        underlay: Callable[[], Address | None],
        on_failed_start: Callable[[], None] = lambda: None,
        on_call: OnCall = lambda _call, _seconds, _is_failed: None,
        time: Time,
        log: Log,
    ) -> None:
        self._server = HttpServer(listening, self.answer, log=log)
        self._on_failed_start = on_failed_start
        self._on_call = on_call
        self._time = time
        self._log = log
        self._tallies: dict[str, Tally] = {}
        self._going: set[asyncio.Task[Any]] = set()
        self._departures = Departures(workloads, log)
        patience = Patience(catalogue, time)
        pools = Pools(settings.host, catalogue, ledger, controller, own, patience, time=time, log=log)
        self._networks = NetworkDriver(
            settings, catalogue, ledger, controller, own, self._departures, time=time, log=log
        )
        ipam = IpamDriver(workloads, catalogue, ledger, pools, self._departures, patience)
        endpoints = EndpointDriver(workloads, ledger, self._departures, patience, settings.dns, underlay)
        self._calls = {
            "Plugin.Activate": Call(_activate),
            **_network_calls(self._networks, endpoints),
            **_ipam_calls(ipam),
        }

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._server.run()
        finally:
            await self._departures.close()
            for task in self._going:
                task.cancel()
            await asyncio.gather(*self._going, return_exceptions=True)

    async def network_gone(self, docker: str) -> None:
        await self._networks.gone(docker)

    async def until_departed(self) -> None:
        """When what Docker was told is gone is gone, or takes too long."""
        await self._departures.over()

    def status(self) -> Mapping[str, Any]:
        return {"calls": {name: tally.shown() for name, tally in sorted(self._tallies.items())}}

    async def answer(self, request: Request) -> Reply:
        name = request.path.partition("?")[0].removeprefix("/")
        call = self._calls.get(name)
        if call is None:
            # Docker takes a 404 for "not implemented", and goes on where that is no matter.
            return Reply(NOT_FOUND, failure(f"kvnet has no call {name[:80]!r}"))
        if request.verb != "POST":
            return Reply(NOT_ALLOWED, failure(f"{name} is called by POST"))
        with asked_by(f"{self._time.rng.getrandbits(64):016x}"):
            return await self._answer(name, call, request.body)

    async def _answer(self, name: str, call: Call, body: bytes) -> Reply:
        tally = self._tallies.setdefault(name, Tally())
        began = self._time.monotonic()
        status, error, answer = await self._outcome(name, call, body)
        took_s = self._time.monotonic() - began
        tally.count += 1
        tally.took_s.append(took_s)
        self._on_call(name, took_s, error is not None)
        if error is None:
            return Reply(status, success(answer))
        tally.failed += 1
        text = words_of(error)
        self._log.warning(
            "docker-call-failed", call=name, code=error.code, detail=text, duration_ms=round(took_s * 1000, 1)
        )
        if name in OF_A_START:
            self._on_failed_start()
        if call.is_teardown and status == OK:
            return Reply(OK, success({}))
        return Reply(status, failure(text))

    async def _outcome(self, name: str, call: Call, body: bytes) -> tuple[int, KvnetError | None, Mapping[str, Any]]:
        parse = None if call.answers_repeats and not body else call.parse
        try:
            value = parse(parsed(body)) if parse is not None else None
        except KvnetError as error:
            is_nonsense = isinstance(error, Invalid) and not isinstance(error, Mistyped)
            return BAD_REQUEST if is_nonsense else OK, error, {}
        try:
            return OK, None, await self._in_time(name, call, value)
        except KvnetError as error:
            return OK, error, {}
        except Exception as error:  # noqa: BLE001 - a fault in one call must not end the plugin
            self._log.error("docker-call-fault", call=name, detail=f"{type(error).__name__}: {error}")
            fault = KvnetError(f"kvnet's worker failed: {type(error).__name__}", fix="see its log")
            return OK if call.is_teardown else FAULT, fault, {}

    async def _in_time(self, name: str, call: Call, value: Any) -> Mapping[str, Any]:
        """What is late is undone meanwhile, but for a teardown, which goes on."""
        limit_s = TEARDOWN_S if call.is_teardown else ANSWER_S
        task = asyncio.ensure_future(call.handle(value))
        try:
            done, _ = await asyncio.wait({task}, timeout=limit_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        self._going.add(task)
        task.add_done_callback(lambda ended: self._ended(name, ended))
        if not call.is_teardown:
            task.cancel()
        raise Late(
            f"the store or kvnet's controller did not answer in time ({limit_s:g} s)",
            fix="'kvnet status' on this host shows what it waits for",
        )

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        self._going.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.warning("docker-call-failed-later", call=name, detail=f"{type(error).__name__}: {error}")


async def _activate(_: Any) -> Mapping[str, Any]:
    return {"Implements": ["NetworkDriver", "IpamDriver"]}


def _network_calls(networks: NetworkDriver, endpoints: EndpointDriver) -> Mapping[str, Call]:
    endpoint = EndpointRequest.of
    calls = {
        "GetCapabilities": Call(lambda _: networks.capabilities()),
        "AllocateNetwork": Call(lambda _: networks.allocate(), _nothing),
        "FreeNetwork": Call(lambda _: networks.allocate(), _nothing),
        "CreateNetwork": Call(networks.create, NetworkRequest.of),
        "DeleteNetwork": Call(networks.delete, lambda members: members.id("NetworkID"), is_teardown=True),
        "CreateEndpoint": Call(endpoints.create, endpoint),
        "EndpointOperInfo": Call(lambda _: endpoints.info(), endpoint, answers_repeats=True),
        "DeleteEndpoint": Call(endpoints.delete, endpoint, is_teardown=True),
        "Join": Call(endpoints.join, endpoint),
        "Leave": Call(endpoints.leave, endpoint, is_teardown=True),
        "ProgramExternalConnectivity": Call(
            lambda asked: endpoints.publish(*asked), lambda members: (endpoint(members), port_map(members))
        ),
        "RevokeExternalConnectivity": Call(endpoints.withdraw, endpoint, is_teardown=True),
        "DiscoverNew": Call(_known, _nothing),
        "DiscoverDelete": Call(_known, _nothing),
    }
    return {f"NetworkDriver.{name}": call for name, call in calls.items()}


def _ipam_calls(ipam: IpamDriver) -> Mapping[str, Call]:
    calls = {
        "GetCapabilities": Call(lambda _: ipam.capabilities()),
        "GetDefaultAddressSpaces": Call(lambda _: ipam.address_spaces()),
        "RequestPool": Call(ipam.request_pool, PoolRequest.of),
        "ReleasePool": Call(ipam.release_pool, _pool, is_teardown=True),
        "RequestAddress": Call(ipam.request_address, AddressRequest.of),
        "ReleaseAddress": Call(
            lambda asked: ipam.release_address(*asked),
            lambda members: (_pool(members), members.address("Address")),
            is_teardown=True,
        ),
    }
    return {f"IpamDriver.{name}": call for name, call in calls.items()}


def _pool(members: Members) -> str:
    pool = members.cidr("PoolID")
    if not pool:
        raise members.wrong("PoolID", "is not a pool of kvnet's")
    return pool


def _nothing(_: Members) -> None:
    return None


async def _known(_: Any) -> Mapping[str, Any]:
    """Hosts find each other through the store."""
    return {}
