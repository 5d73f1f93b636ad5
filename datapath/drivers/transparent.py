"""The `transparent` driver: workloads stand on the physical network itself, through a link of the host's.

In macvlan mode each has an interface on the uplink. In bridge mode each is a port of a bridge that the uplink is in:
an operator's own, which gets nothing but these ports, or one of ours that the uplink joins. Gateways, routers and
firewalls are the physical network's business. The uplink is never made, changed or given an address; one that is
missing is taken for a plain link here, and `conflicts` keeps hands off what is there until it is back.
"""

from __future__ import annotations

from collections.abc import Collection

from datapath.drivers.parts import PORTS_OF_A_BRIDGE, Parts, add_side, add_veth, fitting
from datapath.names import bridge_of, host_mac, macvlan_name, shim_name, veth_name
from datapath.objects import Bridge, Enslavement, HostState, InterfaceAddress, Macvlan, Route, Shim
from datapath.sysctls import device_sysctls
from datapath.view import NetworkView
from kvnet.model import Endpoint, UplinkMode

ETHERNET_MTU = 1500


def transparent(view: NetworkView) -> HostState:
    if not view.network.uplink:  # nothing that could be built; `conditions` says so
        return HostState()
    local = view.members.local
    if view.network.uplink_mode is UplinkMode.BRIDGE:
        return _bridged(view, local)
    return _on_uplink(view, local)


def transparent_mtu(view: NetworkView) -> int:
    """As the uplink's: a larger one is refused by the kernel, or cut on the wire."""
    largest = ETHERNET_MTU if view.uplink is None else view.uplink.mtu
    return min(view.network.mtu or largest, largest)


def _on_uplink(view: NetworkView, local: Collection[Endpoint]) -> HostState:
    network, parts, mtu = view.network, Parts(), transparent_mtu(view)
    for endpoint in local:
        if endpoint.id in view.attachments:
            name = macvlan_name(endpoint.id)
            parts.add_link(Macvlan(name, network.uplink, mtu, network=network.id))
            add_side(parts, view, endpoint, name, mtu)
    if network.shim:
        _add_shim(parts, view, local, mtu)
    return parts.state()


def _add_shim(parts: Parts, view: NetworkView, local: Collection[Endpoint], mtu: int) -> None:
    """The host speaks to its workloads from its underlay address, which they know to be on the link (see `sides`).

    ARP answers for it on any device; NDP only on one that has it.
    """
    network, underlay = view.network, view.host.underlay
    shim = Shim(shim_name(network.id), network.uplink, host_mac(network.id, view.host.name), mtu)
    parts.add_link(shim, device_sysctls(shim, speaks_ipv6=network.has_ipv6))
    if network.has_ipv6 and underlay.version == 6:
        parts.addresses.append(InterfaceAddress(shim.name, underlay.packed, underlay.max_prefixlen))
    for address in (address for endpoint in local for address in endpoint.addresses):
        source = underlay.packed if underlay.version == address.version else b""
        parts.routes.append(Route(address.packed, address.max_prefixlen, shim.name, source))


def _bridged(view: NetworkView, local: Collection[Endpoint]) -> HostState:
    network, parts, mtu = view.network, Parts(), transparent_mtu(view)
    is_operators = view.uplink is not None and view.uplink.is_bridge
    bridge = network.uplink if is_operators else bridge_of(network)
    if not is_operators:
        # Without an address or IPv6 it never speaks, so hosts only have to differ in its MAC.
        mac = host_mac(network.id, view.host.name)
        parts.add_link(Bridge(bridge, mac, mtu, ipv6=False, network=network.id))
        parts.enslaved.append(Enslavement(network.uplink, bridge))
    for endpoint in fitting(view, local, PORTS_OF_A_BRIDGE - 1):
        add_veth(parts, view, endpoint, bridge, mtu)
        if not is_operators:
            parts.ports.append(view.memo.entries(endpoint, veth_name(endpoint.id)).port)
    return parts.state()
