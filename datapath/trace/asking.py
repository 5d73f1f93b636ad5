"""What each of the two hosts is asked: only what is about the pair, so that the answer stays small anywhere.

Everything is told from names and records, so a host can be asked before anything is known of its kernel. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from datapath.names import bridge_of, host_mac, shim_name, veth_name, vxlan_name
from datapath.objects import VXLAN_PORT
from datapath.packing import link_local
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from datapath.trace.case import Case, End, is_macvlan
from datapath.trace.seen import Crossing, Inner, Question, Way
from kvnet.model import Driver

BRIDGED_IPV4, BRIDGED_IPV6 = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"
NOT_ROUTED_YET = ("prerouting", "input")
RP_FILTER_ALL = "net/ipv4/conf/all/rp_filter"


def question(case: Case, host: str) -> Question:
    record = case.hosts.get(host)
    others = [case.hosts[name] for name in case.own_hosts if name != host and name in case.hosts]
    own = str(record.underlay) if record is not None else ""
    ways = [
        Way(str(other.underlay), own if record and record.underlay.version == other.underlay.version else "")
        for other in others
    ]
    ways += [Way(str(end.address)) for end in (case.a, case.b)]
    return Question(
        networks=tuple(network.id for network in case.own_networks),
        inner=tuple(_inner(case, end) for end in _ends_on(case, host)),
        devices=tuple(sorted(_devices(case, host))),
        macs=tuple(sorted(_macs(case))),
        addresses=tuple(sorted(set(_addresses(case, host)))),
        ends=(str(case.a.address), str(case.b.address)),
        ways=tuple(dict.fromkeys(ways)),
        settings=(FORWARD_IPV4, FORWARD_IPV6, BRIDGED_IPV4, BRIDGED_IPV6, RP_FILTER_ALL),
        crossings=tuple(_crossings(case, host)),
    )


def gateways_of(case: Case, end: End) -> list[str]:
    """Of the traced family."""
    gateway = case.place(end).gateway
    return [str(gateway)] if gateway is not None else []


def _ends_on(case: Case, host: str) -> list[End]:
    ends = [case.a] if case.is_itself else [case.a, case.b]
    return [end for end in ends if end.host == host]


def _inner(case: Case, end: End) -> Inner:
    other = case.other_end(end)
    near = (str(other.address), *gateways_of(case, end))
    is_asked = end is case.b and case.flow.protocol in ("tcp", "udp") and case.flow.port
    listens = f"{case.flow.protocol}/{case.flow.port}" if is_asked else ""
    return Inner(end.id, end.network.id, end.endpoint.mac, (Way(str(other.address)),), near, listens)


def _devices(case: Case, host: str) -> Iterator[str]:
    for network in case.own_networks:
        yield bridge_of(network)
        if network.vni is not None:
            yield vxlan_name(network.id)
        if network.uplink:
            yield network.uplink
        if network.shim:
            yield shim_name(network.id)
    for end in _ends_on(case, host):
        if not is_macvlan(end.network):
            yield veth_name(end.id)


def _macs(case: Case) -> Iterator[str]:
    for end in (case.a, case.b):
        yield end.endpoint.mac
    for network in case.own_networks:
        yield network.gateway_mac
        if network.driver is Driver.ROUTED and network.vni is not None:
            yield from (host_mac(network.id, host).hex(":") for host in case.own_hosts)


def _addresses(case: Case, host: str) -> Iterator[str]:
    for end in (case.a, case.b):
        yield str(end.address)
        yield from gateways_of(case, end)
    for name in case.own_hosts:
        if name in case.hosts:
            yield str(case.hosts[name].underlay)
        for network in case.own_networks:
            if network.driver is Driver.ROUTED and network.vni is not None:
                yield str(ip_address(link_local(host_mac(network.id, name))))


def _crossings(case: Case, host: str) -> Iterator[Crossing]:
    if case.is_itself:
        return
    for tag, state, source, target in (("there", "new", case.a, case.b), ("back", "established", case.b, case.a)):
        yield from _of_direction(case, host, tag, state, source, target)


def _of_direction(case: Case, host: str, tag: str, state: str, source: End, target: End) -> Iterator[Crossing]:
    port = case.flow.port if tag == "there" else 0
    # What a host has routed comes from the gateway's MAC in the target's network.
    sender = source.endpoint.mac if case.is_on_link(source, target) else target.network.gateway_mac

    def packet(
        name: str,
        layer: str,
        hook: str,
        *,
        device_in: str = "",
        device_out: str = "",
        given: str = "",
        inside: str = "",
    ) -> Crossing:
        return Crossing(
            f"{tag}/{name}",
            layer,
            hook,
            str(source.address),
            str(target.address),
            case.flow.protocol,
            port,
            device_in,
            device_out,
            source_mac=source.endpoint.mac if host == source.host and hook in NOT_ROUTED_YET else sender,
            destination_mac=target.endpoint.mac,
            state=state,
            given=given,
            inside=inside,
        )

    if host == source.host:
        yield packet("inside-out", "ip", "output", device_out=f"@{target.address}", inside=source.id)
    if host == target.host:
        yield packet("inside-in", "ip", "input", device_in=f"@{target.address}", inside=target.id)
    if is_macvlan(source.network):
        return
    into, out = _ports(case, host, source, target)
    given = BRIDGED_IPV4 if case.version == 4 else BRIDGED_IPV6
    bridge_in, bridge_out = _bridges(case, host, source, target)
    for device in dict.fromkeys((into, out)):
        if device and not device.startswith("@"):
            yield packet("device", "netdev", "ingress", device_in=device)
    if case.is_on_link(source, target) or (host != source.host and target.network.driver is not Driver.ROUTED):
        yield packet("bridge", "bridge", "prerouting", device_in=into)
        yield packet("bridge", "bridge", "forward", device_in=into, device_out=out)
        yield packet("bridge", "bridge", "postrouting", device_out=out)
        yield packet("forward", "ip", "prerouting", device_in=bridge_out, given=given)
        yield packet("forward", "ip", "forward", device_in=bridge_out, device_out=bridge_out, given=given)
    else:
        yield packet("bridge", "bridge", "input", device_in=into)
        yield packet("forward", "ip", "prerouting", device_in=bridge_in)
        yield packet("forward", "ip", "forward", device_in=bridge_in, device_out=bridge_out)
        yield packet("forward", "ip", "postrouting", device_out=bridge_out)
        yield packet("bridge", "bridge", "output", device_out=out)
    if source.host != target.host:
        yield from _tunnelled(case, host, tag, source, target)


def _ports(case: Case, host: str, source: End, target: End) -> tuple[str, str]:
    """The ports of bridges that a frame comes in and goes out by on this host."""
    between = vxlan_name(target.network.id) if target.network.driver is Driver.OVERLAY else target.network.uplink
    into = veth_name(source.id) if host == source.host else between
    out = veth_name(target.id) if host == target.host else between
    return into, out


def _bridges(case: Case, host: str, source: End, target: End) -> tuple[str, str]:
    """The devices between which this host routes. To a routed network behind another host: whatever leads there."""
    is_plain = target.network.driver is Driver.ROUTED and source.host != target.host
    into = bridge_of(source.network) if host == source.host else f"@{source.address}"
    out = bridge_of(target.network) if host == target.host or not is_plain else f"@{target.address}"
    return into, out


def _tunnelled(case: Case, host: str, tag: str, source: End, target: End) -> Iterator[Crossing]:
    """The tunnel's own packets, between the two hosts."""
    if target.network.driver is not Driver.OVERLAY and target.network.vni is None:
        return
    one, other = case.hosts.get(source.host), case.hosts.get(target.host)
    if one is None or other is None:
        return
    local, remote = str(one.underlay), str(other.underlay)

    def packet(name: str, hook: str, *, layer: str = "ip", into: str = "", out: str = "") -> Crossing:
        return Crossing(f"{tag}/{name}", layer, hook, local, remote, "udp", VXLAN_PORT, into, out)

    if host == source.host:
        yield packet("underlay-out", "output", out=f"@{remote}")
        yield packet("underlay-out", "postrouting", out=f"@{remote}")
    if host == target.host:
        yield packet("underlay-in", "ingress", layer="netdev", into=f"@{remote}")
        yield packet("underlay-in", "prerouting", into=f"@{remote}")
        yield packet("underlay-in", "input", into=f"@{remote}")
