"""A laboratory: hosts, a fabric between them, a controller, a worker on every host, and workloads.

Runs only inside namespaces that `lab.enter` made. Everything that it starts ends with it, in the reverse order; the
processes are the product's own commands, so what is true here is true on real hosts.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from backends.open import open_store
from backends.store import Delete
from kvnet import keys
from kvnet.client import Client
from kvnet.errors import KvnetError, NotFound, Unfit
from kvnet.local import WorkerClient
from kvnet.wire import Endpoint
from lab import fabric, namespaces, processes, surroundings
from lab.calls import call
from lab.ping import Answer, ping
from lab.processes import KVNET, Process
from lab.surroundings import Place
from worker.kernel.linux import LinuxKernel

START_SECONDS = 20.0
POLL_SECONDS = 0.01
WORKLOAD = Path(__file__).with_name("workload.py")


@dataclass(slots=True)
class Host:
    """One host: a namespace with an address on the fabric, and the worker that runs in it (None: it does not).

    `inside`: the process whose namespaces the worker shares, where the host has more to itself than its network.
    """

    name: str
    port: fabric.Port
    state_dir: Path
    worker: Process | None = None
    inside: Process | None = None

    @property
    def netns(self) -> Path:
        return self.port.netns

    @property
    def socket(self) -> Path:
        return self.state_dir / "w.sock"

    @property
    def local(self) -> WorkerClient:
        return WorkerClient(str(self.socket))


@dataclass(slots=True)
class Workload:
    """A process in a namespace of its own on a host; `endpoints` by network, as attached through the lab."""

    name: str
    host: str
    netns: Path
    process: Process | None = None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)


@dataclass(slots=True)
class Lab:
    """Made by `open_lab`; the controller is `controller` unless one was given from outside.

    `places`: namespaces on the fabric without a worker, for what is neither host nor workload: a store's members, a
    controller that has to reach them. `around`: the "router" between segments, the "outside" world, the physical "lan",
    as far as they were asked for. `kernel`: of the fabric's namespace.
    """

    directory: Path
    controller_url: str
    store_url: str
    hosts: dict[str, Host]
    client: Client
    kernel: LinuxKernel
    places: dict[str, fabric.Port] = field(default_factory=dict)
    around: dict[str, Place] = field(default_factory=dict)
    others: list[Process] = field(default_factory=list)
    controller_place: str | None = None
    controller: Process | None = None
    workloads: dict[str, Workload] = field(default_factory=dict)

    async def start_controller(self, *options: str) -> None:
        """On the lab's own loopback, or in `controller_place`; its socket file is reached from everywhere.

        Raises:
            Unfit: with its last words, if it does not answer in time.
        """
        command = [*KVNET, "controller", "--store", self.store_url, "--listen", "127.0.0.1:0", "--insecure"]
        command += ["--listen-unix", str(self.directory / "c.sock"), *options]
        netns = self.places[self.controller_place].netns if self.controller_place is not None else None
        self.controller = await processes.start("controller", command, logs=self.directory, netns=netns)
        await self.until_controller_answers()

    async def until_controller_answers(self) -> None:
        await until(self._controller_answers, "the controller answers", watched=self.controller)

    async def _controller_answers(self) -> bool:
        try:
            await self.client.version()
        except KvnetError:
            return False
        return True

    async def start_worker(
        self,
        name: str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        listening: tuple[int, str] | None = None,
        under: Sequence[str] = (),
    ) -> Process:
        """Start a host's worker; `until_ready` says when it is up. `listening`: a socket that it finds open. `under`:
        the program that starts it, such as one that takes capabilities away."""
        host = self.hosts[name]
        command = [*KVNET, "worker", "--controller", self.controller_url, "--host", name]
        command += ["--underlay", str(host.port.underlay), "--state-dir", str(host.state_dir)]
        command += ["--socket", str(host.socket)]
        if host.inside is None:
            command += ["--docker", "off"]  # what is at Docker's paths here is the machine's, or another host's
        command = [*under, *command, *options]
        where: dict[str, Any] = {"netns": host.netns} if host.inside is None else {"inside": host.inside.pid}
        host.worker = await processes.start(
            f"worker-{name}", command, logs=self.directory, environment=environment, listening=listening, **where
        )
        return host.worker

    async def until_ready(self, name: str) -> None:
        """The host's worker answers, holds its session and has all its mirrors in step."""
        host = self.hosts[name]

        async def is_ready() -> bool:
            try:
                return bool((await host.local.status())["ready"])
            except KvnetError:
                return False

        await until(is_ready, f"the worker of {name} is ready", watched=host.worker)

    async def until_applied(self, network_id: str, version: int) -> None:
        """Every worker that has the network has everything up to the version in its kernel, by its own word."""

        async def is_applied(host: Host) -> bool:
            there = [n for n in (await host.local.status())["networks"] if n["id"] == network_id]
            return all(n["version"] >= version for n in there)

        for host in self.hosts.values():
            await until(partial(is_applied, host), f"{host.name} has applied version {version}", watched=host.worker)

    async def add_workload(self, name: str, host: str, *, serve: bool = False) -> Workload:
        """A namespace for a workload, with a process in it that answers on TCP and UDP if `serve` (`lab.workload`)."""
        netns = namespaces.create(name)
        workload = Workload(name, host, netns)
        if serve:
            workload.process = await self._answering(name, host, netns)
        self.workloads[name] = workload
        return workload

    async def serve(self, name: str) -> None:
        """The same program on a host, or in a place around: it answers until the lab is closed."""
        self.others.append(await self._answering(name, name, self.netns_of(name)))

    async def _answering(self, name: str, host: str, netns: Path) -> Process:
        command = [sys.executable, "-I", "-S", str(WORKLOAD), name, host]
        return await processes.start(f"workload-{name}", command, logs=self.directory, netns=netns)

    def netns_of(self, name: str) -> Path:
        """Of a workload, a host, a place, or something around."""
        for found in (self.workloads, self.hosts, self.places, self.around):
            if name in found:
                return found[name].netns
        raise NotFound(f"there is no {name!r} in this lab")

    def address_of(self, workload: str, network: str, family: int = 4) -> str:
        """The workload's address on a network that it was attached to through the lab."""
        return str(self.workloads[workload].endpoints[network]["address" if family == 4 else "address6"])

    async def remove_workload(self, name: str) -> None:
        """As a crash of the workload: its process and namespace go, nobody is told."""
        workload = self.workloads.pop(name)
        if workload.process is not None:
            await workload.process.kill()
        namespaces.destroy(workload.netns)

    async def attach(self, network: str, workload: str, **options: Any) -> dict[str, Any]:
        """Through the worker of the workload's host, as `kvnet attach` does. Returns the worker's answer.

        Options as `kvnet.local.attach_request` has them: `ports=[{"port": 8080, "host_port": 80}]`,
        `gateway_priority=10`, `interface="net0"`...
        """
        there = self.workloads[workload]
        answer = await self.hosts[there.host].local.attach(
            network=network, netns=str(there.netns), name=workload, **options
        )
        there.endpoints[network] = answer["endpoint"]
        return answer

    async def detach(self, network: str, workload: str) -> None:
        there = self.workloads[workload]
        endpoint = there.endpoints.pop(network)
        await self.hosts[there.host].local.detach(id=endpoint["id"])

    async def ping(self, workload: str, address: str, *, timeout_s: float = 1.0, payload: int = 56) -> Answer:
        """One echo request from the workload's namespace."""
        return await self.ping_from(workload, address, timeout_s=timeout_s, payload=payload)

    async def ping_from(self, where: str, address: str, *, timeout_s: float = 1.0, payload: int = 56) -> Answer:
        """The same from anywhere: a workload, a host, the outside."""
        opener = partial(namespaces.open_socket, self.netns_of(where))
        return await ping(opener, ip_address(address), timeout_s=timeout_s, payload=payload)

    async def call(
        self, where: str, address: str, port: int = 8080, *, protocol: str = "tcp", timeout_s: float = 2.0
    ) -> str:
        """What answers there to a caller in `where` (as `ping_from`): a line, see `lab.workload`.

        Raises:
            OSError, TimeoutError: nobody does.
        """
        return await call(self.netns_of(where), address, port, protocol=protocol, timeout_s=timeout_s)

    async def answers(self, where: str, address: str, port: int = 8080, *, protocol: str = "tcp") -> bool:
        """Whether anybody does, soon."""
        try:
            return bool(await self.call(where, address, port, protocol=protocol, timeout_s=0.5))
        except (OSError, TimeoutError):
            return False

    async def greeting(self, workload: str, address: str, port: int = 8080) -> str:
        """What the workload at `address` says over TCP to this one. Raises: OSError, TimeoutError."""
        return await self.call(workload, address, port)

    async def forget_hosts(self) -> None:
        """Stop every worker and remove its host from the store, without waiting for its session to run out."""
        store = await open_store(self.controller_url)
        try:
            for host in self.hosts.values():
                if host.worker is None or not host.worker.is_running:
                    continue
                await host.worker.stop()
                with suppress(NotFound):
                    await store.commit([], [Delete(keys.alive(host.name))])
                    await self.client.delete_host(host.name)
        finally:
            await store.close()

    async def close(self) -> None:
        """End every process (workers first), then every namespace."""
        running = [h.worker for h in self.hosts.values()] + [w.process for w in self.workloads.values()] + self.others
        async with asyncio.TaskGroup() as group:
            for process in running:
                if process is not None:
                    group.create_task(process.stop())
        if self.controller is not None:
            await self.controller.stop()
        workloads, hosts = self.workloads.values(), self.hosts.values()
        for netns in [
            *(w.netns for w in workloads),
            *(h.netns for h in hosts),
            *(p.netns for p in self.places.values()),
        ]:
            namespaces.destroy(netns)

    async def replug(self, name: str) -> None:
        """As a reboot of the host: whatever was in its namespace is gone, and the cable is plugged into a new one."""
        port = self.hosts[name].port
        namespaces.destroy(port.netns)
        await fabric.unplug(self.kernel, port)
        namespaces.create(port.netns.name)
        await fabric.plug(self.kernel, [port])


@asynccontextmanager
async def open_lab(
    directory: Path,
    *,
    hosts: int = 3,
    places: Sequence[str] = (),
    controller_url: str | None = None,
    store_url: str | None = None,
    segments: Mapping[str, int] | None = None,
    mtus: Mapping[str, int] | None = None,
    family: int = 4,
    outside: bool = False,
    lan: bool = False,
) -> AsyncIterator[Lab]:
    """Hosts `h1`, `h2`... on a fabric. Without `controller_url`, `start_controller` starts one of the lab's own.

    `segments`: hosts that are not on segment 0; a router joins them. `mtus`: of hosts whose underlay has not 1500.
    `family`: of the underlay. `outside`: a world behind the router, at `around["outside"].address`, that answers as a
    workload does. `lan`: a physical network with an uplink `lan0` in every host, and its gateway `around["lan"]`.

    Raises:
        Unfit: the kernel does not allow it.
    """
    is_routed = outside or bool(segments)
    async with AsyncExitStack() as stack:
        cable_box = namespaces.create("fabric")
        stack.callback(namespaces.destroy, cable_box)
        ports: dict[str, fabric.Port] = {}
        for number, name in enumerate([*(f"h{n}" for n in range(1, hosts + 1)), *places], 1):
            where = (segments or {}).get(name, 0)
            mtu = (mtus or {}).get(name, 1500)
            ports[name] = fabric.Port(number, namespaces.create(name), mtu, where, is_routed, family)
        made = {f"h{n}": Host(f"h{n}", ports[f"h{n}"], directory / f"h{n}") for n in range(1, hosts + 1)}
        for host in made.values():
            host.state_dir.mkdir()
        kernel = await LinuxKernel.open(netns=str(cable_box))
        stack.push_async_callback(kernel.close)
        await fabric.build(kernel, list(ports.values()))
        url = controller_url or f"unix://{directory / 'c.sock'}"
        client = await stack.enter_async_context(Client(url, attempts=1))
        others = {name: ports[name] for name in places}
        lab = Lab(directory, url, store_url or f"sqlite://{directory / 'kvnet.db'}", made, client, kernel, others)
        stack.push_async_callback(lab.close)
        used = {port.segment for port in ports.values()}
        if is_routed:
            lab.around["router"] = await surroundings.add_router(kernel, stack, used, outside=outside)
        if outside:
            lab.around["outside"] = await surroundings.add_outside(kernel, stack)
            await lab.serve("outside")
        if lan:
            cables = [(host.port.number, host.netns) for host in made.values()]
            lab.around["lan"] = await surroundings.add_lan(kernel, stack, cables)
        yield lab


async def until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    *,
    seconds: float = START_SECONDS,
    watched: Process | None = None,
) -> None:
    """Wait for a condition, bounded; give up at once when the watched process ends.

    Raises:
        Unfit: it did not come true in time; says what, and the process's last words.
    """
    try:
        async with asyncio.timeout(seconds):
            while not await condition():
                if watched is not None:
                    watched.require_running()
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        words = f": {watched.last_words()}" if watched is not None else ""
        raise Unfit(f"not within {seconds:.0f} s: {what}{words}") from error


def environment(lab: Lab) -> Mapping[str, str]:
    """What a `kvnet` command needs to talk to this lab's controller."""
    return {**os.environ, "KVNET_CONTROLLER": lab.controller_url}
