"""Hosts joined in memory, and the question that counts: does this packet arrive, and through what?

Follows one packet as Linux would: the workload's routes, the answer to its ARP or NDP question, the bridge's
forwarding entry, the tunnel's, the other host's tunnel and bridge, the other workload; or its own host's gateway,
routes and firewall. One direction only; ask both ways for a conversation. What it does not know: sizes and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from datapath.fake_tables import Interface, Tables
from datapath.objects import Bridge, Ip, Mac, Veth, Vxlan
from datapath.packing import FLOOD_MAC, link_local
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6

_LINK_LOCAL = b"\xfe\x80"


class Joined(Protocol):
    """A host as far as the fabric needs to know it."""

    name: str
    underlay: tuple[Ip, ...]
    tables: Tables


@dataclass(frozen=True, slots=True)
class Path:
    """It arrives. `at`: "host/netns", "host", or "outside". `flooded`: frames went to more than they were for."""

    at: str
    hops: tuple[str, ...]
    flooded: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """It is lost at the last of `hops`."""

    reason: str
    hop: str
    hops: tuple[str, ...] = ()


class _Lost(Exception):
    """A packet's end, on its way out of the walk."""


@dataclass(slots=True)
class FakeFabric:
    """`cuts`: pairs of host names between which nothing passes."""

    hosts: dict[str, Joined] = field(default_factory=dict)
    cuts: set[frozenset[str]] = field(default_factory=set)

    def join(self, host: Joined) -> None:
        self.hosts[host.name] = host

    def reaches(self, host: str, netns: str, destination: Ip) -> Path | Drop:
        """Where a packet to `destination` ends that the workload in `netns` on `host` sends."""
        walk = _Walk(self, destination)
        try:
            at = walk.from_namespace(self.hosts[host], netns)
        except _Lost as lost:
            return Drop(str(lost), walk.hops[-1] if walk.hops else netns, tuple(walk.hops))
        return Path(at, tuple(walk.hops), walk.flooded)

    def owner_of(self, underlay: Ip) -> Joined | None:
        return next((host for host in self.hosts.values() if underlay in host.underlay), None)


@dataclass(slots=True)
class _Walk:
    """One packet on its way."""

    fabric: FakeFabric
    destination: Ip
    hops: list[str] = field(default_factory=list)
    flooded: bool = False

    def from_namespace(self, host: Joined, netns: str) -> str:
        self.hops.append(f"{host.name}/{netns}")
        interfaces = host.tables.namespaces.get(netns)
        if not interfaces:
            raise _Lost("the namespace has no interface")
        interface, next_hop = _route(list(interfaces.values()), self.destination)
        bridge = _bridge_of(host.tables, interface.veth)
        if next_hop not in interface.cache:
            interface.cache[next_hop] = self._resolve(host, bridge, next_hop, interface.veth)
        return self._switch(host, bridge, interface.cache[next_hop], interface.veth)

    def _resolve(self, host: Joined, bridge: Bridge, wanted: Ip, asking: str) -> Mac:
        """Who answers the question: the gateway, the bridge on behalf of a remote workload, or a local one."""
        tables = host.tables
        if any(address[:2] == (bridge.name, wanted) for address in tables.addresses):
            return bridge.mac
        mac = tables.neighbours.get((bridge.name, wanted))
        port = tables.ports.get((bridge.name, mac)) if mac is not None else None
        link = tables.links.get(port or "")
        if mac is not None and isinstance(link, Vxlan) and link.suppress:
            return mac
        for mac in _answers(tables, bridge, wanted, asking):
            return mac
        if mac is None:
            for mac in self._flood_question(host, bridge, wanted):
                return mac
        raise _Lost(f"nobody answers for {ip_address(wanted)}")

    def _flood_question(self, host: Joined, bridge: Bridge, wanted: Ip) -> Iterator[Mac]:
        for tunnel in [t for t in host.tables.links.values() if isinstance(t, Vxlan) and t.bridge == bridge.name]:
            for remote in host.tables.vteps.get((tunnel.name, FLOOD_MAC), ()):
                self.flooded = True
                other = self._across(host, tunnel, remote)
                yield from _answers(other[0].tables, other[1], wanted, "")

    def _switch(self, host: Joined, bridge: Bridge, mac: Mac, source: str) -> str:
        """The bridge looks up where a frame goes."""
        self.hops.append(f"{host.name}/{bridge.name}")
        tables = host.tables
        if mac == bridge.mac:
            return self._into_host(host, bridge)
        port = tables.ports.get((bridge.name, mac))
        if port is None:  # unknown: to every port, and the one it is for takes it
            port = next((i.veth for i in tables.interfaces_on(bridge.name) if i.side.mac == mac), None)
        link = tables.links.get(port or "")
        if not isinstance(link, Vxlan | Veth):
            raise _Lost(f"no forwarding entry for {mac.hex(':')}")
        self._require_port(tables, link, bridge, source)
        if isinstance(link, Vxlan):
            return self._tunnel(host, link, mac)
        return self._into_namespace(host, link.name, mac)

    def _require_port(self, tables: Tables, link: Vxlan | Veth, bridge: Bridge, source: str) -> None:
        self.hops.append(link.name)
        origin = tables.links.get(source)
        if link.name == source:
            raise _Lost("a bridge does not send a frame back where it came from")
        if not link.up or link.bridge != bridge.name:
            raise _Lost(f"{link.name} is down or not a port of {bridge.name}")
        if link.isolated and isinstance(origin, Vxlan | Veth) and origin.isolated:
            raise _Lost("both ports are isolated")

    def _tunnel(self, host: Joined, tunnel: Vxlan, mac: Mac) -> str:
        remotes = host.tables.vteps.get((tunnel.name, mac)) or host.tables.vteps.get((tunnel.name, FLOOD_MAC), set())
        if not remotes:
            raise _Lost(f"{tunnel.name} does not know where {mac.hex(':')} is")
        self.flooded |= len(remotes) > 1
        losses = []
        for remote in sorted(remotes):
            before = len(self.hops)
            try:
                other, bridge, entrance = self._across(host, tunnel, remote)
                return self._switch(other, bridge, mac, entrance.name)
            except _Lost as lost:
                losses.append(lost)
                if len(remotes) > 1:
                    del self.hops[before:]
        raise losses[0]

    def _across(self, host: Joined, tunnel: Vxlan, remote: Ip) -> tuple[Joined, Bridge, Vxlan]:
        """The underlay, and the tunnel's other end."""
        if tunnel.local not in host.underlay:
            raise _Lost(f"{tunnel.name} sends from an address that {host.name} does not have")
        other = self.fabric.owner_of(remote)
        if other is None or frozenset((host.name, other.name)) in self.fabric.cuts:
            raise _Lost(f"{ip_address(remote)} does not answer on the underlay")
        self.hops.append(other.name)
        for link in other.tables.links.values():
            if isinstance(link, Vxlan) and (link.vni, link.port, link.local) == (tunnel.vni, tunnel.port, remote):
                if not link.up:
                    raise _Lost(f"{link.name} on {other.name} is down")
                return other, _bridge_of(other.tables, link.name), link
        raise _Lost(f"{other.name} has no tunnel device for VNI {tunnel.vni}")

    def _into_namespace(self, host: Joined, veth: str, mac: Mac) -> str:
        for path, interfaces in host.tables.namespaces.items():
            for interface in interfaces.values():
                if interface.veth == veth:
                    self.hops.append(f"{host.name}/{path}")
                    if interface.side.mac != mac:
                        raise _Lost(f"the workload's MAC is not {mac.hex(':')}")
                    if self.destination not in _addresses_of(interface):
                        raise _Lost(f"the workload does not have {ip_address(self.destination)}")
                    return f"{host.name}/{path}"
        raise _Lost(f"{veth} leads nowhere")

    # --- the host's own stack

    def _into_host(self, host: Joined, entrance: Bridge) -> str:
        tables = host.tables
        self.hops.append(host.name)
        if self.destination in host.underlay or any(a.address == self.destination for a in tables.addresses):
            return host.name
        if tables.sysctls[FORWARD_IPV4 if len(self.destination) == 4 else FORWARD_IPV6] != "1":
            raise _Lost("the host does not forward")
        exit_ = self._host_route(tables)
        self._filter(tables, entrance.name, exit_)
        if exit_ is None:
            return self._outside(tables)
        bridge = tables.links[exit_]
        if not isinstance(bridge, Bridge) or not bridge.up:
            raise _Lost(f"{exit_} is down or not a bridge")
        mac = tables.neighbours.get((exit_, self.destination))
        return self._switch(host, bridge, mac or self._resolve(host, bridge, self.destination, ""), "")

    def _host_route(self, tables: Tables) -> str | None:
        fitting = [r for r in tables.routes.values() if _contains(r.destination, r.prefix_length, self.destination)]
        return max(fitting, key=lambda route: route.prefix_length).device if fitting else None

    def _filter(self, tables: Tables, entrance: str, exit_: str | None) -> None:
        """What the fixed rules make of the sets. Without them everything passes, as on a real host."""
        firewall = tables.firewall
        if firewall is None or entrance == exit_:
            return
        if entrance in firewall.bridges and exit_ in firewall.bridges:
            raise _Lost("the firewall keeps networks apart")
        if entrance in firewall.internal:
            raise _Lost("the firewall lets nothing out of an internal network")
        if exit_ in firewall.bridges:
            raise _Lost("the firewall lets nothing in")

    def _outside(self, tables: Tables) -> str:
        self.hops.append("outside")
        firewall = tables.firewall
        blocks = firewall.subnets4 | firewall.subnets6 if firewall else frozenset()
        if not any(len(block) == len(self.destination) for block, _ in blocks):
            raise _Lost("nobody outside knows the way back: not masqueraded")
        return "outside"


def _route(interfaces: list[Interface], destination: Ip) -> tuple[Interface, Ip]:
    """The workload's own routes: on its link, or through its gateway."""
    on_link = [
        (length, interface)
        for interface in interfaces
        for address, length in interface.side.addresses
        if _contains(address, length, destination)
    ]
    if on_link:
        return max(on_link, key=lambda found: found[0])[1], destination
    if len(destination) == 16 and destination.startswith(_LINK_LOCAL):
        return interfaces[0], destination
    for interface in interfaces:
        for gateway in interface.side.gateways:
            if len(gateway) == len(destination):
                return interface, gateway
    raise _Lost(f"no route to {ip_address(destination)}")


def _bridge_of(tables: Tables, port: str) -> Bridge:
    link = tables.links.get(port)
    if not isinstance(link, Vxlan | Veth) or not link.up:
        raise _Lost(f"{port} is not there or down")
    bridge = tables.links.get(link.bridge)
    if not isinstance(bridge, Bridge) or not bridge.up:
        raise _Lost(f"{port} is not a port of a bridge that is up")
    return bridge


def _answers(tables: Tables, bridge: Bridge, wanted: Ip, asking: str) -> Iterator[Mac]:
    origin = tables.links.get(asking)
    isolated = isinstance(origin, Veth) and origin.isolated
    for interface in tables.interfaces_on(bridge.name):
        port = tables.links[interface.veth]
        kept_apart = isolated and isinstance(port, Veth) and port.isolated
        if interface.veth != asking and not kept_apart and wanted in _addresses_of(interface):
            yield interface.side.mac


def _addresses_of(interface: Interface) -> set[Ip]:
    return {address for address, _ in interface.side.addresses} | {link_local(interface.side.mac)}


def _contains(block: Ip, length: int, address: Ip) -> bool:
    if len(block) != len(address):
        return False
    shift = len(block) * 8 - length
    return int.from_bytes(block, "big") >> shift == int.from_bytes(address, "big") >> shift
