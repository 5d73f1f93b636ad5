"""The hooks of firewalls that the pair's packets meet on one host: in the workloads, on bridges, routed, and tunnelled.

Of both directions: a first packet there, and an answer back. What rules make of them is asked where they are. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from datapath.names import bridge_of, veth_name, vxlan_name
from datapath.objects import VXLAN_PORT
from datapath.trace.case import Case, End, is_macvlan
from datapath.trace.seen import Crossing
from kvnet.model import Driver

BRIDGED_IPV4, BRIDGED_IPV6 = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"
TO_ALL = "ff:ff:ff:ff:ff:ff"
NOT_ROUTED_YET = ("prerouting", "input")


@dataclass(frozen=True, slots=True)
class Trip:
    """One direction, as far as one host sees it. `tag`: there or back."""

    case: Case
    host: str
    tag: str
    state: str
    source: End
    target: End

    @property
    def is_crossing(self) -> bool:
        """Between hosts."""
        return self.source.host != self.target.host

    @property
    def is_bridged(self) -> bool:
        """On this host it goes from port to port of one bridge."""
        is_routed_here = self.host == self.source.host or self.target.network.driver is Driver.ROUTED
        return self.case.is_on_link(self.source, self.target) or not is_routed_here

    @property
    def ports(self) -> tuple[str, str]:
        """Those of bridges that a frame comes in and goes out by."""
        network = self.target.network
        between = vxlan_name(network.id) if network.driver is Driver.OVERLAY else network.uplink
        into = veth_name(self.source.id) if self.host == self.source.host else between
        return into, veth_name(self.target.id) if self.host == self.target.host else between

    @property
    def devices(self) -> tuple[str, str]:
        """Those between which this host routes. To a routed network behind another host: whatever leads there."""
        source, target = self.source, self.target
        is_plain = target.network.driver is Driver.ROUTED and self.is_crossing
        into = bridge_of(source.network) if self.host == source.host else f"@{source.address}"
        is_own = self.host == target.host or not is_plain
        return into, bridge_of(target.network) if is_own else f"@{target.address}"

    def packet(
        self, name: str, layer: str, hook: str, into: str = "", out: str = "", *, given: str = "", inside: str = ""
    ) -> Crossing:
        source, target = self.source, self.target
        # What a host has routed comes from the gateway's MAC in the target's network.
        is_senders = self.case.is_on_link(source, target) or (self.host == source.host and hook in NOT_ROUTED_YET)
        return Crossing(
            f"{self.tag}/{name}",
            layer,
            hook,
            str(source.address),
            str(target.address),
            self.case.flow.protocol,
            self.case.flow.port if self.tag == "there" else 0,
            into,
            out,
            source_mac=source.endpoint.mac if is_senders else target.network.gateway_mac,
            destination_mac=target.endpoint.mac,
            state=self.state,
            given=given,
            inside=inside,
        )


def crossings(case: Case, host: str) -> Iterator[Crossing]:
    if case.is_itself:
        return
    for trip in (
        Trip(case, host, "there", "new", case.a, case.b),
        Trip(case, host, "back", "established", case.b, case.a),
    ):
        yield from _inside(trip)
        if not is_macvlan(trip.source.network):
            yield from _bridged(trip) if trip.is_bridged else _routed(trip)
            yield from _tunnelled(trip)


def _inside(trip: Trip) -> Iterator[Crossing]:
    at = f"@{trip.target.address}"
    if trip.host == trip.source.host:
        yield trip.packet("inside-out", "ip", "output", out=at, inside=trip.source.id)
    if trip.host == trip.target.host:
        yield trip.packet("inside-in", "ip", "input", at, inside=trip.target.id)


def _bridged(trip: Trip) -> Iterator[Crossing]:
    """With br_netfilter the hooks of IP see the frame as well, as going from the bridge to itself."""
    into, out = trip.ports
    bridge = trip.devices[1]
    given = BRIDGED_IPV4 if trip.case.version == 4 else BRIDGED_IPV6
    yield trip.packet("device", "netdev", "ingress", into)
    yield trip.packet("device", "netdev", "egress", out=out)
    yield trip.packet("bridge", "bridge", "prerouting", into)
    yield trip.packet("bridge", "bridge", "forward", into, out)
    yield trip.packet("bridge", "bridge", "postrouting", out=out)
    yield trip.packet("forward", "ip", "prerouting", bridge, given=given)
    yield trip.packet("forward", "ip", "forward", bridge, bridge, given=given)
    is_asked_over = out != vxlan_name(trip.target.network.id)  # a bridge answers in place of what is behind a tunnel
    if trip.case.is_on_link(trip.source, trip.target) and (trip.host == trip.source.host or is_asked_over):
        yield from _asked(trip, ("prerouting", "forward", "postrouting") if is_asked_over else ("prerouting",))


def _routed(trip: Trip) -> Iterator[Crossing]:
    (into, out), (device_in, device_out) = trip.ports, trip.devices
    yield trip.packet("device", "netdev", "ingress", into or device_in)
    yield trip.packet("device", "netdev", "egress", out=out or device_out)
    yield trip.packet("bridge", "bridge", "input", into)
    yield trip.packet("forward", "ip", "prerouting", device_in)
    yield trip.packet("forward", "ip", "forward", device_in, device_out)
    yield trip.packet("forward", "ip", "postrouting", out=device_out)
    yield trip.packet("bridge", "bridge", "output", out=out)
    if trip.host == trip.source.host:
        yield from _asked(trip, ("prerouting", "input"))


def _asked(trip: Trip, hooks: tuple[str, ...]) -> Iterator[Crossing]:
    """The question whose an address is, by ARP: where it is dropped nothing is sent at all."""
    into, out = trip.ports
    for hook in hooks if trip.case.version == 4 else ():
        ports = {"prerouting": (into, ""), "input": (into, ""), "forward": (into, out), "postrouting": ("", out)}[hook]
        asked = trip.packet("arp", "bridge", hook, *ports)
        yield replace(asked, protocol="arp", port=0, destination_mac=TO_ALL, source_mac=trip.source.endpoint.mac)


def _tunnelled(trip: Trip) -> Iterator[Crossing]:
    """The tunnel's own packets, between the two hosts."""
    case, network = trip.case, trip.target.network
    one, other = case.hosts.get(trip.source.host), case.hosts.get(trip.target.host)
    has_tunnel = network.driver is Driver.OVERLAY or network.vni is not None
    if not trip.is_crossing or not has_tunnel or one is None or other is None:
        return
    local, remote = str(one.underlay), str(other.underlay)

    def packet(name: str, hook: str, *, layer: str = "ip", into: str = "", out: str = "") -> Crossing:
        return Crossing(f"{trip.tag}/{name}", layer, hook, local, remote, "udp", VXLAN_PORT, into, out)

    if trip.host == trip.source.host:
        yield packet("underlay-out", "output", out=f"@{remote}")
        yield packet("underlay-out", "postrouting", out=f"@{remote}")
        yield packet("underlay-out", "egress", layer="netdev", out=f"@{remote}")
    if trip.host == trip.target.host:
        yield packet("underlay-in", "ingress", layer="netdev", into=f"@{remote}")
        yield packet("underlay-in", "prerouting", into=f"@{remote}")
        yield packet("underlay-in", "input", into=f"@{remote}")
