"""One packet on its way through hosts in memory, as Linux would take it.

The workload's routes, the answer to its ARP or NDP question, the bridge's forwarding entry, the tunnel's, the other
host's tunnel and bridge, the other workload; or its own host's gateway, published ports, routes and rules; or the
physical network that it stands on. One direction only; ask both ways for a conversation. What it does not know: sizes
and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from datapath import fake_lans, fake_rules
from datapath.fake_rules import LOOPBACK4, Lost, Packet
from datapath.fake_tables import Interface, Tables
from datapath.objects import Bridge, Ip, Mac, Macvlan, Shim, Veth, Vxlan
from datapath.packing import FLOOD_MAC, IPV6_LENGTH, contains, link_local
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6

if TYPE_CHECKING:
    from datapath.fabric import FakeFabric, Joined

UNDERLAY = "underlay"  # what an underlay's device is called here
_LINK_LOCAL = b"\xfe\x80"


class Switch(NamedTuple):
    """A bridge, ours or an operator's, that is up."""

    name: str
    mac: Mac
    addresses: frozenset[Ip]


class Way(NamedTuple):
    """A host's route: through which device, and to whom there (b"": the underlay's router)."""

    device: str
    next_hop: Ip
    source: Ip = b""


@dataclass(slots=True)
class Walk:
    fabric: FakeFabric
    packet: Packet
    hops: list[str] = field(default_factory=list)
    flooded: bool = False

    def from_namespace(self, host: Joined, netns: str) -> str:
        self.hops.append(f"{host.name}/{netns}")
        interfaces = host.tables.namespaces.get(netns)
        if not interfaces:
            raise Lost("the namespace has no interface")
        interface, next_hop = _route(list(interfaces.values()), self.packet.destination)
        self.packet.source = _source(interface, next_hop)
        link = host.tables.links.get(interface.link)
        if isinstance(link, Macvlan):
            return self._onto_lan(host, link.uplink, link.name, next_hop)
        switch = _switch_of(host.tables, interface.link)
        if next_hop not in interface.cache:
            interface.cache[next_hop] = self._resolve(host, switch, next_hop, interface.link)
        return self._switch(host, switch, interface.cache[next_hop], interface.link)

    def from_host(self, host: Joined) -> str:
        self.hops.append(host.name)
        tables, wanted = host.tables, self.packet.destination
        fake_rules.translate(tables, self.packet)
        if self.packet.destination in tables.local_addresses() | {LOOPBACK4}:
            return host.name
        way = _host_route(tables, self.packet.destination)
        own = _own_address(tables, way, len(self.packet.destination))
        self.packet.source = wanted if self.packet.translated else own
        if wanted == LOOPBACK4 and tables.sysctls.get(f"net/ipv4/conf/{way.device}/route_localnet") != "1":
            raise Lost(f"{way.device} takes nothing from 127.0.0.1: route_localnet is off")
        fake_rules.masquerade(tables, self.packet, "", way.device, own)
        return self._out(host, way, "")

    def from_outside(self, via: Joined | None) -> str:
        self.hops.append("outside")
        host = via or self.fabric.owner_of(self.packet.destination)
        if host is None:
            raise Lost(f"nobody outside knows a way to {ip_address(self.packet.destination)}")
        return self._into_host(host, UNDERLAY)

    def from_lan(self, lan: str) -> str:
        self.hops.append(lan)
        return self._to_station(fake_lans.heard(self.fabric, fake_lans.Asker(lan)), self.packet.destination, lan)

    def _resolve(self, host: Joined, switch: Switch, wanted: Ip, asking: str) -> Mac:
        """Who answers the question: the gateway, the bridge on behalf of a remote workload, or a local one."""
        tables = host.tables
        if wanted in switch.addresses or (len(wanted) != IPV6_LENGTH and wanted in tables.local_addresses()):
            return switch.mac  # ARP is answered for every address of the host, on any device
        mac = tables.neighbours.get((switch.name, wanted))
        port = tables.ports.get((switch.name, mac)) if mac is not None else None
        link = tables.links.get(port or "")
        if mac is not None and isinstance(link, Vxlan) and link.suppress:
            return mac
        for mac in _answers(tables, switch, wanted, asking):
            return mac
        for station in fake_lans.behind(self.fabric, host, switch.name):
            if wanted in station.addresses:
                return station.mac
        if mac is None:
            for mac in self._flood_question(host, switch, wanted):
                return mac
        raise Lost(f"nobody answers for {ip_address(wanted)}")

    def _flood_question(self, host: Joined, switch: Switch, wanted: Ip) -> Iterator[Mac]:
        firewall = host.tables.firewall
        apart = firewall.apart if firewall is not None else frozenset()
        tunnels = [t for t in host.tables.links.values() if isinstance(t, Vxlan) and t.bridge == switch.name]
        for tunnel in [t for t in tunnels if t.name not in apart]:
            for remote in host.tables.vteps.get((tunnel.name, FLOOD_MAC), ()):
                self.flooded = True
                other, entrance = self._across(host, tunnel, remote)
                yield from _answers(other.tables, _switch_of(other.tables, entrance.name), wanted, entrance.name)

    def _switch(self, host: Joined, switch: Switch, mac: Mac, source: str) -> str:
        """The bridge looks up where a frame goes. `source`: the port that it came in by; "" for the host's own."""
        self.hops.append(f"{host.name}/{switch.name}")
        tables = host.tables
        if mac == switch.mac:
            return self._into_host(host, switch.name, source)
        port = tables.ports.get((switch.name, mac))
        if port is None:  # unknown: to every port, and the one it is for takes it
            port = next((i.link for i in tables.interfaces_on(switch.name) if i.side.mac == mac), None)
        if source and port:
            fake_rules.guard(tables, self.packet, source, port)
        if source and tables.bridge_calls_iptables:
            fake_rules.judge(tables, self.packet, switch.name, switch.name)
        link = tables.links.get(port or "")
        if not isinstance(link, Vxlan | Veth):
            stations = [s for s in fake_lans.behind(self.fabric, host, switch.name) if s.mac == mac]
            if not stations:
                raise Lost(f"no forwarding entry for {mac.hex(':')}")
            return self._into_station(stations[0])
        self._require_port(tables, link, switch, source)
        if isinstance(link, Vxlan):
            return self._tunnel(host, switch, link, mac)
        return self._into_namespace(host, link.name, mac)

    def _require_port(self, tables: Tables, link: Vxlan | Veth, switch: Switch, source: str) -> None:
        self.hops.append(link.name)
        origin = tables.links.get(source)
        if link.name == source and not (isinstance(link, Veth) and link.hairpin):
            raise Lost("a bridge does not send a frame back where it came from")
        if not link.up or link.bridge != switch.name:
            raise Lost(f"{link.name} is down or not a port of {switch.name}")
        if link.isolated and isinstance(origin, Vxlan | Veth) and origin.isolated:  # not even back to itself
            raise Lost("both ports are isolated")

    def _tunnel(self, host: Joined, switch: Switch, tunnel: Vxlan, mac: Mac) -> str:
        remotes = host.tables.vteps.get((tunnel.name, mac)) or host.tables.vteps.get((tunnel.name, FLOOD_MAC), set())
        if not remotes:
            raise Lost(f"{tunnel.name} does not know where {mac.hex(':')} is")
        firewall = host.tables.firewall
        if self.packet.is_own and firewall is not None and switch.mac in firewall.gateway_macs:
            raise Lost("the gateway's MAC never leaves the host but on what it forwards")
        self.flooded |= len(remotes) > 1
        losses = []
        for remote in sorted(remotes):
            before = len(self.hops)
            try:
                other, entrance = self._across(host, tunnel, remote)
                return self._switch(other, _switch_of(other.tables, entrance.name), mac, entrance.name)
            except Lost as lost:
                losses.append(lost)
                if len(remotes) > 1:
                    del self.hops[before:]
        raise losses[0]

    def _across(self, host: Joined, tunnel: Vxlan, remote: Ip) -> tuple[Joined, Vxlan]:
        """The underlay, and the tunnel's other end."""
        if tunnel.local not in host.underlay:
            raise Lost(f"{tunnel.name} sends from an address that {host.name} does not have")
        other = self.fabric.owner_of(remote)
        if other is None or self.fabric.are_cut(host, other):
            raise Lost(f"{ip_address(remote)} does not answer on the underlay")
        self.hops.append(other.name)
        for link in other.tables.links.values():
            if isinstance(link, Vxlan) and (link.vni, link.port, link.local) == (tunnel.vni, tunnel.port, remote):
                if not link.up:
                    raise Lost(f"{link.name} on {other.name} is down")
                return other, link
        raise Lost(f"{other.name} has no tunnel device for VNI {tunnel.vni}")

    def _into_namespace(self, host: Joined, link: str, mac: Mac) -> str:
        found = host.tables.interface_of(link)
        if found is None:
            raise Lost(f"{link} leads nowhere")
        path, interface = found
        self.hops.append(f"{host.name}/{path}")
        if interface.side.mac != mac:
            raise Lost(f"the workload's MAC is not {mac.hex(':')}")
        if self.packet.destination not in addresses_of(interface):
            raise Lost(f"the workload does not have {ip_address(self.packet.destination)}")
        return f"{host.name}/{path}"

    def _into_host(self, host: Joined, entrance: str, port: str = "") -> str:
        """`port`: of the entrance, if that is a bridge."""
        tables, packet = host.tables, self.packet
        self.hops.append(host.name)
        fake_rules.translate(tables, packet)
        if packet.destination in tables.local_addresses() | {LOOPBACK4}:
            fake_rules.require_input(tables, packet, entrance)
            return host.name
        if tables.sysctls[FORWARD_IPV4 if len(packet.destination) == 4 else FORWARD_IPV6] != "1":
            raise Lost("the host does not forward")
        packet.is_own = packet.marked = False
        way = _host_route(tables, packet.destination)
        fake_rules.judge(tables, packet, entrance, way.device)
        own = _own_address(tables, way, len(packet.destination))
        fake_rules.masquerade(tables, packet, entrance, way.device, own)
        # With br_netfilter a frame that is translated to its own bridge stays a bridged one, from its port to another.
        is_bridged = tables.bridge_calls_iptables and packet.translated and way.device == entrance
        return self._out(host, way, port if is_bridged else "")

    def _out(self, host: Joined, way: Way, port: str) -> str:
        tables, packet = host.tables, self.packet
        link = tables.links.get(way.device)
        if isinstance(link, Bridge):
            switch = _switch_named(tables, way.device)
            packet.is_routed = True
            mac = tables.neighbours.get((way.device, way.next_hop))
            return self._switch(host, switch, mac or self._resolve(host, switch, way.next_hop, ""), port)
        if isinstance(link, Vxlan):
            return self._routed_tunnel(host, link, way.next_hop)
        if isinstance(link, Shim):
            return self._onto_lan(host, link.uplink, link.name, way.next_hop)
        if way.device in tables.uplinks:
            return self._onto_lan(host, way.device, "", way.next_hop)
        return self._over_underlay(host, way)

    def _routed_tunnel(self, host: Joined, tunnel: Vxlan, next_hop: Ip) -> str:
        self.hops.append(tunnel.name)
        mac = host.tables.neighbours.get((tunnel.name, next_hop))
        remotes = host.tables.vteps.get((tunnel.name, mac), set()) if mac is not None else set()
        if not tunnel.up or not remotes:
            raise Lost(f"{tunnel.name} is down or does not know where {ip_address(next_hop)} is")
        other, entrance = self._across(host, tunnel, min(remotes))
        if entrance.bridge or entrance.mac != mac:
            raise Lost(f"{entrance.name} on {other.name} takes nothing for that MAC")
        return self._into_host(other, entrance.name)

    def _over_underlay(self, host: Joined, way: Way) -> str:
        """To a neighbour on the segment, or through the router, which knows the hosts and nothing of ours."""
        other = self.fabric.owner_of(way.next_hop or self.packet.destination)
        if way.next_hop and (other is None or other.segment != host.segment):
            raise Lost(f"{ip_address(way.next_hop)} does not answer on the segment")
        if other is None:
            return self._outside(host.tables)
        if self.fabric.are_cut(host, other):
            raise Lost(f"{other.name} does not answer on the underlay")
        return self._into_host(other, UNDERLAY)

    def _outside(self, tables: Tables) -> str:
        self.hops.append("outside")
        if not self.packet.masqueraded and self.packet.source not in tables.local_addresses():
            raise Lost("nobody outside knows the way back: not masqueraded")
        return "outside"

    def _onto_lan(self, host: Joined, uplink: str, link: str, next_hop: Ip) -> str:
        """`link`: the macvlan or shim that sends; "" for the host itself."""
        found = host.tables.uplinks.get(uplink)
        if found is None or not found.up:
            raise Lost(f"{uplink} is not there or down")
        self.hops.append(f"{host.name}/{uplink}")
        lan = host.tables.lans.get(uplink, "")
        asker = fake_lans.Asker(lan, host, uplink, link)
        return self._to_station(fake_lans.heard(self.fabric, asker), next_hop, lan)

    def _to_station(self, stations: Iterator[fake_lans.Station], next_hop: Ip, lan: str) -> str:
        for station in stations:
            if next_hop in station.addresses:
                return self._into_station(station)
        raise Lost(f"nobody answers for {ip_address(next_hop)} on {lan or 'the physical network'}")

    def _into_station(self, station: fake_lans.Station) -> str:
        if station.host is None:
            self.hops.append(f"{station.lan}/{station.link}")
            return self.hops[-1] if self.packet.destination in station.addresses else "outside"
        if station.is_workload:
            self._pass_bridge(station.host.tables, station.link)
            return self._into_namespace(station.host, station.link, station.mac)
        return self._into_host(station.host, station.link)

    def _pass_bridge(self, tables: Tables, port: str) -> None:
        """From a physical network to a bridge's port."""
        link = tables.links.get(port)
        if isinstance(link, Veth) and tables.bridge_calls_iptables:
            fake_rules.judge(tables, self.packet, link.bridge, link.bridge)


def addresses_of(interface: Interface) -> set[Ip]:
    return {address for address, _ in interface.side.addresses} | {link_local(interface.side.mac)}


def _route(interfaces: list[Interface], destination: Ip) -> tuple[Interface, Ip]:
    """The workload's own routes: on its link, or through a gateway; of default routes the one of the lowest metric."""
    found: list[tuple[int, int, Interface, Ip]] = []
    for interface in interfaces:
        side = interface.side
        found += [(n, 0, interface, destination) for a, n in side.addresses if contains(a, n, destination)]
        found += [(n, 0, interface, hop or destination) for a, n, hop in side.routes if contains(a, n, destination)]
        found += [(0, side.metric, interface, hop) for hop in side.gateways if len(hop) == len(destination)]
        if destination.startswith(_LINK_LOCAL) and len(destination) == len(link_local(bytes(6))):
            found.append((64, 0, interface, destination))
    if not found:
        raise Lost(f"no route to {ip_address(destination)}")
    _, _, interface, next_hop = max(found, key=lambda way: (way[0], -way[1]))
    return interface, next_hop


def _source(interface: Interface, next_hop: Ip) -> Ip:
    own = [(address, length) for address, length in interface.side.addresses if len(address) == len(next_hop)]
    near = [address for address, length in own if contains(address, length, next_hop)]
    return next(iter(near), own[0][0] if own else b"")


def _host_route(tables: Tables, destination: Ip) -> Way:
    found = [
        (r.prefix_length, Way(r.device or UNDERLAY, r.gateway or destination, r.source))
        for r in tables.routes.values()
        if contains(r.destination, r.prefix_length, destination)
    ]
    for uplink, blocks in tables.uplink_blocks.items():
        found += [(n, Way(uplink, destination, a)) for a, n in blocks if contains(a, n, destination)]
    found += [(n, Way(UNDERLAY, destination)) for a, n in tables.on_link if contains(a, n, destination)]
    return max(found, key=lambda way: way[0])[1] if found else Way(UNDERLAY, b"")


def _own_address(tables: Tables, way: Way, length: int) -> Ip:
    """The host's address towards there; b"" where the kernel takes any that it has (IPv6 on a shim without one)."""
    if way.source:
        return way.source
    if isinstance(tables.links.get(way.device), Shim) and length == IPV6_LENGTH:
        return b""
    return next((address for address in tables.underlay if len(address) == length), b"")


def _switch_of(tables: Tables, port: str) -> Switch:
    link = tables.links.get(port)
    if not isinstance(link, Vxlan | Veth) or not link.up:
        raise Lost(f"{port} is not there or down")
    return _switch_named(tables, link.bridge, port)


def _switch_named(tables: Tables, name: str, port: str = "") -> Switch:
    link, uplink = tables.links.get(name), tables.uplinks.get(name)
    if isinstance(link, Bridge) and link.up:
        return Switch(name, link.mac, frozenset(a.address for a in tables.addresses if a.device == name))
    if uplink is not None and uplink.is_bridge and uplink.up:
        return Switch(name, uplink.mac, frozenset(a for a, _ in tables.uplink_blocks.get(name, ())))
    raise Lost(f"{port} is not a port of a bridge that is up" if port else f"{name} is down or not a bridge")


def _answers(tables: Tables, switch: Switch, wanted: Ip, asking: str) -> Iterator[Mac]:
    origin = tables.links.get(asking)
    isolated = isinstance(origin, Veth | Vxlan) and origin.isolated
    for interface in tables.interfaces_on(switch.name):
        port = tables.links[interface.link]
        kept_apart = isolated and isinstance(port, Veth) and port.isolated
        if interface.link != asking and not kept_apart and wanted in addresses_of(interface):
            yield interface.side.mac
