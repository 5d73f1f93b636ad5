"""The `overlay` driver: one VXLAN segment per network, every entry programmed, nothing learned.

A remote endpoint takes three things: where its MAC is (the tunnel's forwarding entry), which port leads there (the
bridge's), and what its addresses' MAC is (neighbours, so that the bridge answers ARP and NDP itself and no question
crosses the wire). Peers that this host cannot reach over its own underlay family are left out; `conditions` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from datapath.drivers.parts import local_parts
from datapath.memo import Entries, Reached
from datapath.names import bridge_of, vxlan_name
from datapath.objects import (
    VXLAN_OVERHEAD_IPV4,
    VXLAN_OVERHEAD_IPV6,
    HostState,
    VtepEntry,
    Vxlan,
)
from datapath.packing import FLOOD_MAC
from datapath.view import NetworkView
from kvnet.model import Host
from kvnet.rules import MTU_MIN_IPV6


def overlay(view: NetworkView) -> HostState:
    network = view.network
    if network.vni is None:  # nothing that could be built; `conditions` says so
        return HostState()
    reached = peers_of(view)
    mtu = overlay_mtu(view, reached.mtu)
    parts = local_parts(view, mtu)
    tunnel = Vxlan(
        vxlan_name(network.id),
        network.vni,
        view.host.underlay.packed,
        mtu,
        bridge_of(network),
        # Else the workloads of other hosts would reach those of this one. What peers send crosses the tunnel too, so
        # where there are any it is the firewall's matter (`apart`) which frame may pass.
        isolated=not network.icc and not network.peers,
    )
    parts.add_link(tunnel)
    if network.flood:
        parts.vteps += [VtepEntry(tunnel.name, FLOOD_MAC, remote) for remote in reached.remotes.values()]
    local = Entries(parts.ports, parts.neighbours, parts.vteps)
    whole = view.memo.whole(view.members, tunnel.name, reached.remotes, local)
    return replace(parts.state(), ports=whole.ports, neighbours=whole.neighbours, vteps=whole.vteps)


def reachable(host: Host, hosts: Mapping[str, Host], names: Iterable[str]) -> dict[str, Host]:
    """Those of the other hosts that are known and have an underlay address of our family."""
    family, here = type(host.underlay), host.name
    found: dict[str, Host] = {}
    for name in names:
        peer = hosts.get(name)
        if peer is not None and type(peer.underlay) is family and name != here:
            found[name] = peer
    return found


def peers_of(view: NetworkView) -> Reached:
    """The hosts that this one has tunnels to; found anew only when a host or who takes part has changed."""
    names, hosts, known = view.members.hosts, view.hosts, view.memo.reached
    is_same = known is not None and known.host == view.host and _is_same(known.names, names)
    if known is None or not is_same or not _is_same(known.hosts, hosts):
        peers = reachable(view.host, hosts, names)
        remotes = {name: peer.underlay.packed for name, peer in peers.items()}
        apart = names - peers.keys() - {view.host.name}
        mtu = carried_mtu(view.host, peers.values())
        known = view.memo.reached = Reached(view.host, hosts, names, peers, apart, remotes, mtu)
    elif known.hosts is not hosts or known.names is not names:  # equal ones, that are the same from now on
        known = view.memo.reached = replace(known, hosts=hosts, names=names)
    return known


def _is_same(one: object, other: object) -> bool:
    return one is other or one == other


def overlay_mtu(view: NetworkView, fitting: int) -> int:
    """What fits through every tunnel of the network.

    Never below what IPv6 needs where the network has it: the kernel would switch IPv6 off on the device, while too
    large a packet only gets fragmented on the underlay.
    """
    if view.network.mtu is not None:
        return view.network.mtu
    return max(fitting, MTU_MIN_IPV6) if view.network.has_ipv6 else fitting


def carried_mtu(host: Host, peers: Iterable[Host]) -> int:
    """The largest packet that needs no fragments on any of the tunnels between the host and its peers."""
    overhead = VXLAN_OVERHEAD_IPV4 if host.underlay.version == 4 else VXLAN_OVERHEAD_IPV6
    return min(one.mtu for one in (host, *peers)) - overhead
