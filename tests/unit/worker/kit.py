"""A cluster in memory for the worker's tests: a mortal store and kernel, fake namespaces, real workers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, cast

from backends.memory import MemoryState, MemoryStore
from backends.store import (
    Batch,
    Check,
    Entry,
    Put,
    Session,
    Snapshot,
    Store,
    Unavailable,
    Write,
)
from datapath.fake import FakeFabric, FakeKernel
from datapath.fake_tables import OWN_NAMESPACE, Interface
from datapath.names import veth_name
from datapath.objects import EVERYTHING, ContainerSide, DeleteLink, Failure, HostState, Ip, Mac, Operation, Scope
from kvnet import codec, keys
from kvnet.errors import (
    KernelRefused,
    NamespaceNotFound,
    StateUnusable,
)
from kvnet.marks import Cluster
from kvnet.model import Address, Endpoint, Host, Network, PublishedPort
from kvnet.wire import EndpointBody
from tests.unit.worker.fake_controller import FakeController, overlay
from tests.unit.worker.life import EPOCH, NET, Killed, Life, Outages
from worker.agent import Worker
from worker.attach import Attacher
from worker.disk import StateDir
from worker.handover import Handover
from worker.kernel.inventory import HostAddress, Surroundings
from worker.log import Log
from worker.ports import Listener, Namespace, Time
from worker.requests import AttachRequest, DetachRequest
from worker.settings import Settings, Timing
from worker.underlay import Underlay


class MortalStore:
    """A client of the shared store, as one worker has it."""

    def __init__(self, inner: MemoryStore, life: Life, outages: Outages) -> None:
        self.inner = inner
        self.commits: list[tuple[str, ...]] = []
        self._life = life
        self._outages = outages

    def _enter(self) -> None:
        self._life.step()
        if self._outages.store:
            raise Unavailable("the store is away")

    async def get(self, key: str) -> Entry | None:
        self._enter()
        return await self.inner.get(key)

    async def list(self, prefix: str) -> Snapshot:
        self._enter()
        return await self.inner.list(prefix)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> int:
        self._enter()
        revision = await self.inner.commit(checks, writes)
        self.commits.append(tuple(write.key for write in writes))
        self._life.step()
        return revision

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        self._enter()
        async for batch in self.inner.watch(prefix, after):
            if self._outages.store:
                raise Unavailable("the store is away")
            if self._life.is_dead:
                raise Killed
            yield batch

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        self._enter()
        return await self.inner.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self.inner.close()


class FakeListeners:
    """`taken`: host ports that a program has."""

    def __init__(self) -> None:
        self.taken: set[int] = set()

    async def first(self, ports: Sequence[PublishedPort], versions: Sequence[int]) -> Listener | None:
        busy = (port for port in ports if port.host_port in self.taken)
        return next((Listener(port, IPv4Address(0), 4711, "nginx") for port in busy), None)


class FakeHost(FakeKernel):
    """A kernel with surroundings; several lives of a worker share it."""

    def __init__(self, name: str, underlay: Address) -> None:
        super().__init__(name, [underlay.packed])
        self.address = underlay
        self.addresses: list[Address] = [underlay]
        self.mtu = 1500
        self.listeners = FakeListeners()
        self.boot_id = "boot-1"
        self.reads = 0
        self.serials: dict[str, int] = {}
        self._serial = 0

    def add_namespace(self, path: str) -> None:
        super().add_namespace(path)
        self._serial += 1
        self.serials[path] = self._serial

    def waiting(self) -> set[str]:
        """Interfaces that wait on the host for their runtime."""
        return set(self.tables.namespaces.get(OWN_NAMESPACE, {}))

    def move(self, interface: str, path: str, name: str) -> None:
        """A runtime takes what waits on the host into a workload's namespace, under another name, and configures it."""
        found = self.tables.namespaces[OWN_NAMESPACE].pop(interface)
        side = replace(found.side, netns=path, interface=name, is_handed_over=False)
        self.tables.namespaces[path][name] = Interface(side, found.link)
        self._touch_device(found.link)

    def move_back(self, path: str, name: str, interface: str) -> None:
        """The same, when the workload leaves. One that is gone is no error for a runtime."""
        found = self.tables.namespaces[path].pop(name, None)
        if found is not None:
            side = replace(found.side, interface=interface, is_handed_over=True)
            self.tables.namespaces[OWN_NAMESPACE][interface] = Interface(side, found.link)
            self._touch_device(found.link)

    def side_of(self, path: str, name: str) -> ContainerSide:
        return self.tables.namespaces[path][name].side

    def state(self, network_id: str | None = None, *, firewall: bool = True) -> HostState:
        """As the real kernel's reader: one network's part tells the firewall too, if that is asked for."""
        found = super().state(network_id, firewall=firewall)
        return replace(found, firewall=self.tables.firewall if firewall else None)

    def reboot(self) -> None:
        """Nothing of the kernel's state survives."""
        fresh = FakeKernel(self.name, self.underlay)
        self.tables = fresh.tables
        self.serials.clear()
        self.boot_id += "+"


class MortalKernel:
    """The host's kernel, as one life of its worker has it."""

    def __init__(self, host: FakeHost, life: Life) -> None:
        self.host = host
        self.applied: list[Operation] = []
        self.refuses: Callable[[Operation], bool] = lambda _: False
        self._life = life

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        self._life.step()
        self.host.reads += 1
        return await self.host.read(scope, firewall=firewall)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        self._life.step()
        self.applied += operations
        refused = [Failure(operation, 5, "Input/output error") for operation in operations if self.refuses(operation)]
        failures = await self.host.apply([operation for operation in operations if not self.refuses(operation)])
        self._life.step()
        return refused + failures

    def hints(self) -> Any:
        return self.host.hints()

    async def has_namespace(self, path: str) -> bool:
        return await self.host.has_namespace(path)

    async def surroundings(self) -> Surroundings:
        places = tuple(HostAddress(address, 24, "eth0", self.host.mtu) for address in self.host.addresses)
        mtus = dict.fromkeys(self.host.addresses, self.host.mtu)
        return Surroundings((), mtus, "6.1", self.host.boot_id, places)

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        self._life.step()
        inside = self.host.tables.namespaces.get(netns)
        if inside is None:
            raise KernelRefused(f"{netns} is gone")
        return next((name for name, found in inside.items() if found.link == device and found.side.mac == mac), "")

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        self._life.step()
        namespaces = self.host.tables.namespaces
        places = [namespaces.get(path, {}) for path in (netns, OWN_NAMESPACE)]
        found = [one for place in places for one in place.values() if one.side.mac == mac]
        await self.host.apply([DeleteLink(self.host.tables.links[one.link]) for one in found])
        self._life.step()
        return bool(found)

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        self._life.step()
        found = self.host.tables.namespaces.get(netns, {}).get(interface)
        if found is None:
            raise KernelRefused(f"{interface} is gone")
        found.side = replace(found.side, routes=(*found.side.routes, (destination, prefix_length, b"")))
        self._life.step()

    async def close(self) -> None:
        return None


class FakeNamespaces:
    def __init__(self, host: FakeHost, life: Life) -> None:
        self._host = host
        self._life = life

    async def look(self, namespace: str) -> Namespace:
        self._life.step()
        path = namespace if "/" in namespace else f"/run/netns/{namespace}"
        identity = await self.identity(path)
        if not identity:
            raise NamespaceNotFound(f"{namespace!r} is not a network namespace")
        return Namespace(path, identity, frozenset({"lo", *self._host.tables.namespaces[path]}))

    async def identity(self, path: str) -> str:
        serial = self._host.serials.get(path) if path in self._host.tables.namespaces else None
        return "" if serial is None else f"{self._host.boot_id}:{serial}"


class MortalStateDir(StateDir):
    life: Life | None = None
    is_full = False

    def write(self, name: str, data: bytes, *, durable: bool, room: int = 0) -> None:
        if self.is_full:
            raise StateUnusable("no space left on device")
        if self.life is not None:
            self.life.step()
        super().write(name, data, durable=durable, room=room)
        if self.life is not None:
            self.life.step()

    def remove(self, name: str) -> None:
        if self.life is not None:
            self.life.step()
        super().remove(name)


@dataclass(slots=True)
class Running:
    """One life of one host's worker."""

    worker: Worker
    host: FakeHost
    life: Life
    store: MortalStore
    kernel: MortalKernel
    controller: FakeController
    state: MortalStateDir
    log: io.StringIO
    task: asyncio.Task[None]

    @property
    def workloads(self) -> Handover:
        return self.worker.workloads

    @property
    def attacher(self) -> Attacher:
        return self.worker.attacher

    async def attach(self, netns: str, name: str = "c1", network: str = "my-net", **more: Any) -> dict[str, Any]:
        return await self.attacher.attach(AttachRequest(network=network, netns=netns, name=name, **more))

    async def detach(self, **what: str) -> dict[str, Any]:
        return await self.attacher.detach(DetachRequest(**what))

    async def status(self) -> dict[str, Any]:
        return await self.worker.operations()["status"]({})

    async def plan(self) -> list[str]:
        return cast(list[str], (await self.worker.operations()["plan"]({}))["operations"])

    async def until_ready(self) -> None:
        await until(lambda: self._is_ready())

    async def _is_ready(self) -> bool:
        if self.task.done():
            self.task.result()
        return bool((await self.status())["ready"])

    def veths(self) -> set[str]:
        return {name for name in self.host.tables.links if name.startswith("kve")}


@dataclass(slots=True)
class World:
    """The cluster: one store, hosts with kernels on a fabric, and whatever workers run."""

    directory: Path
    state: MemoryState = field(default_factory=MemoryState)
    fabric: FakeFabric = field(default_factory=FakeFabric)
    hosts: dict[str, FakeHost] = field(default_factory=dict)
    outages: Outages = field(default_factory=Outages)
    running: dict[str, Running] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    lives: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def client(self) -> MemoryStore:
        loop = asyncio.get_running_loop()
        return MemoryStore(self.state, clock=loop.time, sleep=asyncio.sleep, rng=random.Random(1))

    async def found(self, *networks: Network, cluster: str = "c-1") -> None:
        """What a first controller writes."""
        store = self.client()
        writes: list[Write] = [Put(keys.CLUSTER, codec.encode(Cluster(cluster, EPOCH)))]
        writes += [Put(keys.network(network.id), codec.encode(network)) for network in networks]
        await store.commit([], writes)

    def host(self, name: str) -> FakeHost:
        if name not in self.hosts:
            number = len(self.hosts) + 1
            self.hosts[name] = FakeHost(name, ip_address(f"192.0.2.{number}"))
            self.fabric.join(self.hosts[name])
        return self.hosts[name]

    async def start(self, name: str = "h1", *, ready: bool = True, **settings: Any) -> Running:
        loop = asyncio.get_running_loop()
        host, life, log = self.host(name), Life(), io.StringIO()
        self.lives += 1
        client = self.client()
        store = MortalStore(client, life, self.outages)
        controller = FakeController(self.client(), life, self.outages, self.lock)
        kernel = MortalKernel(host, life)
        state = MortalStateDir.open(self.directory / name)
        state.life = life
        time = Time(lambda: EPOCH + loop.time(), loop.time, asyncio.sleep, random.Random(self.lives))
        chosen = Settings("http://c", name, Underlay(host.address), self.directory / name, timing=self.timing)
        worker = Worker(
            replace(chosen, **settings),
            cast(Store, store),
            controller,
            kernel,
            FakeNamespaces(host, life),
            host.listeners,
            state,
            time=time,
            log=Log(log, now=time.now),
        )
        await worker.start()
        task = asyncio.create_task(worker.run())
        running = Running(worker, host, life, store, kernel, controller, state, log, task)
        self.running[name] = running
        if ready:
            await running.until_ready()
        return running

    async def crash(self, name: str = "h1") -> None:
        """kill -9: no clean-up of the worker's own has any effect."""
        running = self.running.pop(name)
        running.life.is_dead = True
        await self._end(running)

    async def stop(self, name: str = "h1") -> None:
        await self._end(self.running.pop(name))

    async def _end(self, running: Running) -> None:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        await running.store.inner.close()
        running.state.close()

    async def close(self) -> None:
        for name in list(self.running):
            await self.crash(name)

    def endpoints(self, network: str = NET) -> set[str]:
        prefix = keys.endpoints(network)
        return {key.removeprefix(prefix) for key in self.state.entries if key.startswith(prefix)}

    async def create_endpoint(self, name: str, host: str, network: Network | None = None) -> Endpoint:
        """As somebody else does through the API."""
        network = network or overlay()
        controller = FakeController(self.client(), Life(), Outages(), self.lock)
        body: EndpointBody = {"id": f"e-{name}", "host": host, "name": name}
        await controller.create_endpoint(network.id, body)
        entry = self.state.entries[keys.endpoint(network.id, f"e-{name}")]
        return codec.decode(Endpoint, entry.value)

    async def register(self, name: str) -> None:
        """A peer that has no worker in this test."""
        host = self.host(name)
        await self.client().commit([], [Put(keys.host(name), codec.encode(Host(name, host.address, 1500)))])


async def until(condition: Callable[[], Awaitable[bool] | bool], *, seconds: float = 60.0) -> None:
    """Let virtual time pass until something is so."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if not isinstance(found, bool):
                found = await found
            if found:
                return
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def a_world(directory: Path, *networks: Network, **more: Any) -> AsyncIterator[World]:
    world = World(directory, **more)
    if networks:
        await world.found(*networks)
    try:
        yield world
    finally:
        await world.close()


def veth(endpoint_id: str) -> str:
    return veth_name(endpoint_id)
