"""The tables of one host's kernel in memory, and what each operation does to them: as strict as Linux.

What measurements on a real kernel showed is kept here (a deleted primary address takes its secondaries along, a route
is refused whose gateway nothing leads to ...); the lab asks the real one the same questions, so that the two cannot
drift apart. No I/O. An operation that the kernel would refuse raises `OSError` with its number and words.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from datapath import fake_links
from datapath.links import master
from datapath.objects import (
    AddAddress,
    Announce,
    Bridge,
    CloseGate,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Enslave,
    Firewall,
    Foreign,
    ForgetCallers,
    ForgetFlows,
    Gate,
    InterfaceAddress,
    Ip,
    Link,
    Mac,
    Neighbour,
    OpenGate,
    Operation,
    PortEntry,
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
    SetFirewall,
    SetSysctl,
    Shim,
    UpdateLink,
    Uplink,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.packing import FLOOD_MAC, IPV6_LENGTH, contains
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl, sysctls_of

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["OWN_NAMESPACE", "Flow", "Interface", "Tables"]


OWN_NAMESPACE = ""  # the host's, for interfaces that wait there to be moved


@dataclass(slots=True)
class Interface:
    """A workload's interface, with what its stack remembers of the neighbourhood. `link`: its veth or macvlan."""

    side: ContainerSide
    link: str
    cache: dict[Ip, Mac] = field(default_factory=dict)


class Flow(NamedTuple):
    """A tracked connection to a workload, as its reply tells it: address, protocol and port of the workload."""

    address: Ip
    protocol: int = 6
    port: int = 0


@dataclass(slots=True)
class Tables:
    """`namespaces`: path -> interface name -> interface. `vain`: operations that found nothing to do.

    fixed_mtus: the bridges that somebody gave an MTU, so that they do not follow their ports.
    underlay: the host's addresses there; `on_link`: the blocks that it reaches there without a router.
    uplinks: links of the host's own; `uplink_blocks`: their addresses with prefix lengths; `lans`: where they lead.
    gates: FORWARD chains of iptables, all with policy DROP -> whether our rule is in it. flows: what is tracked.
    bridge_calls_iptables: frames between ports of a bridge pass the gates too (br_netfilter).
    """

    links: dict[str, Link] = field(default_factory=dict)
    foreign: dict[str, Foreign] = field(default_factory=dict)
    fixed_mtus: set[str] = field(default_factory=set)
    addresses: list[InterfaceAddress] = field(default_factory=list)
    routes: dict[tuple[Ip, int], Route] = field(default_factory=dict)
    neighbours: dict[tuple[str, Ip], Mac] = field(default_factory=dict)
    vteps: dict[tuple[str, Mac], set[Ip]] = field(default_factory=dict)
    ports: dict[tuple[str, Mac], str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=lambda: dict.fromkeys(HOST_SYSCTLS, "0"))
    firewall: Firewall | None = None
    namespaces: dict[str, dict[str, Interface]] = field(default_factory=dict)
    announced: list[Neighbour] = field(default_factory=list)
    vain: list[Operation] = field(default_factory=list)
    underlay: tuple[Ip, ...] = ()
    on_link: tuple[tuple[Ip, int], ...] = ()
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    uplink_blocks: dict[str, tuple[tuple[Ip, int], ...]] = field(default_factory=dict)
    lans: dict[str, str] = field(default_factory=dict)
    gates: dict[Gate, bool] = field(default_factory=dict)
    flows: set[Flow] = field(default_factory=set)
    bridge_calls_iptables: bool = False

    def execute(self, operation: Operation) -> None:
        """Raises OSError where the kernel would refuse. What is already so is no failure."""
        match operation:
            case CreateLink(link, container):
                fake_links.create(self, operation, link, container)
            case UpdateLink(link, _):
                fake_links.update(self, link)
            case DeleteLink(link):
                fake_links.delete(self, operation, link.name)
            case Enslave(entry):
                fake_links.enslave(self, operation, entry)
            case Release(entry):
                fake_links.release(self, operation, entry)
            case SetSysctl(path, value):
                self._set_sysctl(path, value)
            case SetFirewall(firewall):
                self.firewall = firewall
            case OpenGate(gate) | CloseGate(gate):
                self._turn_gate(operation, gate, isinstance(operation, OpenGate))
            case ForgetFlows():
                self.flows = {flow for flow in self.flows if not _concerns(operation, flow)}
            case ForgetCallers():
                pass  # it tracks only what leads to workloads
            case _:
                self._execute_on_entries(operation)

    def _execute_on_entries(self, operation: Operation) -> None:
        match operation:
            case AddAddress(address):
                self._add_address(operation, address)
            case RemoveAddress(address):
                self._remove_address(operation, address)
            case ReplaceRoute(route):
                self._replace_route(route)
            case RemoveRoute(route):
                place = (route.destination, route.prefix_length)
                held = self.routes.get(place)
                self._forget(operation, self.routes, place, held is not None and held.device == route.device)
            case Announce(neighbour):
                self._announce(neighbour)
            case _:
                self._execute_on_forwarding(operation)

    def _execute_on_forwarding(self, operation: Operation) -> None:
        match operation:
            case ReplaceNeighbour(neighbour):
                self._require_ipv6(neighbour.device, neighbour.address, errno.EINVAL)
                self.neighbours[neighbour.device, neighbour.address] = neighbour.mac
            case RemoveNeighbour(neighbour):
                key = (neighbour.device, neighbour.address)
                self._forget(operation, self.neighbours, key, key in self.neighbours)
            case ReplaceVtep(entry):
                self._replace_vtep(entry)
            case RemoveVtep(entry):
                self._remove_vtep(operation, entry)
            case ReplacePort(entry):
                self.ports[self._bridge_of(entry.port), entry.mac] = entry.port
            case RemovePort(entry):
                link = self.links.get(entry.port)
                place = ("" if link is None else master(link), entry.mac)
                self._forget(operation, self.ports, place, self.ports.get(place) == entry.port)
            case _:
                raise OSError(errno.EINVAL, f"not an operation: {operation!r}")

    def _add_address(self, operation: Operation, wanted: InterfaceAddress) -> None:
        self._require_ipv6(wanted.device, wanted.address, errno.EACCES)
        if wanted in self.addresses:
            self.vain.append(operation)
            return
        if len(wanted.address) == IPV6_LENGTH and any(a[:2] == wanted[:2] for a in self.addresses):
            raise OSError(errno.EEXIST, "File exists")
        self.addresses.append(wanted)

    def _remove_address(self, operation: Operation, unwanted: InterfaceAddress) -> None:
        if unwanted not in self.addresses:
            self.vain.append(operation)
            return
        block = _block(unwanted)
        same = [a for a in self.addresses if a.device == unwanted.device and _block(a) == block]
        lost = same if len(unwanted.address) != IPV6_LENGTH and same[0] == unwanted else [unwanted]
        self.addresses = [address for address in self.addresses if address not in lost]
        if not any(len(a.address) == len(unwanted.address) for a in self.addresses if a.device == unwanted.device):
            self._last_address_went(unwanted)
        local = self.local_addresses() | {b""}
        if len(unwanted.address) == IPV6_LENGTH:  # the route stays, without its source
            self.routes = {k: r if r.source in local else r._replace(source=b"") for k, r in self.routes.items()}
        else:
            self.drop_routes(lambda route: route.source not in local)

    def _last_address_went(self, last: InterfaceAddress) -> None:
        """Measured: without an IPv4 address a device has no IPv4 neighbours and routes, PERMANENT ones included."""
        if len(last.address) == IPV6_LENGTH:
            return
        device, length = last.device, len(last.address)
        self.neighbours = {k: mac for k, mac in self.neighbours.items() if k[0] != device or len(k[1]) != length}
        self.drop_routes(lambda route: route.device == device and len(route.destination) == length)

    def _replace_route(self, route: Route) -> None:
        if route.gateway and len(route.gateway) != len(route.destination):
            raise OSError(errno.EINVAL, "Invalid gateway address family")
        if route.device:
            self._require_ipv6(route.device, route.destination, errno.EACCES)
            link = self.links[route.device]
            if not isinstance(link, Bridge | Vxlan | Shim) or not link.up:
                raise OSError(errno.ENETDOWN, "Network is down")
        if route.gateway and not route.onlink and not self.is_on_link(route.gateway):
            v6 = len(route.gateway) == IPV6_LENGTH
            raise OSError(errno.EHOSTUNREACH if v6 else errno.ENETUNREACH, "Nexthop has invalid gateway")
        if route.source and route.source not in self.local_addresses():
            raise OSError(errno.EINVAL, "Invalid prefsrc address")
        self.routes[route.destination, route.prefix_length] = route

    def is_on_link(self, gateway: Ip) -> bool:
        blocks = [*self.on_link, *(block for blocks in self.uplink_blocks.values() for block in blocks)]
        return any(contains(block, length, gateway) for block, length in blocks)

    def drop_routes(self, is_lost: Callable[[Route], bool]) -> None:
        self.routes = {key: route for key, route in self.routes.items() if not is_lost(route)}

    def _replace_vtep(self, entry: VtepEntry) -> None:
        link = self.links.get(entry.device)
        if not isinstance(link, Vxlan):
            raise OSError(errno.ENODEV, f"{entry.device}: No such device")
        if len(link.local) != len(entry.remote):
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        key = (entry.device, entry.mac)
        self.vteps[key] = self.vteps.get(key, set()) | {entry.remote} if entry.mac == FLOOD_MAC else {entry.remote}

    def _remove_vtep(self, operation: Operation, entry: VtepEntry) -> None:
        remotes = self.vteps.get((entry.device, entry.mac), set())
        if entry.remote not in remotes:
            self.vain.append(operation)
            return
        remotes.discard(entry.remote)
        if not remotes:
            del self.vteps[entry.device, entry.mac]

    def _announce(self, neighbour: Neighbour) -> None:
        """Reaches the workloads on the bridge; a stack takes it only for an address that it already knows."""
        if neighbour.device not in self.links:
            raise OSError(errno.ENODEV, f"{neighbour.device}: No such device")
        self.announced.append(neighbour)
        for interface in self.interfaces_on(neighbour.device):
            if neighbour.address in interface.cache:
                interface.cache[neighbour.address] = neighbour.mac

    def _set_sysctl(self, path: str, value: str) -> None:
        if path not in self.sysctls:
            raise OSError(errno.ENOENT, f"/proc/sys/{path}: No such file or directory")
        self.sysctls[path] = value
        device = device_of_sysctl(path)
        if path.endswith("/disable_ipv6") and device in self.links:
            fake_links.set_ipv6(self, device, value == "0")

    def _turn_gate(self, operation: Operation, gate: Gate, is_open: bool) -> None:
        if gate not in self.gates:
            raise OSError(errno.ENOENT, "No chain/target/match by that name")
        if self.gates[gate] == is_open:
            self.vain.append(operation)
        self.gates[gate] = is_open

    def interfaces_on(self, bridge: str) -> Iterator[Interface]:
        """The workloads' interfaces whose other half is an enslaved port of the bridge that is up."""
        for interfaces in self.namespaces.values():
            for interface in interfaces.values():
                link = self.links.get(interface.link)
                if isinstance(link, Veth) and link.bridge == bridge and link.up:
                    yield interface

    def add_interface(self, side: ContainerSide, link: str) -> None:
        self.namespaces[self.place_of(side)][side.interface] = Interface(side, link)

    def place_of(self, side: ContainerSide) -> str:
        """The namespace where an interface is born."""
        if not side.is_handed_over:
            return side.netns
        self.namespaces.setdefault(OWN_NAMESPACE, {})
        return OWN_NAMESPACE

    def interface_of(self, link: str) -> tuple[str, Interface] | None:
        """The namespace and the interface that belong to a veth or macvlan."""
        found = ((path, i) for path, all_ in self.namespaces.items() for i in all_.values() if i.link == link)
        return next(found, None)

    def macs_on(self, uplink: str, but: str = "") -> set[Mac]:
        """Of the macvlans there."""
        found = set()
        for link in self.links.values():
            if isinstance(link, Shim) and link.uplink == uplink and link.name != but:
                found.add(link.mac)
        for interfaces in self.namespaces.values():
            for interface in interfaces.values():
                other = self.links.get(interface.link)
                if getattr(other, "uplink", "") == uplink and interface.link != but:
                    found.add(interface.side.mac)
        return found

    def local_addresses(self) -> set[Ip]:
        own = {address for blocks in self.uplink_blocks.values() for address, _ in blocks}
        return {*self.underlay, *own, *(address.address for address in self.addresses)}

    def port_entries(self) -> Iterator[PortEntry]:
        return (PortEntry(port, mac) for (_, mac), port in self.ports.items())

    def vtep_entries(self) -> Iterator[VtepEntry]:
        return (VtepEntry(*key, remote) for key, remotes in self.vteps.items() for remote in remotes)

    def neighbour_entries(self) -> Iterator[Neighbour]:
        return (Neighbour(*key, mac) for key, mac in self.neighbours.items())

    def settings_of(self, link: Link) -> dict[str, str]:
        return {path: self.sysctls[path] for path in sorted(sysctls_of(link))}

    def _bridge_of(self, port: str) -> str:
        link = self.links.get(port)
        if link is None:
            raise OSError(errno.ENODEV, f"{port}: No such device")
        if not master(link):
            raise OSError(errno.EOPNOTSUPP, f"{port} has no master: Operation not supported")
        return master(link)

    def _require_ipv6(self, device: str, address: Ip, refusal: int) -> None:
        if device not in self.links:
            raise OSError(errno.ENODEV, f"{device}: No such device")
        if len(address) == IPV6_LENGTH and self.sysctls.get(f"net/ipv6/conf/{device}/disable_ipv6") != "0":
            raise OSError(refusal, "IPv6 is disabled on this device")

    def _forget(self, operation: Operation, table: dict[K, V], key: K, is_there: bool) -> None:
        if is_there:
            del table[key]
        else:
            self.vain.append(operation)


def _concerns(operation: ForgetFlows, flow: Flow) -> bool:
    is_all = not operation.protocol and not operation.port
    return flow.address == operation.address and (is_all or flow[1:] == (operation.protocol, operation.port))


def _block(address: InterfaceAddress) -> tuple[int, int]:
    shift = len(address.address) * 8 - address.prefix_length
    return address.prefix_length, int.from_bytes(address.address, "big") >> shift
