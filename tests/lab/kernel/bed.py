"""Hosts on a fabric, driven by nothing but `desired`, `plan` and the real kernel: no controller, no worker."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

from datapath.desired import desired
from datapath.objects import Failure, Scope
from datapath.plan import Plan, plan
from datapath.view import Attachment, HostView
from kvnet.model import Block, Driver, Endpoint, Host, Network, Subnet
from lab import fabric, namespaces
from lab.ping import ping
from worker.kernel.firewall import find_nft
from worker.kernel.linux import LinuxKernel

CONNECT_SECONDS = 0.4
REPAIR_ATTEMPTS = 5


def network(number: int, **options: object) -> Network:
    """Dual stack: 10.<number>.0.0/24 and fd00:<number>::/64."""
    subnets = (
        Subnet(ip_network(f"10.{number}.0.0/24"), ip_address(f"10.{number}.0.1")),
        Subnet(ip_network(f"fd00:{number}::/64"), ip_address(f"fd00:{number}::1")),
    )
    return Network(
        id=f"{number:012x}",
        name=f"n{number}",
        driver=Driver.OVERLAY,
        subnets=subnets,
        created_at=0.0,
        vni=5000 + number,
        **options,  # type: ignore[arg-type]
    )


@dataclass(slots=True)
class Bed:
    """What the cluster knows, and the kernels that shall follow it."""

    kernels: dict[str, LinuxKernel]
    netns: dict[str, Path]
    hosts: dict[str, Host]
    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Endpoint]] = field(default_factory=dict)
    attachments: dict[str, dict[str, Attachment]] = field(default_factory=dict)
    workloads: dict[str, Path] = field(default_factory=dict)
    blocks: dict[str, tuple[Block, ...]] = field(default_factory=dict)

    def add(self, net: Network, name: str, host: str, last: int, mac: str | None = None) -> Endpoint:
        """An endpoint whose addresses end in `last`, with a namespace of its own."""
        if name not in self.workloads:
            self.workloads[name] = namespaces.create(f"w-{name}")
        addresses = tuple(s.cidr.network_address + last for s in net.subnets)
        id_ = f"{name}-{net.name}"
        endpoint = Endpoint(id_, net.id, host, name, addresses, mac or _mac(net, last), 0.0)
        self.networks[net.id] = net
        self.endpoints.setdefault(net.id, {})[id_] = endpoint
        interface = f"eth{sum(name == e.name for es in self.endpoints.values() for e in es.values()) - 1}"
        self.attachments.setdefault(host, {})[id_] = Attachment(id_, str(self.workloads[name]), interface)
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        del self.endpoints[endpoint.network][endpoint.id]
        self.attachments[endpoint.host].pop(endpoint.id, None)

    def view(self, host: str) -> HostView:
        return HostView(host, self.hosts, self.networks, self.endpoints, self.attachments.get(host, {}), self.blocks)

    async def planned(self, host: str, network_id: str | None = None) -> Plan:
        actual = await self.kernels[host].read(Scope(network_id or ""), firewall=network_id is None)
        return plan(desired(self.view(host), network_id), actual)

    async def converge(self, *hosts: str) -> list[Failure]:
        """One pass on each host (all by default)."""
        failures: list[Failure] = []
        for host in hosts or tuple(self.kernels):
            failures += await self.kernels[host].apply((await self.planned(host)).operations)
        return failures

    async def ping(self, workload: str, address: str, *, timeout_s: float = 1.0, payload: int = 56) -> bool:
        opener = partial(namespaces.open_socket, self.workloads[workload])
        return (await ping(opener, ip_address(address), timeout_s=timeout_s, payload=payload)).ok

    async def reaches(self, workload: str, address: str) -> bool:
        """Whether one of a few packets arrives: for repairs, where the very first may be too early."""
        for _ in range(REPAIR_ATTEMPTS):
            if await self.ping(workload, address, timeout_s=0.3):
                return True
        return False


def _mac(net: Network, last: int) -> str:
    return ":".join(f"{byte:02x}" for byte in (2, 0, 0, *(net.vni or 0).to_bytes(2, "big"), last))


@asynccontextmanager
async def open_bed(hosts: int = 2) -> AsyncIterator[Bed]:
    """Hosts h1, h2 ... with addresses 198.18.0.1, .2 ... on the fabric."""
    async with AsyncExitStack() as stack:
        cables = made(stack, "fabric")
        ports = {f"h{n}": fabric.Port(n, made(stack, f"h{n}")) for n in range(1, hosts + 1)}
        await fabric.build(await opened(stack, cables), list(ports.values()))
        kernels = {name: await opened(stack, port.netns) for name, port in ports.items()}
        records = {name: Host(name, port.underlay, port.mtu) for name, port in ports.items()}
        bed = Bed(kernels, {name: port.netns for name, port in ports.items()}, records)
        stack.callback(lambda: [namespaces.destroy(path) for path in bed.workloads.values()])
        yield bed


def made(stack: AsyncExitStack, name: str) -> Path:
    path = namespaces.create(name)
    stack.callback(namespaces.destroy, path)
    return path


async def opened(stack: AsyncExitStack, netns: Path) -> LinuxKernel:
    return await stack.enter_async_context(await LinuxKernel.open(netns=str(netns)))


async def can_connect(source: Path, target: Path, address: str, port: int = 8080) -> bool:
    """Whether a TCP connection from one namespace reaches a listener in another."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with (
        namespaces.open_socket(target, family, socket.SOCK_STREAM, 0) as listener,
        namespaces.open_socket(source, family, socket.SOCK_STREAM, 0) as caller,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        caller.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_connect(caller, (address, port))
        except (TimeoutError, OSError):
            return False
        return True


def nft(netns: Path, text: str) -> str:
    """As an administrator would, in the host's namespace."""
    arguments = [find_nft(), "-f", "-"]
    done = namespaces.call(
        netns, lambda: subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=10, check=False)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
