"""What the tests of the use cases share: a clock that stands still, a store that can fail at any call, shorthands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Self, TypeVar

from backends.store import Batch, Check, Entry, Put, Revision, Session, Snapshot, Store, Unavailable, Unknown, Write
from controller.cluster import Cluster
from controller.requests import Caller, EndpointRequest, NetworkRequest, SubnetRequest
from controller.settings import Clock, Settings
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.model import Alive, Host, Network

T = TypeVar("T")

ME = Caller("tester", "request-1", "test")
DEADLINE_S = 10.0


class FakeTime:
    """Stands still until it is told to move; sleeping takes no time at all."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.value = now
        self.passed = 0.0

    def now(self) -> float:
        return self.value

    def pass_by(self, seconds: float) -> None:
        self.value += seconds
        self.passed += seconds

    def monotonic(self) -> float:
        return self.passed

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.value += seconds

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.sleep, self.monotonic)


class Killed(Exception):
    """The process died here."""


@dataclass
class Fault:
    """At call number `at`: `kill` the process or lose the answer, `before` the call took effect or after it."""

    at: int
    kill: bool = True
    before: bool = True


@dataclass
class FailingStore:
    """A store client that fails once, at one exact call; a killed one never answers again."""

    inner: Store
    fault: Fault | None = None
    calls: int = 0
    is_dead: bool = False
    log: list[str] = field(default_factory=list)

    async def get(self, key: str) -> Entry | None:
        return await self._call(lambda: self.inner.get(key), f"get {key}", is_write=False)

    async def list(self, prefix: str) -> Snapshot:
        return await self._call(lambda: self.inner.list(prefix), f"list {prefix}", is_write=False)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        what = "commit " + " ".join(write.key for write in writes)
        return await self._call(lambda: self.inner.commit(checks, writes), what, is_write=True)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        async for batch in self.inner.watch(prefix, after):
            if self.is_dead:
                raise Killed
            yield batch

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        return await self.inner.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self.inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Callable[[], Awaitable[T]], what: str, *, is_write: bool) -> T:
        if self.is_dead:
            raise Killed
        self.calls += 1
        self.log.append(what)
        fault = self.fault
        if fault is None or self.calls != fault.at:
            return await call()
        if fault.before or not is_write:
            self._fail(fault, is_write)
        result = await call()
        self._fail(fault, is_write)
        return result

    def _fail(self, fault: Fault, is_write: bool) -> None:
        self.log.append("FAULT")
        if fault.kill:
            self.is_dead = True
            raise Killed
        raise Unknown("the answer was lost") if is_write else Unavailable("no answer")


def opened(
    store: Store, time: FakeTime | None = None, seed: int = 1, **settings: object
) -> AbstractAsyncContextManager[Cluster]:
    """A cluster without upkeep of its own: a test sweeps when it wants to."""
    clock = (time or FakeTime()).clock
    given = {"upkeep": False, "clock": clock, "cool_down_s": 60.0, **settings}
    return Cluster.open(store, Settings(**given), random.Random(seed))  # type: ignore[arg-type]


async def add_host(
    store: Store, name: str, *, alive: bool = True, underlay: str = "192.0.2.1", segment: str = ""
) -> None:
    host = Host(name, ip_address(underlay), 1500, segment=ip_network(segment) if segment else None)
    writes = [Put(keys.host(name), codec.encode(host))]
    if alive:
        writes.append(Put(keys.alive(name), codec.encode(Alive(name, "first", 0.0))))
    await store.commit([], writes)


async def add_network(store: Store, network: Network) -> None:
    """As the controller would have made it."""
    owner = network.id.encode()
    writes = [Put(keys.name(network.name), owner), Put(keys.network(network.id), codec.encode(network))]
    writes += [Put(keys.subnet(s.cidr), codec.encode(SubnetClaim(network.id))) for s in network.subnets]
    await store.commit([], writes)


async def eventually(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if is_true():
                return
            await asyncio.sleep(0)


def network(name: str = "my-net", *cidrs: str, **more: object) -> NetworkRequest:
    return NetworkRequest(name, subnets=tuple(SubnetRequest(cidr) for cidr in cidrs), **more)  # type: ignore[arg-type]


def endpoint(name: str = "c1", host: str = "h1", **more: object) -> EndpointRequest:
    return EndpointRequest(host, name, **more)  # type: ignore[arg-type]
