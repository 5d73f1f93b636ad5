"""A kernel in memory: executes plans as strictly as Linux, can be damaged, and answers where a packet ends up.

The property tests and the worker's tests run on it; nothing of the product does. A `FakeFabric` joins the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from datapath.fabric import FakeFabric
from datapath.fake_links import follow_ports
from datapath.fake_tables import Flow, Tables
from datapath.names import bridge_name, is_of_docker, shim_name, vxlan_name
from datapath.objects import (
    EVERYTHING,
    AddAddress,
    Announce,
    CloseGate,
    CreateLink,
    DeleteLink,
    Enslave,
    Enslavement,
    Failure,
    Firewall,
    Foreign,
    ForgetCallers,
    ForgetFlows,
    Gate,
    Hint,
    HostState,
    Ip,
    Link,
    Macvlan,
    OpenGate,
    Operation,
    Release,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    Scope,
    SetFirewall,
    SetSysctl,
    UpdateLink,
    Uplink,
    Veth,
)
from datapath.packing import contains
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl

__all__ = ["FakeFabric", "FakeKernel", "Flow"]

_ON_LINK = {4: 24, 16: 64}  # of an underlay address of which nobody said what is on its link


@dataclass(slots=True)
class _Touched:
    """What the next hint will tell."""

    devices: set[str] = field(default_factory=set)
    routes: set[tuple[Ip, int]] = field(default_factory=set)
    firewall: bool = False
    host: bool = False
    underlay: bool = False
    everything: bool = False

    def hint(self) -> Hint:
        if self.everything:
            return Hint()
        return Hint(frozenset(self.devices), self.firewall, frozenset(self.routes), self.host, self.underlay)


class FakeKernel:
    """The `Kernel` port for one host.

    Attributes:
        tables: what there is; tests may look, and change it through `meddle`.
        segment: hosts of one segment of the underlay reach each other without a router.
        failures: every operation that was ever refused.
    """

    def __init__(
        self,
        name: str = "host",
        underlay: Sequence[Ip] = (),
        *,
        segment: str = "",
        on_link: Sequence[tuple[Ip, int]] | None = None,
    ) -> None:
        self.name = name
        self.segment = segment
        blocks = [(address, _ON_LINK[len(address)]) for address in underlay] if on_link is None else on_link
        self.tables = Tables(underlay=tuple(underlay), on_link=tuple(blocks))
        self.failures: list[Failure] = []
        self._touched = _Touched()
        self._hint = asyncio.Event()
        self._homes: dict[str, str] = {}  # which bridge an interface was last seen in, as the real reader remembers

    @property
    def underlay(self) -> tuple[Ip, ...]:
        """This host's addresses on the fabric."""
        return self.tables.underlay

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        return self.state(scope, firewall=firewall)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        return self.execute(operations)

    async def hints(self) -> AsyncIterator[Hint]:
        while True:
            await self._hint.wait()
            self._hint.clear()
            touched, self._touched = self._touched, _Touched()
            yield touched.hint()

    async def has_namespace(self, path: str) -> bool:
        return path in self.tables.namespaces

    async def close(self) -> None:
        """Nothing is open."""

    def state(self, scope: Scope | str | None = None, *, firewall: bool = True) -> HostState:
        """As the real kernel would be read; None: even what nobody could find there (workloads' macvlans, uplinks)."""
        tables = self.tables
        asked = self._all() if scope is None else Scope(scope) if isinstance(scope, str) else scope
        links = {n: link for n, link in tables.links.items() if self._is_in(link, asked)}
        uplinks = {name: tables.uplinks[name] for name in sorted(asked.uplinks) if name in tables.uplinks}
        settings = {path: value for link in links.values() for path, value in tables.settings_of(link).items()}
        if not asked.network:
            settings |= {path: tables.sysctls[path] for path in HOST_SYSCTLS}
        places = {name: tables.interface_of(name) for name, link in links.items() if isinstance(link, Macvlan)}
        return HostState(
            links=links,
            addresses=frozenset(address for address in tables.addresses if address.device in links),
            routes=frozenset(r for r in tables.routes.values() if _is_route_in(r, links, asked)),
            neighbours=frozenset(n for n in tables.neighbour_entries() if n.device in links),
            vteps=frozenset(v for v in tables.vtep_entries() if v.device in links),
            ports=frozenset(p for p in tables.port_entries() if p.port in links),
            sysctls=settings,
            firewall=tables.firewall if firewall else None,
            containers={name: place[1].side for name, place in places.items() if place is not None},
            foreign=dict(tables.foreign),
            enslaved=frozenset(
                Enslavement(n, uplink.bridge) for n, uplink in uplinks.items() if uplink.bridge in links
            ),
            uplinks=uplinks,
            gates=dict(tables.gates) if firewall else None,
            dockers=frozenset(filter(self._is_docker, [*tables.foreign, *tables.uplinks])) if firewall else frozenset(),
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

    def meddle(self, *operations: Operation) -> None:
        """Somebody else does this by hand; what the kernel refuses just does not happen."""
        refused = len(self.failures)
        self.execute(operations)
        del self.failures[refused:]
        self.tables.vain.clear()

    def set_firewall(self, firewall: Firewall | None) -> None:
        """Somebody flushes or changes the rules; None: they are damaged beyond reading."""
        self.tables.firewall = firewall
        self._touch_firewall()

    def set_gate(self, gate: Gate, is_open: bool | None = False) -> None:
        """A FORWARD chain with policy DROP comes up, or our rule in it comes or goes; None: the chain is no more."""
        if is_open is None:
            self.tables.gates.pop(gate, None)
        else:
            self.tables.gates[gate] = is_open
        self._touch_firewall()

    def add_foreign(self, foreign: Foreign) -> None:
        self.tables.foreign[foreign.name] = foreign
        self._touch_other(foreign.name)

    def remove_foreign(self, name: str) -> None:
        self._touch_other(name)
        del self.tables.foreign[name]

    def set_uplink(self, uplink: Uplink, *, lan: str = "", blocks: Sequence[tuple[Ip, int]] = ()) -> None:
        """A link of the host's own comes or changes. `lan`: the physical segment behind it; `blocks`: its addresses."""
        tables = self.tables
        tables.uplinks[uplink.name] = replace(uplink, has_addresses=bool(blocks))
        tables.uplink_blocks[uplink.name] = tuple(blocks)
        tables.lans[uplink.name] = lan or tables.lans.get(uplink.name, "")
        self._touch_other(uplink.name)

    def remove_uplink(self, name: str) -> None:
        """What stands on it goes with it."""
        self._touch_other(name)
        gone = self.tables.uplinks.pop(name)
        self.tables.uplink_blocks.pop(name, None)
        self.meddle(*(DeleteLink(n) for n in list(self.tables.links.values()) if getattr(n, "uplink", "") == name))
        for port in [link for link in self.tables.links.values() if isinstance(link, Veth) and link.bridge == name]:
            self.meddle(UpdateLink(replace(port, bridge=""), port))
        follow_ports(self.tables, gone.bridge)

    def add_namespace(self, path: str) -> None:
        self.tables.namespaces.setdefault(path, {})

    def remove_namespace(self, path: str) -> None:
        """The workload is gone, and both halves of its interfaces with it."""
        for interface in list(self.tables.namespaces.get(path, {}).values()):
            self.tables.execute(DeleteLink(self.tables.links[interface.link]))
            self._touch_device(interface.link)
        self.tables.namespaces.pop(path, None)

    def set_underlay(self, *addresses: Ip) -> None:
        """The host's addresses change while it runs; routes via whom it no longer reaches are lost."""
        tables = self.tables
        tables.underlay = addresses
        tables.on_link = tuple((address, _ON_LINK[len(address)]) for address in addresses)
        tables.drop_routes(lambda route: not route.device and not tables.is_on_link(route.gateway))
        self._touched.underlay = True
        self._hint.set()

    def lose_events(self) -> None:
        """The event socket overran: the next hint is for everything."""
        self._touched.everything = True
        self._hint.set()

    def age_caches(self) -> None:
        """Time enough passes for the workloads' stacks to forget whom they knew."""
        for interfaces in self.tables.namespaces.values():
            for interface in interfaces.values():
                interface.cache.clear()

    def _all(self) -> Scope:
        found = {name: self.tables.interface_of(name) for name in self.tables.links}
        inside = {name: (place[0], place[1].side.interface) for name, place in found.items() if place is not None}
        return Scope(uplinks=frozenset(self.tables.uplinks), inside=inside)

    def _is_in(self, link: Link, scope: Scope) -> bool:
        """An interface that somebody took out of its bridge still belongs to the network where it was seen last."""
        if isinstance(link, Macvlan):
            place = scope.inside.get(link.name)
            found = self.tables.namespaces.get(place[0], {}).get(place[1]) if place is not None else None
            return found is not None and found.link == link.name
        if not scope.network:
            return True
        if isinstance(link, Veth):
            home = link.bridge or self._homes.get(link.name, "")
            return home in {bridge_name(scope.network), scope.bridge or "-", *scope.uplinks}
        names = {bridge_name(scope.network), vxlan_name(scope.network), shim_name(scope.network), scope.bridge}
        return link.name in names

    def _is_docker(self, name: str) -> bool:
        foreign, uplink = self.tables.foreign.get(name), self.tables.uplinks.get(name)
        is_bridge = (foreign is not None and foreign.kind == "bridge") or (uplink is not None and uplink.is_bridge)
        return is_bridge and is_of_docker(name)

    def _touch(self, operation: Operation) -> None:
        match operation:
            case SetFirewall() | OpenGate() | CloseGate():
                self._touch_firewall()
            case SetSysctl(path, _) if path in HOST_SYSCTLS:
                self._touched.host = True
                self._hint.set()
            case ReplaceRoute(route) | RemoveRoute(route) if not route.device:
                self._touched.routes.add((route.destination, route.prefix_length))
                self._hint.set()
            case _:
                for device in _devices_of(operation):
                    self._touch_device(device)

    def _touch_firewall(self) -> None:
        self._touched.firewall = True
        self._hint.set()

    def _touch_other(self, name: str) -> None:
        """A link that is not ours comes or goes."""
        self._touched.host |= self._is_docker(name)
        self._touch_device(name)

    def _touch_device(self, name: str) -> None:
        self._touched.devices.add(name)
        self._hint.set()


def _is_route_in(route: Route, links: Mapping[str, Link], scope: Scope) -> bool:
    if route.device:
        return route.device in links
    return not scope.network or any(contains(*block, route.destination) for block in scope.blocks)


def _devices_of(operation: Operation) -> list[str]:
    """The devices whose change the kernel would tell; announcements and connections give no event."""
    match operation:
        case SetSysctl(path, _):
            return [device_of_sysctl(path) or ""]
        case AddAddress(address) | RemoveAddress(address):
            return [address.device]
        case ReplaceRoute(route) | RemoveRoute(route):
            return [route.device]
        case ReplaceNeighbour(neighbour) | RemoveNeighbour(neighbour):
            return [neighbour.device]
        case ReplaceVtep(entry) | RemoveVtep(entry):
            return [entry.device]
        case ReplacePort(entry) | RemovePort(entry):
            return [entry.port]
        case Enslave(entry) | Release(entry):
            return [entry.uplink, entry.bridge]
        case CreateLink(link) | UpdateLink(link) | DeleteLink(link):
            return [link.name]
        case SetFirewall() | OpenGate() | CloseGate() | Announce() | ForgetFlows() | ForgetCallers():
            return []
