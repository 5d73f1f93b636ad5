"""The tables of one host's kernel in memory, and what each operation does to them: as strict as Linux.

What measurements on a real kernel showed is kept here (a bridge that goes down forgets its neighbours, a deleted
primary address takes its secondaries along ...); the lab asks the real one the same questions, so that the two cannot
drift apart. No I/O. An operation that the kernel would refuse raises `OSError` with its number and words.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from datapath.links import segment
from datapath.objects import (
    AddAddress,
    Announce,
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Firewall,
    Foreign,
    InterfaceAddress,
    Ip,
    Link,
    Mac,
    Neighbour,
    Operation,
    PortEntry,
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
    UpdateLink,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.packing import FLOOD_MAC, IPV6_LENGTH
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl, device_sysctls

K = TypeVar("K")
V = TypeVar("V")

BRIDGE_MTU = 1500  # of a bridge that nobody gave one: the smallest of its ports', and this without any
MAX_BRIDGE_PORTS = 1023  # measured: port 1,024 fails with EXFULL
_KERNEL_DEFAULTS = {"disable_ipv6": "0", "accept_ra": "1", "autoconf": "1"}


@dataclass(slots=True)
class Interface:
    """The workload's half of a veth, with what its stack remembers of the neighbourhood."""

    side: ContainerSide
    veth: str
    cache: dict[Ip, Mac] = field(default_factory=dict)


@dataclass(slots=True)
class Tables:
    """`namespaces`: path -> interface name -> interface. `vain`: operations that found nothing to do.

    `fixed_mtus`: the bridges that somebody gave an MTU, so that they do not follow their ports.
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

    def execute(self, operation: Operation) -> None:
        """Raises OSError where the kernel would refuse. What is already so is no failure."""
        match operation:
            case CreateLink(link, container):
                self._create(operation, link, container)
            case UpdateLink(link, _):
                self._update(link)
            case DeleteLink(link):
                self._delete(operation, link.name)
            case AddAddress(address):
                self._add_address(operation, address)
            case RemoveAddress(address):
                self._remove_address(operation, address)
            case ReplaceRoute(route):
                self._replace_route(route)
            case RemoveRoute(route):
                key = (route.destination, route.prefix_length)
                held = self.routes.get(key)
                self._forget(operation, self.routes, key, held is not None and held.device == route.device)
            case SetSysctl(path, value):
                self._set_sysctl(path, value)
            case SetFirewall(firewall):
                self.firewall = firewall
            case Announce(neighbour):
                self._announce(neighbour)
            case _:
                self._execute_forwarding(operation)

    def _execute_forwarding(self, operation: Operation) -> None:
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
                place = ("" if link is None else _master(link), entry.mac)
                self._forget(operation, self.ports, place, self.ports.get(place) == entry.port)
            case _:
                raise OSError(errno.EINVAL, f"not an operation: {operation!r}")

    # --- links

    def _create(self, operation: Operation, link: Link, container: ContainerSide | None) -> None:
        if self._is_adopted(operation, link, container):
            return
        if link.name in self.links or link.name in self.foreign:
            raise OSError(errno.EEXIST, f"{link.name}: File exists")
        if isinstance(link, Vxlan):
            self._require_free_vni(link)
        if _master(link):
            self._require_room(_master(link))
        if isinstance(link, Veth):
            self._create_inside(link, container)
        self.links[link.name] = replace(link, ipv6=True) if isinstance(link, Bridge) else _as_port(link)
        for name, value in _KERNEL_DEFAULTS.items():
            self.sysctls[f"net/ipv6/conf/{link.name}/{name}"] = value
        self._settle_mtu(link, BRIDGE_MTU)

    def _is_adopted(self, operation: Operation, link: Link, container: ContainerSide | None) -> bool:
        """Ours and of that kind: brought to what is wanted. An interface that leads somewhere else has to go."""
        held = self.links.get(link.name)
        if held is None or type(held) is not type(link):
            return False
        if isinstance(held, Vxlan) and isinstance(link, Vxlan) and segment(held) != segment(link):
            return False
        if isinstance(link, Veth) and container is not None:
            interface = self.namespaces.get(container.netns, {}).get(container.interface)
            if interface is None or interface.veth != link.name:
                self._delete(operation, link.name)
                return False
        self._update(link)
        self.vain.append(operation)
        return True

    def _create_inside(self, link: Veth, container: ContainerSide | None) -> None:
        if container is None:
            raise OSError(errno.EINVAL, f"{link.name}: no namespace given for its other half")
        namespace = self.namespaces.get(container.netns)
        if namespace is None:
            raise OSError(errno.ENOENT, f"{container.netns}: No such network namespace")
        if container.interface in namespace:
            raise OSError(errno.EEXIST, f"{container.interface} in {container.netns}: File exists")
        namespace[container.interface] = Interface(container, link.name)

    def _require_free_vni(self, wanted: Vxlan) -> None:
        ours = any(isinstance(link, Vxlan) and link.vni == wanted.vni for link in self.links.values())
        if ours or any(other.vni == wanted.vni for other in self.foreign.values()):
            raise OSError(errno.EEXIST, "A VXLAN device with the specified VNI already exists")

    def _require_room(self, bridge: str) -> None:
        if not isinstance(self.links.get(bridge), Bridge):
            raise OSError(errno.ENODEV, f"{bridge}: No such device")
        ports = sum(1 for link in self.links.values() if _master(link) == bridge)
        if ports >= MAX_BRIDGE_PORTS:
            raise OSError(errno.EXFULL, f"{bridge}: Exchange full")

    def _update(self, link: Link) -> None:
        held = self.links.get(link.name)
        if held is None:
            raise OSError(errno.ENODEV, f"{link.name}: No such device")
        if type(held) is not type(link):
            raise OSError(errno.EOPNOTSUPP, f"{link.name}: cannot change its kind")
        if isinstance(held, Vxlan) and isinstance(link, Vxlan) and segment(held) != segment(link):
            raise OSError(errno.EOPNOTSUPP, "Cannot change VNI")
        if _master(held) != _master(link):
            if _master(link):
                self._require_room(_master(link))
            self._forget_ports(link.name)
        if isinstance(link, Bridge) and isinstance(held, Bridge):  # whether it has IPv6 is a setting, changed as such
            self.links[link.name] = replace(link, ipv6=_has_ipv6(held))
            if held.up and not link.up:
                self._bridge_went_down(link.name)
            if held.mac != link.mac:
                self._forget_neighbours(link.name)
        elif not isinstance(link, Bridge):
            self.links[link.name] = _as_port(link)
            self._follow_ports(_master(held))
        self._settle_mtu(link, held.mtu)

    def _bridge_went_down(self, name: str) -> None:
        """Measured: all neighbours go, PERMANENT ones included, IPv6 addresses and all routes too."""
        self._forget_neighbours(name)
        self.addresses = [a for a in self.addresses if a.device != name or len(a.address) != IPV6_LENGTH]
        self.routes = {key: route for key, route in self.routes.items() if route.device != name}

    def _delete(self, operation: Operation, name: str) -> None:
        if name in self.foreign:
            raise OSError(errno.EPERM, f"{name} is not kvnet's")
        link = self.links.pop(name, None)
        if link is None:
            self.vain.append(operation)
            return
        self._forget_ports(name)
        self._forget_neighbours(name)
        self.addresses = [address for address in self.addresses if address.device != name]
        self.routes = {key: route for key, route in self.routes.items() if route.device != name}
        self.vteps = {key: remotes for key, remotes in self.vteps.items() if key[0] != name}
        self.sysctls = {path: value for path, value in self.sysctls.items() if device_of_sysctl(path) != name}
        for interfaces in self.namespaces.values():
            for interface in [i for i, other in interfaces.items() if other.veth == name]:
                del interfaces[interface]
        if isinstance(link, Bridge):
            self.ports = {key: port for key, port in self.ports.items() if key[0] != name}
            for port in [p for p in self.links.values() if not isinstance(p, Bridge) and p.bridge == name]:
                self.links[port.name] = _as_port(replace(port, bridge=""))
            self.fixed_mtus.discard(name)
        else:
            self._follow_ports(link.bridge)

    def _forget_neighbours(self, name: str) -> None:
        """Measured: also when the device gets another MAC."""
        self.neighbours = {key: mac for key, mac in self.neighbours.items() if key[0] != name}

    def _settle_mtu(self, link: Link, before: int) -> None:
        """Only a change of its MTU fixes a bridge's; that of a port may change its bridge's."""
        if not isinstance(link, Bridge):
            self._follow_ports(link.bridge)
        elif link.mtu != before:
            self.fixed_mtus.add(link.name)

    def _follow_ports(self, bridge: str) -> None:
        link = self.links.get(bridge)
        if isinstance(link, Bridge) and bridge not in self.fixed_mtus:
            mtus = [p.mtu for p in self.links.values() if _master(p) == bridge]
            self.links[bridge] = replace(link, mtu=min(mtus, default=BRIDGE_MTU))

    def _forget_ports(self, name: str) -> None:
        self.ports = {key: port for key, port in self.ports.items() if port != name}

    # --- addresses and routes

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
        local = {address.address for address in self.addresses} | {b""}
        if len(unwanted.address) == IPV6_LENGTH:  # the route stays, without its source
            self.routes = {k: r if r.source in local else r._replace(source=b"") for k, r in self.routes.items()}
        else:
            self.routes = {key: route for key, route in self.routes.items() if route.source in local}

    def _last_address_went(self, last: InterfaceAddress) -> None:
        """Measured: without an IPv4 address a device has no IPv4 neighbours and routes, PERMANENT ones included."""
        if len(last.address) == IPV6_LENGTH:
            return
        device, length = last.device, len(last.address)
        self.neighbours = {k: mac for k, mac in self.neighbours.items() if k[0] != device or len(k[1]) != length}
        self.routes = {k: route for k, route in self.routes.items() if route.device != device or len(k[0]) != length}

    def _replace_route(self, route: Route) -> None:
        self._require_ipv6(route.device, route.destination, errno.EACCES)
        if not self.links[route.device].up:
            raise OSError(errno.ENETDOWN, "Network is down")
        if route.source and not any(address.address == route.source for address in self.addresses):
            raise OSError(errno.EINVAL, "Invalid prefsrc address")
        self.routes[route.destination, route.prefix_length] = route

    # --- forwarding

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

    # --- settings

    def _set_sysctl(self, path: str, value: str) -> None:
        if path not in self.sysctls:
            raise OSError(errno.ENOENT, f"/proc/sys/{path}: No such file or directory")
        self.sysctls[path] = value
        device = device_of_sysctl(path)
        if path.endswith("/disable_ipv6") and isinstance(self.links.get(device or ""), Bridge):
            self._set_ipv6(device or "", value == "0")

    def _set_ipv6(self, name: str, on: bool) -> None:
        """Without IPv6 a device has no IPv6 address, neighbour or route."""
        link = self.links[name]
        if isinstance(link, Bridge):
            self.links[name] = replace(link, ipv6=on)
        self.sysctls[f"net/ipv6/conf/{name}/disable_ipv6"] = "0" if on else "1"
        if not on:
            self.neighbours = {k: m for k, m in self.neighbours.items() if k[0] != name or len(k[1]) != IPV6_LENGTH}
            self.addresses = [a for a in self.addresses if a.device != name or len(a.address) != IPV6_LENGTH]
            self.routes = {k: r for k, r in self.routes.items() if r.device != name or len(k[0]) != IPV6_LENGTH}

    # --- questions

    def interfaces_on(self, bridge: str) -> Iterator[Interface]:
        """The workloads' interfaces whose other half is an enslaved port of the bridge that is up."""
        for interfaces in self.namespaces.values():
            for interface in interfaces.values():
                link = self.links.get(interface.veth)
                if isinstance(link, Veth) and link.bridge == bridge and link.up:
                    yield interface

    def port_entries(self) -> Iterator[PortEntry]:
        return (PortEntry(port, mac) for (_, mac), port in self.ports.items())

    def vtep_entries(self) -> Iterator[VtepEntry]:
        return (VtepEntry(*key, remote) for key, remotes in self.vteps.items() for remote in remotes)

    def neighbour_entries(self) -> Iterator[Neighbour]:
        return (Neighbour(*key, mac) for key, mac in self.neighbours.items())

    def settings_of(self, link: Link) -> dict[str, str]:
        return {path: self.sysctls[path] for path in device_sysctls(link)}

    def _bridge_of(self, port: str) -> str:
        link = self.links.get(port)
        if link is None:
            raise OSError(errno.ENODEV, f"{port}: No such device")
        if not _master(link):
            raise OSError(errno.EOPNOTSUPP, f"{port} has no master: Operation not supported")
        return _master(link)

    def _require_ipv6(self, device: str, address: Ip, refusal: int) -> None:
        link = self.links.get(device)
        if link is None:
            raise OSError(errno.ENODEV, f"{device}: No such device")
        if len(address) == IPV6_LENGTH and not _has_ipv6(link):
            raise OSError(refusal, "IPv6 is disabled on this device")

    def _forget(self, operation: Operation, table: dict[K, V], key: K, is_there: bool) -> None:
        if is_there:
            del table[key]
        else:
            self.vain.append(operation)


def _as_port(link: Vxlan | Veth) -> Link:
    """Without a bridge a link has no port flags."""
    if link.bridge:
        return link
    if isinstance(link, Vxlan):
        return replace(link, learning=False, suppress=False, isolated=False)
    return replace(link, isolated=False)


def _master(link: Link) -> str:
    return "" if isinstance(link, Bridge) else link.bridge


def _has_ipv6(link: Link) -> bool:
    return isinstance(link, Bridge) and link.ipv6


def _block(address: InterfaceAddress) -> tuple[int, int]:
    shift = len(address.address) * 8 - address.prefix_length
    return address.prefix_length, int.from_bytes(address.address, "big") >> shift
