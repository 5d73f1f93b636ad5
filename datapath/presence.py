"""Which networks are on a host: those that have an endpoint here, and those that such a one is peered with.

A workload's traffic to a peered network is routed on its own host and crosses in the other network's way, and replies
are routed on the other host: so both networks are on every host that has an endpoint of one of them. A `bridge`
network never leaves its host, so it meets its peers only where both have endpoints. What one of them cannot carry
whole is told to the sender by the host that routes it, so the MTU of one does not depend on the other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from datapath.census import Members
from datapath.view import HostView
from kvnet.model import Driver, Endpoint, Network

CROSSING = (Driver.OVERLAY, Driver.ROUTED)  # networks that reach other hosts by themselves


def built(view: HostView) -> list[Network]:
    """The networks of the view that are on this host. Of `view.endpoints` only the local ones matter."""
    return [network for network in view.networks.values() if is_built(view, network)]


def is_built(view: HostView, network: Network) -> bool:
    return is_carried(view, network.id) or _is_visited(view, network)


def is_built_of(view: HostView, network: Network, members: Members) -> bool:
    """As `is_built`, without a look at all endpoints where one of the members is here anyway."""
    return bool(members.local) or is_built(view, network)


def is_carried(view: HostView, network_id: str) -> bool:
    """Whether the network has an endpoint on this host."""
    return next(local_endpoints(view, network_id), None) is not None


def local_endpoints(view: HostView, network_id: str) -> Iterator[Endpoint]:
    here = view.host
    return (endpoint for endpoint in view.endpoints.get(network_id, {}).values() if endpoint.host == here)


def are_peers(one: Network, other: Network) -> bool:
    """Both say so: the records of the two may come one after the other."""
    return one.id in other.peers and other.id in one.peers


def peers_of(view: HostView, network: Network) -> Iterator[Network]:
    found = (view.networks.get(id_) for id_ in network.peers)
    return (peer for peer in found if peer is not None and are_peers(network, peer))


def _is_visited(view: HostView, network: Network) -> bool:
    if network.driver not in CROSSING:
        return False
    visiting = (peer for peer in peers_of(view, network) if peer.driver in CROSSING)
    return any(peer.id in view.carried or is_carried(view, peer.id) for peer in visiting)
