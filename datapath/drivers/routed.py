"""The `routed` driver: each host has blocks of the network's range, and plain routes lead to those of the others.

No frame of it crosses a wire but through a host's own routing. Hosts on one segment route to each other directly. A
host behind a router is reached through a tunnel of the network's own, if it may have one: the router knows nothing of
the blocks. Without one, and where the underlay's family cannot carry a block's, the block is left out; `conditions`
says so. Endpoints on other hosts need no entries at all: their block's route is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from datapath.drivers.overlay import carried_mtu
from datapath.drivers.parts import Parts, bridge_parts
from datapath.drivers.sides import own_blocks
from datapath.names import bridge_of, host_mac, vxlan_name
from datapath.objects import HostState, InterfaceAddress, Ip, Neighbour, Route, VtepEntry, Vxlan
from datapath.packing import link_local
from datapath.sysctls import device_sysctls
from datapath.view import NetworkView
from kvnet.model import Block, CrossSegment, Host
from kvnet.rules import MTU_MIN_IPV6


class Ways(NamedTuple):
    """The other hosts' blocks, by how this host reaches them."""

    direct: tuple[tuple[Block, Host], ...]
    tunnelled: tuple[tuple[Block, Host], ...]
    apart: tuple[tuple[Block, Host], ...]  # behind a router, and no tunnel is allowed
    unfit: tuple[
        tuple[Block, Host], ...
    ]  # the underlay has not the block's family, and no tunnel is allowed or possible
    unknown: tuple[Block, ...]  # of a host without a record


def routed(view: NetworkView) -> HostState:
    ways = ways_to(view)
    mtu = routed_mtu(view, ways)
    parts = Parts()
    own = own_blocks(view)
    if own or view.members.local:
        parts = bridge_parts(view, mtu)
        for block in own:
            parts.add_gateway(bridge_of(view.network), block.gateway, block.cidr)
    for block, peer in ways.direct:
        parts.routes.append(Route(*_destination(block), device="", gateway=peer.underlay.packed))
    if ways.tunnelled:
        _add_tunnel(parts, view, ways.tunnelled, own, mtu)
    return parts.state()


def ways_to(view: NetworkView) -> Ways:
    found: dict[str, list[tuple[Block, Host]]] = {way: [] for way in ("direct", "tunnelled", "apart", "unfit")}
    unknown: list[Block] = []
    for block in sorted(view.blocks, key=lambda block: str(block.cidr)):
        peer = view.hosts.get(block.host)
        if peer is None:
            unknown.append(block)
        elif block.host != view.host.name:
            found[_way(view, block, peer)].append((block, peer))
    return Ways(**{way: tuple(places) for way, places in found.items()}, unknown=tuple(unknown))


def are_adjacent(one: Host, other: Host) -> bool:
    """Whether no router is between them. A host that does not know its segment is taken for adjacent."""
    return all(a.segment is None or b.underlay in a.segment for a, b in ((one, other), (other, one)))


def routed_mtu(view: NetworkView, ways: Ways) -> int:
    """What every link between this host and the others carries whole; never too little for IPv6, as in an overlay."""
    if view.network.mtu is not None:
        return view.network.mtu
    fitting = fitting_mtu(view, ways)
    return max(fitting, MTU_MIN_IPV6) if view.network.has_ipv6 else fitting


def fitting_mtu(view: NetworkView, ways: Ways) -> int:
    tunnelled = {peer.name: peer for _, peer in ways.tunnelled}
    whole = min(host.mtu for host in (view.host, *(peer for _, peer in ways.direct)))
    return min(whole, carried_mtu(view.host, tunnelled.values())) if tunnelled else whole


def _way(view: NetworkView, block: Block, peer: Host) -> str:
    host, network = view.host, view.network
    adjacent = are_adjacent(host, peer)
    is_same_family = peer.underlay.version == host.underlay.version
    if adjacent and is_same_family and block.cidr.version == host.underlay.version:
        return "direct"
    if network.cross_segment is CrossSegment.TUNNEL and network.vni is not None and is_same_family:
        return "tunnelled"
    return "apart" if is_same_family and not adjacent else "unfit"


def _add_tunnel(
    parts: Parts, view: NetworkView, tunnelled: Sequence[tuple[Block, Host]], own: Sequence[Block], mtu: int
) -> None:
    """A tunnel device without a bridge: it is routed into, and every peer's MAC on it is known beforehand.

    It bears the host's addresses of its own blocks too, so that what the host itself sends comes from one that the
    other side finds back through the same tunnel.
    """
    network, host = view.network, view.host
    if network.vni is None:
        return
    name, mac = vxlan_name(network.id), host_mac(network.id, host.name)
    tunnel = Vxlan(name, network.vni, host.underlay.packed, mtu, bridge="", mac=mac)
    families = {block.cidr.version for block, _ in tunnelled}
    parts.add_link(tunnel, device_sysctls(tunnel, speaks_ipv6=6 in families))
    sources = {block.cidr.version: block.gateway.packed for block in reversed(own) if block.cidr.version in families}
    parts.addresses += [InterfaceAddress(name, source, len(source) * 8) for source in sources.values()]
    for block, peer in tunnelled:
        mac = host_mac(network.id, peer.name)
        hop = _hop(block, peer, mac)
        source = sources.get(block.cidr.version, b"")
        parts.routes.append(Route(*_destination(block), name, source, hop, onlink=True))
        parts.neighbours.append(Neighbour(name, hop, mac))
        parts.vteps.append(VtepEntry(name, mac, peer.underlay.packed))


def _hop(block: Block, peer: Host, mac: bytes) -> Ip:
    """The peer's address on the tunnel. It only stands for the peer's MAC, so any that is nobody else's will do.

    For IPv6 the link-local one: the kernel refuses a gateway that it knows a way to over another device.
    """
    if block.cidr.version == 6:
        return link_local(mac)
    return peer.underlay.packed if peer.underlay.version == 4 else block.gateway.packed


def _destination(block: Block) -> tuple[Ip, int]:
    return block.cidr.network_address.packed, block.cidr.prefixlen
