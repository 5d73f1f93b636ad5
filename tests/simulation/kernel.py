"""A host's kernel as its worker reaches it: the fake one of `datapath.fake`, with time that passes and calls that fail.

Operations take effect one after the other, and a worker may die between any two of them. The kernel itself, and what
somebody else does to it, lives in `machine.Machine` and survives workers.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from datapath.objects import (
    EVERYTHING,
    Announce,
    DeleteLink,
    Failure,
    ForgetCallers,
    ForgetFlows,
    Hint,
    HostState,
    Ip,
    Mac,
    Operation,
    Scope,
)
from kvnet.errors import KernelRefused, NamespaceNotFound
from tests.simulation.loop import SimulatedLoop
from tests.simulation.machine import Machine
from tests.unit.worker.kit import OWN_NAMESPACE
from worker.kernel.inventory import HostAddress, Surroundings
from worker.ports import Namespace

CALL_S = 0.004
PIECE = 6
NEVER_FAIL = (Announce, ForgetCallers, ForgetFlows)


class SimulatedKernel:
    """One worker's hold on the kernel."""

    def __init__(self, machine: Machine, loop: SimulatedLoop) -> None:
        self._machine = machine
        self._loop = loop
        self._thread = asyncio.Lock()  # the datapath's: one call at a time

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        async with self._thread:
            await self._call()
            return await self._machine.host.read(scope, firewall=firewall)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        failures = []
        async with self._thread:
            for start in range(0, len(operations), PIECE):
                await self._call()
                failures += self._execute(operations[start : start + PIECE])
        return failures

    async def hints(self) -> AsyncIterator[Hint]:
        async for hint in self._machine.host.hints():
            await asyncio.sleep(self._loop.rng.random() * CALL_S)
            yield hint

    async def has_namespace(self, path: str) -> bool:
        await self._pass()
        return await self._machine.host.has_namespace(path)

    async def surroundings(self) -> Surroundings:
        await self._pass()
        host = self._machine.host
        places = tuple(HostAddress(address, 24, "eth0", host.mtu) for address in host.addresses)
        return Surroundings((), dict.fromkeys(host.addresses, host.mtu), "6.1", host.boot_id, places)

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        await self._call()
        inside = self._machine.host.tables.namespaces.get(netns)
        if inside is None:
            raise KernelRefused(f"{netns} is gone")
        return next((name for name, found in inside.items() if found.link == device and found.side.mac == mac), "")

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        await self._call()
        host = self._machine.host
        places = [host.tables.namespaces.get(path, {}) for path in (netns, OWN_NAMESPACE)]
        found = [one for place in places for one in place.values() if one.side.mac == mac]
        await host.apply([DeleteLink(host.tables.links[one.link]) for one in found])
        return bool(found)

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        await self._call()
        found = self._machine.host.tables.namespaces.get(netns, {}).get(interface)
        if found is None:
            raise KernelRefused(f"{interface} is gone")
        found.side = replace(found.side, routes=(*found.side.routes, (destination, prefix_length, b"")))

    async def close(self) -> None:
        return None

    def _execute(self, operations: Sequence[Operation]) -> list[Failure]:
        """Some fail without any reason of their own, as long as the machine is said to be out of something."""
        rng, share = self._loop.rng, self._machine.failing
        refused = [o for o in operations if share and not isinstance(o, NEVER_FAIL) and rng.random() < share]
        failures = [Failure(operation, errno.ENOMEM, "Cannot allocate memory") for operation in refused]
        return failures + self._machine.host.execute([o for o in operations if o not in refused])

    async def _call(self) -> None:
        await self._pass()
        if self._machine.failing and self._loop.rng.random() < self._machine.failing:
            raise KernelRefused("simulated: No buffer space available")

    async def _pass(self) -> None:
        await asyncio.sleep(self._loop.rng.random() * CALL_S)


class SimulatedNamespaces:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def look(self, namespace: str) -> Namespace:
        path = namespace if "/" in namespace else f"/run/netns/{namespace}"
        identity = await self.identity(path)
        if not identity:
            raise NamespaceNotFound(f"{namespace!r} is not a network namespace")
        return Namespace(path, identity, frozenset({"lo", *self._machine.host.tables.namespaces[path]}))

    async def identity(self, path: str) -> str:
        await asyncio.sleep(0)
        host = self._machine.host
        serial = host.serials.get(path) if path in host.tables.namespaces else None
        return "" if serial is None else f"{host.boot_id}:{serial}"
