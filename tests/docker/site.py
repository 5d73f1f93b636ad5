"""Docker hosts with kvnet for a module's tests, in the words of the tours: what a user types, and what must hold then.

After every test everything is removed, and nothing may be left: no address, endpoint, name, interface, no network of
Docker's. That is asked of the store, of every Docker and of every kernel.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvnet.wire import Endpoint, Network
from lab import namespaces
from lab.docker_hosts import COMMAND_SECONDS, DockerFailed, DockerHost, DockerLab, Programs, open_docker_lab
from lab.lab import until
from tests.docker import programs
from tests.lab.eye import look

DRIVER = ("-d", "kvnet", "--ipam-driver", "kvnet")
SOON_S = 10.0
REACHED_S = 30.0  # a busybox that asks for a name at the wrong moment alone waits 10
CLEAN_S = 45.0
PAGE_S = 2.0
PING = "ping -c 1 -w 2 -q"


@dataclass(slots=True)
class Site:
    lab: DockerLab

    @property
    def hosts(self) -> dict[str, DockerHost]:
        return self.lab.hosts

    # what a user types

    async def docker(self, host: str, line: str, seconds: float = COMMAND_SECONDS) -> str:
        """`docker LINE` on the host, as typed into a shell."""
        return await self.hosts[host].docker(*shlex.split(line), seconds=seconds)

    async def refusal(self, host: str, line: str, seconds: float = COMMAND_SECONDS) -> str:
        """Docker's words when it refuses that."""
        try:
            said = await self.docker(host, line, seconds)
        except DockerFailed as error:
            return error.detail
        pytest.fail(f"docker {line} on {host} was not refused: {said}")

    async def create(self, host: str, network: str, options: str = "") -> str:
        """`docker network create` of a network of ours; returns Docker's id."""
        return await self.hosts[host].docker("network", "create", *DRIVER, *shlex.split(options), network)

    async def run(self, host: str, name: str, network: str, options: str = "", command: str = "") -> str:
        """A container that serves its hostname on port 8080; returns its id."""
        words = ["run", "-d", "--name", name, "--network", network, *shlex.split(options), "busybox"]
        return await self.hosts[host].docker(*words, *shlex.split(command))

    async def compose(self, host: str, folder: Path, line: str) -> str:
        command = [*programs.COMPOSE, "--ansi", "never", *shlex.split(line)]
        libraries = self.hosts[host].programs.environment["LD_LIBRARY_PATH"]
        return await self.hosts[host].run(
            [*command[:2], "--project-directory", str(folder), "-f", str(folder / "docker-compose.yml"), *command[2:]],
            PYTHONPATH=programs.COMPOSE_PATH,
            LD_LIBRARY_PATH=f"{libraries}:{programs.LIBRARIES}",
        )

    # what is seen from a container

    async def inside(self, host: str, container: str, command: str, seconds: float = 20.0) -> str:
        """`docker exec`, with a shell."""
        return await self.hosts[host].docker("exec", container, "sh", "-c", command, seconds=seconds)

    async def reaches(self, host: str, container: str, target: str, *, six: bool = False) -> bool:
        """One echo request, by name or address."""
        try:
            await self.inside(host, container, f"{PING}{' -6' if six else ''} {target}")
        except DockerFailed:
            return False
        return True

    async def until_reaches(self, host: str, container: str, target: str, *, six: bool = False) -> None:
        await self.until(
            partial(self.reaches, host, container, target, six=six),
            f"{container} on {host} reaches {target}",
            REACHED_S,
        )

    async def greeting(self, host: str, container: str, target: str, port: int = 8080) -> str:
        """The hostname of what answers there over HTTP."""
        return await self.inside(host, container, f"timeout 3 wget -qO- http://{target}:{port}/")

    async def gets_out(self, host: str, container: str) -> bool:
        """Whether the outside world answers it."""
        outside = self.lab.lab.around["outside"].address
        try:
            return "outside" in await self.inside(host, container, f"nc -w 2 {outside} 8080")
        except DockerFailed:
            return False

    async def page(self, where: str, address: str, port: int) -> str:
        """The same, to somebody on a host or around; "" if nobody answers."""
        loop = asyncio.get_running_loop()
        with namespaces.open_socket(self.lab.lab.netns_of(where), socket.AF_INET, socket.SOCK_STREAM, 0) as caller:
            caller.setblocking(False)
            try:
                async with asyncio.timeout(PAGE_S):
                    await loop.sock_connect(caller, (address, port))
                    await loop.sock_sendall(caller, b"GET / HTTP/1.0\r\n\r\n")
                    answer = b""
                    while piece := await loop.sock_recv(caller, 4096):
                        answer += piece
            except (OSError, TimeoutError):
                return ""
        return answer.partition(b"\r\n\r\n")[2].decode().strip()

    async def names(self, host: str, container: str, name: str) -> set[str]:
        """The addresses that the container finds under a name."""
        try:
            said = await self.inside(host, container, f"nslookup {name}")
        except DockerFailed:
            return set()
        _, _, answer = said.partition("\n\n")
        return {line.split(" ", 1)[1] for line in answer.splitlines() if line.startswith("Address")}

    async def until_named(self, host: str, container: str, name: str, addresses: Iterable[str]) -> None:
        wanted = set(addresses)

        async def is_so() -> bool:
            return await self.names(host, container, name) == wanted

        await self.until(is_so, f"{name} is {wanted or 'nobody'} to {container} on {host}")

    async def address(self, host: str, container: str, network: str, *, six: bool = False) -> str:
        """As `docker inspect` tells it."""
        _, found = await self.hosts[host].api("GET", f"/containers/{container}/json")
        return str(found["NetworkSettings"]["Networks"][network]["GlobalIPv6Address" if six else "IPAddress"])

    # what is where

    async def listed(self, host: str) -> dict[str, str]:
        """Networks of ours in `docker network ls`: name -> Docker's id."""
        _, found = await self.hosts[host].api("GET", "/networks?filters=%7B%22driver%22%3A%5B%22kvnet%22%5D%7D")
        return {network["Name"]: network["Id"] for network in found or []}

    async def until_listed(self, network: str, *hosts: str) -> None:
        for host in hosts or self.hosts:

            async def is_listed(host: str = host) -> bool:
                return network in await self.listed(host)

            await self.until(is_listed, f"{host} lists {network}")

    async def until_unlisted(self, network: str, *hosts: str, seconds: float = SOON_S) -> None:
        for host in hosts or self.hosts:

            async def is_unlisted(host: str = host) -> bool:
                return network not in await self.listed(host)

            await self.until(is_unlisted, f"{host} lists {network} no more", seconds)

    async def network(self, name: str) -> Network:
        """As the controller has it."""
        return await self.lab.lab.client.get_network(name)

    async def endpoints(self, network: str) -> list[Endpoint]:
        return [endpoint async for endpoint in self.lab.lab.client.endpoints(network=network)]

    def kernel(self, host: str) -> set[str]:
        """Names of the interfaces of ours on the host; its resolver's bridge is there with or without networks."""
        return set(look(self.hosts[host].host.netns).links) - {"kvdns"}

    async def until_kernel_empty(self, *hosts: str) -> None:
        for host in hosts or self.hosts:

            async def is_empty(host: str = host) -> bool:
                return not self.kernel(host)

            await self.until(is_empty, f"{host} has no interface of ours: {self.kernel(host)}")

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = SOON_S) -> None:
        await until(condition, what, seconds=seconds)

    # the hosts' programs

    async def start_worker(self, host: str, *options: str) -> None:
        await self.lab.start_worker(host, *options)
        await self.lab.lab.until_ready(host)

    async def kill_worker(self, host: str) -> None:
        worker = self.hosts[host].host.worker
        assert worker is not None
        await worker.kill()

    async def restore(self) -> None:
        """Whatever a test has left switched off runs again."""
        lab = self.lab.lab
        if lab.controller is None or not lab.controller.is_running:
            await lab.start_controller()
        for name, host in self.hosts.items():
            if host.holder is None:
                await self.lab.reboot(name)
            if host.host.worker is None or not host.host.worker.is_running:
                await self.lab.start_worker(name)
            if host.daemon is None or not host.daemon.is_running:
                await host.start()
            await lab.until_ready(name)

    async def clean(self) -> None:
        """Remove everything, on every host at once, and see that nothing is left."""
        async with asyncio.TaskGroup() as group:
            for host in self.hosts.values():
                group.create_task(_remove_containers(host))
        await self.until(self._no_endpoints, "no endpoint is left", seconds=CLEAN_S)
        for network in [n async for n in self.lab.lab.client.networks()]:
            await self.lab.lab.client.delete_network(network["id"])
        for name, host in self.hosts.items():

            async def is_clean(name: str = name, host: DockerHost = host) -> bool:
                attachments = (await host.host.local.status())["attachments"]
                return not attachments and not await self.listed(name) and not self.kernel(name)

            await self.until(is_clean, f"{name} has nothing of ours left", seconds=CLEAN_S)
        findings = (await self.lab.lab.client.check())["findings"]
        assert findings == [], findings

    async def _no_endpoints(self) -> bool:
        return not any([n["endpoints"] async for n in self.lab.lab.client.networks()])


async def _remove_containers(host: DockerHost) -> None:
    _, found = await host.api("GET", "/containers/json?all=1")
    ids = [container["Id"] for container in found]
    async with asyncio.TaskGroup() as group:
        for id_ in ids:
            group.create_task(host.api("DELETE", f"/containers/{id_}?force=1&v=1"))
    _, networks = await host.api("GET", "/networks?filters=%7B%22driver%22%3A%5B%22bridge%22%5D%7D")
    for network in networks:
        if network["Name"] not in ("bridge", "docker_gwbridge"):
            await host.api("DELETE", f"/networks/{network['Id']}")


@asynccontextmanager
async def open_site(directory: Path, made: Programs, *, hosts: int = 2, **options: Any) -> AsyncIterator[Site]:
    """Everything runs: a controller, on every host a worker and dockerd."""
    async with open_docker_lab(directory, made, hosts=hosts, **options) as lab:
        await lab.lab.start_controller()
        async with asyncio.TaskGroup() as group:
            for name, host in lab.hosts.items():
                group.create_task(lab.start_worker(name))
                group.create_task(host.start())
        for name in lab.hosts:
            await lab.lab.until_ready(name)
        yield Site(lab)
