"""A site as operators run it: hosts, a controller, and a store of three servers, each on a machine of its own.

The servers stand on the lab's fabric beside the hosts, so that each can be cut off from whom a test wants. Worker h1
goes through the controller's gateway, the others have direct access to the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import KvnetError
from lab import processes
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET
from tests.lab.eye import Seen, look
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.servers.places import Place

MEMBERS = ("s1", "s2", "s3")
CONTROLLER = "k1"
DIRECT = ("h2", "h3")
NETWORK = "my-net"
# Until everything has found another server: the longest silence, an election, a retry.
FAIL_OVER_S = 30.0
PING_EVERY_S = 0.05
PINGS_AT_LEAST = 11
ENOUGH_S = 30.0
COMMAND_S = 60.0


def on_its_own(kind: Kind) -> Any:
    """A parameter: where tests run in several processes, those of one kind of store are in one, after each other."""
    return pytest.param(kind, id=kind, marks=pytest.mark.xdist_group(f"site-{kind}"))


@dataclass
class Site:
    """`numbers` makes workloads' names."""

    lab: Lab
    store: Cluster
    numbers: int = 0

    @property
    def directly(self) -> tuple[str, ...]:
        """What a worker with direct access is started with."""
        return ("--store", self.lab.store_url)

    @property
    def clients(self) -> list[str]:
        """The addresses of all who use the store: hosts and controller."""
        ports = [*(host.port for host in self.lab.hosts.values()), self.lab.places[CONTROLLER]]
        return [str(port.underlay) for port in ports]

    async def start_worker(self, host: str) -> None:
        await self.lab.start_worker(host, *(self.directly if host in DIRECT else ()))

    async def attach(self, host: str) -> str:
        """The name of a new workload on the host, attached.

        Raises:
            KvnetError: what the worker says; the workload is gone again.
        """
        self.numbers += 1
        name = f"w{self.numbers}"
        await self.lab.add_workload(name, host)
        try:
            await self.lab.attach(NETWORK, name)
        except KvnetError:
            await self.lab.remove_workload(name)
            raise
        return name

    async def until_attaching_works(self, seconds: float = FAIL_OVER_S) -> float:
        """On every host: a workload is attached, c1 reaches it, and it is detached again. How long it took."""
        began = time.monotonic()
        for host in self.lab.hosts:
            names: list[str] = []

            async def is_attached(host: str = host, names: list[str] = names) -> bool:
                try:
                    names.append(await self.attach(host))
                except KvnetError:
                    return False
                return True

            left_s = seconds - (time.monotonic() - began)
            await until(is_attached, f"{host} attaches again", seconds=max(1.0, left_s))
            await self.until_reached("c1", str(self.lab.workloads[names[0]].endpoints[NETWORK]["address"]))
            await self.lab.detach(NETWORK, names[0])
            await self.lab.remove_workload(names[0])
        return time.monotonic() - began

    async def until_reached(self, workload: str, address: str, seconds: float = FAIL_OVER_S) -> None:
        async def is_reached() -> bool:
            return (await self.lab.ping(workload, address, timeout_s=0.3)).ok

        await until(is_reached, f"{workload} reaches {address}", seconds=seconds)

    async def until_all_ready(self, seconds: float = FAIL_OVER_S) -> None:
        for host in self.lab.hosts.values():

            async def is_ready(host: Any = host) -> bool:
                try:
                    return bool((await host.local.status())["ready"])
                except KvnetError:
                    return False

            await until(is_ready, f"{host.name} is ready again", seconds=seconds, watched=host.worker)

    async def kvnet(self, *arguments: str) -> str:
        """A `kvnet` command of an operator at the controller's place; what it said. It must succeed."""
        self.numbers += 1
        netns = self.lab.places[CONTROLLER].netns
        environment = {"KVNET_CONTROLLER": self.lab.controller_url}
        process = await processes.start(
            f"kvnet-{self.numbers}",
            [*KVNET, *arguments],
            logs=self.lab.directory,
            netns=netns,
            environment=environment,
        )
        async with asyncio.timeout(COMMAND_S):
            status = await process.child.wait()
        words = process.last_words(lines=100)
        assert status == 0, f"kvnet {' '.join(arguments)} ended with {status}: {words}"
        return words

    async def until_not_believed(self, kind: str, seconds: float = FAIL_OVER_S) -> str:
        """What the controller advises: its trouble with its store is of this kind, and it is not ready."""
        fixes: list[str] = []

        async def is_told() -> bool:
            try:
                trouble = (await self.lab.client.status())["trouble"]
            except KvnetError:
                return False
            if trouble is not None and trouble["kind"] == kind:
                fixes.append(trouble["fix"])
            return bool(fixes)

        await until(is_told, f"the controller says {kind}", seconds=seconds, watched=self.lab.controller)
        return fixes[0]

    def kernels(self) -> dict[str, Seen]:
        """Everything of ours in the kernels of all hosts."""
        return {host.name: look(host.netns) for host in self.lab.hosts.values()}

    async def settled_kernels(self) -> dict[str, Seen]:
        """The same, once nothing there is of an endpoint that has been detached, and every host has told what it has.

        What a host has applied and not told yet is no evidence when its store goes back in time.
        """
        await self._until_all_told()
        known = {str(endpoint["address"]) async for endpoint in self.lab.client.endpoints()}
        seen: dict[str, Seen] = {}

        async def is_settled() -> bool:
            seen.update(self.kernels())
            there = {address for one in seen.values() for _, address, _ in one.neighbours if ":" not in address}
            return there <= known

        await until(is_settled, "no host has entries of what was detached", seconds=FAIL_OVER_S)
        return seen

    async def _until_all_told(self) -> None:
        for name in self.lab.hosts:

            async def has_told(name: str = name) -> bool:
                host = await self.lab.client.get_host(name)
                return bool(host["alive"]) and host["lag_revisions"] == 0

            await until(has_told, f"{name} has told the store what it has", seconds=FAIL_OVER_S)

    async def require_no_findings(self) -> None:
        report = await self.lab.client.check()
        assert report["ok"], report["findings"]


@dataclass
class Traffic:
    """Echo requests from one workload to another, all the time; `lost` are those without an answer."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)


@asynccontextmanager
async def traffic(lab: Lab, source: str, address: str) -> AsyncIterator[Traffic]:
    """What a user of the network would notice; nothing may be lost by the time this is left.

    It is left when enough was sent to mean something, also where all else was quick.
    """
    seen = Traffic()
    enough = asyncio.Event()
    began = time.monotonic()

    async def send() -> None:
        while True:
            answer = await lab.ping(source, address)
            seen.sent += 1
            if not answer.ok:
                seen.lost.append(f"at {time.monotonic() - began:.1f} s: {answer.reason}")
            if seen.sent >= PINGS_AT_LEAST:
                enough.set()
            await asyncio.sleep(PING_EVERY_S)

    sending = asyncio.create_task(send())
    waiting = asyncio.create_task(enough.wait())
    try:
        yield seen
        await asyncio.wait({sending, waiting}, timeout=ENOUGH_S, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()  # it never ends but by an error
    finally:
        sending.cancel()
        waiting.cancel()
        await asyncio.gather(sending, waiting, return_exceptions=True)
    assert not seen.lost, f"{len(seen.lost)} of {seen.sent} lost: {seen.lost[:5]}"
    assert enough.is_set(), f"only {seen.sent} were sent in {time.monotonic() - began:.1f} s"


@asynccontextmanager
async def open_site(kind: Kind, directory: Path) -> AsyncIterator[Site]:
    """Three hosts with workers that are ready, on three fresh servers."""
    async with open_lab(directory, hosts=3, places=[*MEMBERS, CONTROLLER]) as lab:
        lab.controller_place = CONTROLLER
        places = [Place(str(lab.places[name].underlay), lab.places[name].netns) for name in MEMBERS]
        async with Cluster(kind, directory / "store", members=3, places=places) as store:
            lab.store_url = store.url()
            await lab.start_controller()
            site = Site(lab, store)
            for host in lab.hosts:
                await site.start_worker(host)
            await site.until_all_ready()
            yield site
