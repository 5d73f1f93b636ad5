"""What the two hosts should have, from what the cluster knows and what they told of their workloads and uplinks.

The very drivers that the workers use. Where a host has not answered, its endpoints are taken for attached. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from datapath.conditions import Finding, findings
from datapath.desired import desired, merge
from datapath.host import host_state
from datapath.objects import HostState, Ip, Uplink
from datapath.packing import packed_mac
from datapath.trace.case import Case, End
from datapath.trace.seen import SeenInside, SeenLink, Sight
from datapath.view import Attachment, HostView
from kvnet.model import Network


def wanted_states(case: Case, sights: Mapping[str, Sight]) -> dict[str, HostState]:
    """Of each of the two hosts that has a record."""
    return {
        host: state_of(view_of(case, host, sights.get(host)), case)
        for host in case.own_hosts
        if case.standing[host].record is not None
    }


def state_of(view: HostView, case: Case) -> HostState:
    own = [desired(view, network.id) for network in case.own_networks if network.id in view.networks]
    return replace(merge([*own, host_state(view)]), uplinks=view.uplinks)


def found_wrong(case: Case, host: str, sight: Sight | None) -> list[Finding]:
    """What cannot be built as asked there, whatever the kernel does."""
    if case.standing[host].record is None:
        return []
    view = view_of(case, host, sight)
    return [
        found for network in case.own_networks if network.id in view.networks for found in findings(view, network.id)
    ]


def view_of(case: Case, host: str, sight: Sight | None) -> HostView:
    ends = {end.id: end for end in (case.a, case.b) if end.host == host}
    attachments = [found for end in ends.values() if (found := _attachment(end, sight)) is not None]
    return HostView(
        host=host,
        hosts=case.hosts,
        networks=case.networks,
        endpoints={id_: case.endpoints.get(id_, {}) for id_ in case.networks},
        attachments={attachment.endpoint: attachment for attachment in attachments},
        blocks=case.blocks,
        uplinks=dict(_uplinks(case.own_networks, sight)),
        carried=frozenset(case.carried.get(host, ())),
        dns=ip_address(sight.dns).packed if sight is not None and sight.dns else b"",
    )


def _attachment(end: End, sight: Sight | None) -> Attachment | None:
    inside = None if sight is None else sight.inside(end.id)
    if inside is None:
        return Attachment(end.id, f"the namespace of {end.endpoint.name}", "")
    if inside.state == "not-attached":
        return None
    return Attachment(
        end.id,
        inside.netns or f"the namespace of {end.endpoint.name}",
        inside.interface,
        inside.order,
        inside.is_handed_over,
        tuple(_routes(inside)),
    )


def _routes(inside: SeenInside) -> Iterator[tuple[Ip, int]]:
    for route in inside.routes:
        cidr = ip_network(route, strict=False)
        yield cidr.network_address.packed, cidr.prefixlen


def _uplinks(networks: tuple[Network, ...], sight: Sight | None) -> Iterator[tuple[str, Uplink]]:
    for name in {network.uplink for network in networks if network.uplink}:
        link = None if sight is None else sight.link(name)
        if link is not None:
            yield name, _uplink(link, sight)


def _uplink(link: SeenLink, sight: Sight | None) -> Uplink:
    is_bridge = link.kind == "bridge"
    return Uplink(
        link.name,
        link.mtu,
        up=link.up and (link.works or is_bridge),
        mac=packed_mac(link.mac) if link.mac else b"",
        bridge=link.master,
        is_bridge=is_bridge,
        has_addresses=sight is not None and any(address.device == link.name for address in sight.addresses),
    )
