"""The site that is soaked: hosts, controllers, a store of three servers, each with a namespace and a cable.

Everything is the product's own commands and real servers. Controllers speak TLS and ask for credentials; hosts have
joined with tokens (`admission`). One host in three reads the store through the controllers, the others have access of
their own; with the embedded store all go through the controllers, which share one file on a small disk. Each process
has a wall clock of its own, each host a small disk for its worker's state. Users reach controllers over their unix
sockets, hosts over the fabric.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvnet.client import Client
from kvnet.errors import KvnetError
from kvnet.local import WorkerClient
from lab import fabric, processes
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET, Process
from tests.servers.cluster import Cluster
from tests.servers.places import Place
from tests.soak.admission import Admission
from tests.soak.clocks import Clock
from tests.soak.settings import COOL_DOWN_S, KINDS, MEMBERS, START_SECONDS, Options

PORT = 7480
ASK_S = 4.0
STORE_DISK, STATE_DISK = "96m", "8m"


@dataclass(slots=True)
class Controller:
    name: str
    port: fabric.Port
    socket: Path
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"https://{self.port.underlay}:{PORT}"

    @property
    def client(self) -> Client:
        """A new one, for one user."""
        return Client(f"unix://{self.socket}", attempts=1, timeout_s=8.0)


@dataclass(slots=True)
class Soaked:
    """`away`: names of processes that are killed or frozen on purpose now; any other one that ends is a violation."""

    lab: Lab
    options: Options
    controllers: list[Controller]
    store: Cluster | None
    store_disk: Path | None
    clocks: dict[str, Clock]
    admission: Admission
    away: set[str] = field(default_factory=set)

    @property
    def hosts(self) -> list[str]:
        return list(self.lab.hosts)

    @property
    def controllers_url(self) -> str:
        return ",".join(controller.url for controller in self.controllers)

    def reads_directly(self, host: str) -> bool:
        return self.store is not None and self.hosts.index(host) % 3 != 0

    def underlay(self, name: str) -> str:
        port = self.lab.places[name] if name in self.lab.places else self.lab.hosts[name].port
        return str(port.underlay)

    def port_of(self, name: str) -> fabric.Port:
        return self.lab.places[name] if name in self.lab.places else self.lab.hosts[name].port

    def process_of(self, name: str) -> Process | None:
        if name in self.lab.hosts:
            return self.lab.hosts[name].worker
        return next(c.process for c in self.controllers if c.name == name)

    async def start_worker(self, host: str) -> None:
        options = ("--store", self.lab.store_url) if self.reads_directly(host) else ()
        await self.lab.start_worker(host, *options, environment=self.clocks[host].environment)

    async def start_controller(self, name: str) -> None:
        one = next(c for c in self.controllers if c.name == name)
        command = [*KVNET, "controller", "--store", self.lab.store_url, "--listen", f"{one.port.underlay}:{PORT}"]
        command += ["--listen-unix", str(one.socket), "--name", name, "--cool-down", f"{COOL_DOWN_S}s"]
        one.process = await processes.start(
            name,
            [*command, *self.admission.controller_options],
            logs=self.lab.directory,
            netns=one.port.netns,
            environment=self.clocks[name].environment,
        )

    async def start(self, name: str) -> None:
        await (self.start_worker(name) if name in self.lab.hosts else self.start_controller(name))

    async def is_ready(self, name: str) -> bool:
        """By its own word: a worker holds its session and has all mirrors in step, a controller believes its store."""
        try:
            if name in self.lab.hosts:
                local = WorkerClient(str(self.lab.hosts[name].socket), timeout_s=ASK_S)
                return bool((await local.status())["ready"])
            async with asyncio.timeout(ASK_S):
                async with next(c for c in self.controllers if c.name == name).client as client:
                    status = await client.status()
            return status["trouble"] is None and status["stale_since"] is None
        except (KvnetError, TimeoutError):
            return False

    async def until_ready(self, name: str, seconds: float) -> None:
        async def is_ready() -> bool:
            return await self.is_ready(name)

        await until(is_ready, f"{name} is ready", seconds=seconds, watched=self.process_of(name))

    async def until_all_ready(self, seconds: float) -> None:
        for name in [*(c.name for c in self.controllers), *self.hosts]:
            await self.until_ready(name, seconds)

    async def close(self) -> None:
        for controller in self.controllers:
            if controller.process is not None:
                controller.process.signal(18)  # SIGCONT: a frozen one could not end
                await controller.process.stop()


@asynccontextmanager
async def open_soaked(options: Options, directory: Path) -> AsyncIterator[Soaked]:
    """Everything started, and ready."""
    names = [f"k{number}" for number in range(1, options.controllers + 1)]
    members = MEMBERS if options.store in KINDS else ()
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(open_lab(directory, hosts=options.hosts, places=[*members, *names]))
        for host in lab.hosts.values():
            stack.enter_context(small_disk(host.state_dir, STATE_DISK))
        store, disk = None, None
        if options.store in KINDS:
            places = [Place(str(lab.places[name].underlay), lab.places[name].netns) for name in members]
            cluster = Cluster(KINDS[options.store], directory / "store", members=len(members), places=places)
            store = await stack.enter_async_context(cluster)
            lab.store_url = store.url()
        else:
            disk = directory / "disk"
            disk.mkdir()
            stack.enter_context(small_disk(disk, STORE_DISK))
            lab.store_url = f"sqlite://{disk / 'kvnet.db'}"
        clocks = {name: Clock(directory / f"{name}.clock") for name in [*names, *lab.hosts]}
        controllers = [Controller(name, lab.places[name], directory / f"{name}.sock") for name in names]
        soaked = Soaked(lab, options, controllers, store, disk, clocks, Admission(directory / "admission"))
        lab.controller_url = soaked.controllers_url
        sockets = ",".join(f"unix://{controller.socket}" for controller in controllers)
        lab.client = await stack.enter_async_context(Client(sockets, timeout_s=8.0))
        stack.push_async_callback(soaked.close)
        await start_everything(soaked)
        yield soaked


async def start_everything(site: Soaked) -> None:
    """One controller after the other: the first one makes the first token, which the others would make too."""
    await site.admission.found([str(controller.port.underlay) for controller in site.controllers])
    for controller in site.controllers:
        await site.start_controller(controller.name)
        await site.until_ready(controller.name, START_SECONDS)
    operator = f"unix://{site.controllers[0].socket}"
    for name, host in site.lab.hosts.items():
        await site.admission.admit(
            name, host.netns, host.state_dir, operator=operator, controllers=site.controllers_url
        )
        await site.start_worker(name)
    await site.until_all_ready(START_SECONDS)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of its own, which can be filled without harm to the machine's."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
