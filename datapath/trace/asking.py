"""What each of the two hosts is asked: only what is about the pair, so that the answer stays small anywhere.

Everything is told from names and records, so a host can be asked before anything is known of its kernel. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from datapath.names import bridge_of, host_mac, shim_name, veth_name, vxlan_name
from datapath.packing import link_local
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from datapath.trace.case import Case, End, is_macvlan
from datapath.trace.crossings import BRIDGED_IPV4, BRIDGED_IPV6, crossings
from datapath.trace.seen import Inner, Question, Way
from kvnet.model import Driver

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
        crossings=tuple(crossings(case, host)),
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
