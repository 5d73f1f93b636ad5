"""One simulated host: a kernel in memory that tells when an address arrived in it, and workloads' namespaces.

Everything above the kernel is the product's own. Never answers what the real kernel would not; what it is asked for is
carried out by `datapath.fake`, as strictly as Linux does it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

from datapath.fake import FakeKernel
from datapath.objects import Failure, Hint, Ip, Mac, Operation, RemoveNeighbour, ReplaceNeighbour
from kvnet.errors import KernelRefused, NamespaceNotFound
from kvnet.model import PublishedPort
from worker.kernel.inventory import HostAddress, Surroundings
from worker.ports import Listener, Namespace

MTU = 1500
PREFIX = 15
BOOT = "boot"


class SimulatedHost(FakeKernel):
    """`HostKernel`, `Namespaces` and `Listeners` in one. `operations`: how many its kernel has carried out."""

    def __init__(self, name: str, underlay: str) -> None:
        self.address = ip_address(underlay)
        super().__init__(name, [self.address.packed], on_link=[(self.address.packed, PREFIX)])
        self.operations = 0
        self.arrived: dict[Ip, float] = {}
        self._expected: frozenset[Ip] = frozenset()

    def expect(self, addresses: frozenset[Ip]) -> None:
        """From now on note in `arrived` when the neighbour of each of these came, or went."""
        self._expected = addresses
        self.arrived = {}

    @property
    def is_there(self) -> bool:
        return len(self.arrived) == len(self._expected)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        failures = self.execute(operations)
        self.operations += len(operations)
        if self._expected:
            now = time.monotonic()
            for operation in operations:
                if isinstance(operation, ReplaceNeighbour | RemoveNeighbour):
                    address = operation.neighbour.address
                    if address in self._expected:
                        self.arrived.setdefault(address, now)
        return failures

    async def hints(self) -> AsyncIterator[Hint]:
        """Nobody else changes this kernel, and the echo of the worker's own changes is left out: it looks after that in
        its own host's time, and a thousand such looks on one machine would be what is measured."""
        await asyncio.Event().wait()
        yield Hint()

    async def surroundings(self) -> Surroundings:
        place = HostAddress(self.address, PREFIX, "eth0", MTU)
        return Surroundings((), {self.address: MTU}, "simulated", BOOT, (place,))

    async def look(self, namespace: str) -> Namespace:
        path = namespace if "/" in namespace else f"/run/netns/{namespace}"
        inside = self.tables.namespaces.get(path)
        if inside is None:
            raise NamespaceNotFound(f"{namespace!r} is not a network namespace")
        return Namespace(path, path, frozenset({"lo", *inside}))

    async def identity(self, path: str) -> str:
        return path if path in self.tables.namespaces else ""

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        inside = self.tables.namespaces.get(netns)
        if inside is None:
            raise KernelRefused(f"{netns} is gone")
        return next((name for name, found in inside.items() if found.link == device and found.side.mac == mac), "")

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        return False

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        return None

    async def first(self, ports: Sequence[PublishedPort], versions: Sequence[int]) -> Listener | None:
        return None
