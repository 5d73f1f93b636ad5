"""A kernel in memory: executes plans as strictly as Linux, can be damaged, and answers where a packet ends up.

The property tests and the worker's tests run on it; nothing of the product does. A `FakeFabric` joins the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from datapath.fabric import FakeFabric
from datapath.fake_tables import Tables
from datapath.names import network_of_device
from datapath.objects import (
    EVERYTHING,
    AddAddress,
    Announce,
    DeleteLink,
    Failure,
    Firewall,
    Foreign,
    Hint,
    HostState,
    Ip,
    Link,
    Operation,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Scope,
    SetFirewall,
    SetSysctl,
    Veth,
)
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl

__all__ = ["FakeFabric", "FakeKernel"]


class FakeKernel:
    """The `Kernel` port for one host.

    Attributes:
        tables: what there is; tests may look, and change it through `meddle`.
        underlay: this host's addresses on the fabric.
        failures: every operation that was ever refused.
    """

    def __init__(self, name: str = "host", underlay: Sequence[Ip] = ()) -> None:
        self.name = name
        self.underlay = tuple(underlay)
        self.tables = Tables()
        self.failures: list[Failure] = []
        self._touched: set[str] = set()
        self._touched_firewall = False
        self._touched_all = False
        self._hint = asyncio.Event()
        self._homes: dict[str, str] = {}  # which bridge an interface was last seen in, as the real reader remembers

    # --- the port

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        return self.state(scope.network or None, firewall=firewall)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        return self.execute(operations)

    async def hints(self) -> AsyncIterator[Hint]:
        while True:
            await self._hint.wait()
            self._hint.clear()
            devices = frozenset() if self._touched_all else frozenset(self._touched)
            hint = Hint(devices, self._touched_firewall)
            self._touched, self._touched_firewall, self._touched_all = set(), False, False
            yield hint

    async def has_namespace(self, path: str) -> bool:
        return path in self.tables.namespaces

    async def close(self) -> None:
        """Nothing is open."""

    # --- the same without waiting, for tests that need no loop

    def state(self, network_id: str | None = None, *, firewall: bool = True) -> HostState:
        tables = self.tables
        links = {n: link for n, link in tables.links.items() if network_id in (None, self._network_of(link))}
        settings = {path: value for link in links.values() for path, value in tables.settings_of(link).items()}
        if network_id is None:
            settings |= {path: tables.sysctls[path] for path in HOST_SYSCTLS}
        return HostState(
            links=links,
            addresses=frozenset(address for address in tables.addresses if address.device in links),
            routes=frozenset(route for route in tables.routes.values() if route.device in links),
            neighbours=frozenset(n for n in tables.neighbour_entries() if n.device in links),
            vteps=frozenset(v for v in tables.vtep_entries() if v.device in links),
            ports=frozenset(p for p in tables.port_entries() if p.port in links),
            sysctls=settings,
            firewall=tables.firewall if firewall and network_id is None else None,
            foreign=dict(tables.foreign),
        )

    def execute(self, operations: Sequence[Operation]) -> list[Failure]:
        failures = []
        for operation in operations:
            try:
                self.tables.execute(operation)
            except OSError as error:
                failures.append(Failure(operation, error.errno or 0, error.strerror or ""))
            self._touch(operation)
        self._homes |= {n: ln.bridge for n, ln in self.tables.links.items() if isinstance(ln, Veth) and ln.bridge}
        self.failures += failures
        return failures

    # --- what others do to it

    def meddle(self, *operations: Operation) -> None:
        """Somebody else does this by hand; what the kernel refuses just does not happen."""
        refused = len(self.failures)
        self.execute(operations)
        del self.failures[refused:]
        self.tables.vain.clear()

    def set_firewall(self, firewall: Firewall | None) -> None:
        """Somebody flushes or changes the rules; None: they are damaged beyond reading."""
        self.tables.firewall = firewall
        self._touched_firewall = True
        self._hint.set()

    def add_foreign(self, foreign: Foreign) -> None:
        self.tables.foreign[foreign.name] = foreign
        self._touch_device(foreign.name)

    def remove_foreign(self, name: str) -> None:
        del self.tables.foreign[name]
        self._touch_device(name)

    def add_namespace(self, path: str) -> None:
        self.tables.namespaces.setdefault(path, {})

    def remove_namespace(self, path: str) -> None:
        """The workload is gone, and both halves of its interfaces with it."""
        for interface in list(self.tables.namespaces.get(path, {}).values()):
            self.tables.execute(DeleteLink(self.tables.links[interface.veth]))
            self._touch_device(interface.veth)
        self.tables.namespaces.pop(path, None)

    def lose_events(self) -> None:
        """The event socket overran: the next hint is for everything."""
        self._touched_all = True
        self._hint.set()

    def age_caches(self) -> None:
        """Time enough passes for the workloads' stacks to forget whom they knew."""
        for interfaces in self.tables.namespaces.values():
            for interface in interfaces.values():
                interface.cache.clear()

    def _network_of(self, link: Link) -> str | None:
        """An interface that somebody took out of its bridge still belongs to the network where it was seen last."""
        name = link.bridge or self._homes.get(link.name, "") if isinstance(link, Veth) else link.name
        return network_of_device(name)

    def _touch(self, operation: Operation) -> None:
        if isinstance(operation, SetFirewall):
            self._touched_firewall = True
            self._hint.set()
            return
        device = _device_of(operation)
        if device is not None:
            self._touch_device(device)

    def _touch_device(self, name: str) -> None:
        self._touched.add(name)
        self._hint.set()


def _device_of(operation: Operation) -> str | None:
    """The device whose change the kernel would tell; settings and announcements give no event."""
    match operation:
        case SetSysctl(path, _):
            return None if path.endswith("forward") else device_of_sysctl(path)
        case SetFirewall() | Announce():
            return None
        case AddAddress(address) | RemoveAddress(address):
            return address.device
        case ReplaceRoute(route) | RemoveRoute(route):
            return route.device
        case ReplaceNeighbour(neighbour) | RemoveNeighbour(neighbour):
            return neighbour.device
        case ReplaceVtep(entry) | RemoveVtep(entry):
            return entry.device
        case ReplacePort(entry) | RemovePort(entry):
            return entry.port
        case _:
            return operation.link.name
