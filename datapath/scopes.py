"""What of a kernel belongs to a network, or to all of them: where to look, and whose what was found is.

Names tell it of most devices; a custom bridge, the host's own links and interfaces without a half on the host have to
be said. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datapath.names import macvlan_name
from datapath.objects import Ip, Scope
from datapath.presence import local_endpoints
from datapath.view import HostView
from kvnet.model import Driver, Network, UplinkMode


def scope_of(view: HostView, network_id: str) -> Scope:
    """One network's part, whether it is built here or not.

    Of the view it looks at the network's record, its local endpoints and their attachments. A network without a record
    is looked for by its id alone.
    """
    network = view.networks.get(network_id)
    if network is None:
        return Scope(network_id)
    return Scope(
        network_id,
        network.bridge_name,
        _blocks([network]),
        frozenset({network.uplink} if network.uplink else ()),
        _inside(view, network),
    )


def whole_scope(view: HostView) -> Scope:
    """Everything that is ours on this host: bridges that operators named are found by their marks."""
    networks = view.networks.values()
    return Scope(
        blocks=_blocks(networks),
        uplinks=frozenset(network.uplink for network in networks if network.uplink),
        inside={name: place for network in networks for name, place in _inside(view, network).items()},
    )


def _blocks(networks: Iterable[Network]) -> frozenset[tuple[Ip, int]]:
    cidrs = (subnet.cidr for network in networks for subnet in network.subnets)
    return frozenset((cidr.network_address.packed, cidr.prefixlen) for cidr in cidrs)


def _inside(view: HostView, network: Network) -> Mapping[str, tuple[str, str]]:
    if network.driver is not Driver.TRANSPARENT or network.uplink_mode is not UplinkMode.MACVLAN:
        return {}
    attached = (view.attachments.get(endpoint.id) for endpoint in local_endpoints(view, network.id))
    return {macvlan_name(a.endpoint): (a.netns, a.interface) for a in attached if a is not None and a.netns}
