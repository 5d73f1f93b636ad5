"""The way itself: which hops a packet takes from one end to the other and back, in order, whatever is wrong on it.

Follows what should be, so that a fault early on does not hide what comes after. A hop that both directions have is
looked at once. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from datapath.names import bridge_of, host_mac, vxlan_name
from datapath.objects import Bridge, HostState, Route
from datapath.packing import contains, packed_mac
from datapath.trace import admission, entries, firewall, inside, links, underlay
from datapath.trace.asking import gateways_of
from datapath.trace.case import Case, End, is_macvlan
from datapath.trace.hop import Difference, Hop, Side, Weight
from datapath.trace.seen import SeenRepair, Sight
from datapath.trace.standing import standing
from kvnet.model import Driver, Network


@dataclass(slots=True)
class Walk:
    """`silences`: why a host did not answer, in words. `hops`: as far as one has come."""

    case: Case
    wanted: Mapping[str, HostState]
    sights: Mapping[str, Sight]
    silences: Mapping[str, str]
    hops: list[Hop] = field(default_factory=list)
    direction: str = "there"
    _seen: set[tuple[str, str, str]] = field(default_factory=set)

    def all(self) -> list[Hop]:
        case = self.case
        first = self.side(case.a.host)
        self._add(admission.admission(first, case))
        is_meant = not self.hops[0].differences
        self._one_way(case.a, case.b, is_meant=is_meant)
        if not case.is_itself:
            self.direction = "back"
            self._one_way(case.b, case.a, is_meant=is_meant)
        return self.hops

    def side(self, host: str) -> Side:
        return Side(self.case, host, self.wanted.get(host, HostState()), self.sights.get(host), self.direction)

    def _one_way(self, source: End, target: End, *, is_meant: bool) -> None:
        side = self.side(source.host)
        self._host(side)
        self._add(inside.interface(side, source))
        if self.case.is_itself:
            self._add(inside.way(side, self.case, source, target))
            return
        if not is_meant:
            self._host(self.side(target.host))
            self._add(inside.interface(self.side(target.host), target))
            return
        self._add(inside.way(side, self.case, source, target), inside.near(side, self.case, source, target))
        if is_macvlan(source.network):
            self._over_lan(source, target)
            return
        self._add(links.port(side, source))
        if self.case.is_on_link(source, target):
            self._add(links.bridge(side, source.network, self._bridge_name(side, source.network)))
            self._within(side, source, target, target.network)
        else:
            self._routed_by(side, source, target)

    def _host(self, side: Side) -> None:
        if side.case.standing.get(side.host) is not None:
            self._add(standing(side, self.silences.get(side.host, "")), admission.buildable(side))

    # within a network

    def _within(self, side: Side, source: End, target: End, network: Network) -> None:
        """Frames in the target's network, from this host's bridge on."""
        bridge = self._bridge_name(side, network)
        self._add(self._neighbour(side, network, bridge, target), entries.port_entry(side, network, bridge, target))
        self._firewalls(side)
        if side.host == target.host:
            self._arrive(side, target)
            return
        other = self.side(target.host)
        if network.driver is Driver.TRANSPARENT:
            self._add(self._uplink(side, network))
            self._host(other)
            self._add(self._uplink(other, network))
        else:
            mac = packed_mac(target.endpoint.mac)
            self._add(links.tunnel(side, network), entries.vtep(side, network, mac, str(target)))
            self._across(side, other, network)
            self._add(links.tunnel(other, network))
        self._add(links.bridge(other, network, self._bridge_name(other, network)))
        there = self._bridge_name(other, network)
        self._add(self._neighbour(other, network, there, target), entries.port_entry(other, network, there, target))
        self._firewalls(other)
        self._arrive(other, target)

    def _arrive(self, side: Side, target: End) -> None:
        self._add(links.port(side, target), inside.interface(side, target))

    def _neighbour(self, side: Side, network: Network, bridge: str, end: End) -> Hop | None:
        mac = packed_mac(end.endpoint.mac)
        return entries.neighbour(side, network, bridge, end.address.packed, mac, str(end))

    # routed by hosts

    def _routed_by(self, side: Side, source: End, target: End) -> None:
        """The source's host routes: over a bridge of the target's network, or to the host that has its block."""
        bridge = bridge_of(source.network)
        self._add(links.bridge(side, source.network, bridge))
        self._add(*(links.gateway(side, source.network, bridge, address) for address in gateways_of(self.case, source)))
        self._add(underlay.forwarding(side, (bridge,), str(source.address)), underlay.route(side, target))
        way = self._route(side, target)
        if side.host == target.host or target.network.driver is not Driver.ROUTED:
            if source.network.id != target.network.id:
                self._add(links.bridge(side, target.network, bridge_of(target.network)))
            self._within(side, source, target, target.network)
            return
        self._firewalls(side)
        other = self.side(target.host)
        entrance = self._to_block(side, other, target, way)
        self._add(underlay.forwarding(other, entrance, str(source.address)), underlay.route(other, target))
        self._add(links.bridge(other, target.network, bridge_of(target.network)))
        self._within(other, source, target, target.network)

    def _to_block(self, side: Side, other: Side, target: End, way: Route | None) -> tuple[str, ...]:
        """Plainly over the segment, or through the network's tunnel. Returns where it comes in."""
        network = target.network
        if way is None or not way.device:
            self._across(side, other, network)
            address = str(self.case.hosts[other.host].underlay) if other.host in self.case.hosts else ""
            sight = other.sight
            return tuple(a.device for a in sight.addresses if a.address == address) if sight is not None else ()
        mac, name = host_mac(network.id, other.host), vxlan_name(network.id)
        self._add(links.tunnel(side, network))
        self._add(entries.neighbour(side, network, name, way.gateway, mac, other.host))
        self._add(entries.vtep(side, network, mac, other.host))
        self._across(side, other, network)
        self._add(links.tunnel(other, network))
        return (name,)

    def _route(self, side: Side, end: End) -> Route | None:
        to = end.address.packed
        found = [r for r in side.wanted.routes if contains(r.destination, r.prefix_length, to)]
        return max(found, key=lambda r: r.prefix_length, default=None)

    # between hosts

    def _across(self, side: Side, other: Side, network: Network) -> None:
        if side.host in self.case.hosts and other.host in self.case.hosts:
            self._add(underlay.underlay(side, network, other))
        self._host(other)
        if side.host in self.case.hosts and other.host in self.case.hosts:
            self._add(underlay.underlay(other, network, side))

    def _over_lan(self, source: End, target: End) -> None:
        """The physical network, from uplink to uplink."""
        side, other = self.side(source.host), self.side(target.host)
        self._add(links.uplink(side, source.network, ""))
        if other.host != side.host:
            self._host(other)
            self._add(links.uplink(other, target.network, ""))
        self._add(inside.interface(other, target))

    def _uplink(self, side: Side, network: Network) -> Hop | None:
        """Where it is the operator's bridge, that is a hop already."""
        bridge = self._bridge_name(side, network)
        return None if bridge == network.uplink else links.uplink(side, network, bridge)

    def _firewalls(self, side: Side) -> None:
        devices = [name for n in self.case.own_networks for name in (bridge_of(n), vxlan_name(n.id))]
        self._add(firewall.own(side, devices), firewall.others(side))

    def _bridge_name(self, side: Side, network: Network) -> str:
        """Of a transparent network it may be the operator's own, which is its uplink."""
        name = bridge_of(network)
        if network.driver is Driver.TRANSPARENT and not isinstance(side.wanted.links.get(name), Bridge):
            return network.uplink
        return name

    def _add(self, *found: Hop | None) -> None:
        for hop in found:
            if hop is None or (hop.host, hop.kind, hop.name) in self._seen:
                continue
            self._seen.add((hop.host, hop.kind, hop.name))
            self.hops.append(replace(hop, repairs=tuple(_repairs(hop, self.sights.get(hop.host)))))


def _repairs(hop: Hop, sight: Sight | None) -> Iterable[SeenRepair]:
    """Those of the host's recent repairs that are about the hop, by how the worker tells them."""
    what, _, where = hop.name.partition(" on ")
    about = {
        "port": (f"interface {hop.name}",),
        "bridge": (f"bridge {hop.name}",),
        "vxlan": (f"vxlan {hop.name}",),
        "gateway": (f"address {what}/",),
        "fdb": (f"{what} behind port",),
        "vxlan fdb": (f"{what} behind ", f" on {where}"),
        "neighbour": (f"neighbour {what} ", f" on {where}"),
        "firewall": ("set the firewall",),
        "other firewalls": ("FORWARD",),
        "forwarding": (hop.name,),
        "uplink": (f"uplink {hop.name}",),
    }.get(hop.kind)
    found = sight.repairs if sight is not None and about else ()
    return [repair for repair in found if all(words in repair.text for words in about or ())]


def first_difference(hops: list[Hop]) -> tuple[Hop, Difference] | None:
    """The first by which packets are lost; else the first that points to one elsewhere; else the first at all."""
    for weight in (Weight.BREAKS, Weight.SYMPTOM, Weight.NOTE):
        for hop in hops:
            for difference in hop.differences:
                if difference.weight is weight:
                    return hop, difference
    return None
