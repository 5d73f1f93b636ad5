"""Everything one host should have, from what it knows of the cluster.

Pure: the worker applies it, `kvnet plan` shows it, the tests assert on it. Which networks are on a host is said in
`presence`. What cannot be built (an unknown peer, say) is left out here and told by `conditions`.
Never returns an empty state for want of knowledge: that would tear the host's networks down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from datapath.drivers import DRIVERS
from datapath.host import host_state
from datapath.memo import Memo, NetworkMemo
from datapath.names import bridge_name, bridge_of, network_of_device, veth_name, vxlan_name
from datapath.objects import ContainerSide, Firewall, Gate, HostState, Link, Uplink
from datapath.presence import is_built_of
from datapath.view import Attachment, HostView, NetworkView
from kvnet.errors import NotFound
from kvnet.model import Host, Network

E = TypeVar("E")

__all__ = [
    "Attachment",
    "HostView",
    "Memo",
    "bridge_name",
    "desired",
    "host_state",
    "merge",
    "network_of_device",
    "veth_name",
    "vxlan_name",
]


def desired(view: HostView, network_id: str | None = None, memo: Memo | None = None) -> HostState:
    """All of this host, or one network's part (without firewall and host-wide settings, which belong to all of them).

    The same `memo` in each call for a host makes the next ones several times faster, and never different.

    Raises:
        NotFound: this host has no record in `view.hosts`, so nothing can be said about what it should have.
    """
    host = own_record(view)
    memo = Memo() if memo is None else memo
    if network_id is not None:
        network = view.networks.get(network_id)
        return HostState() if network is None else _part(view, host, network, memo)
    parts = [_part(view, host, network, memo) for network in view.networks.values()]
    memo.keep({bridge_of(network) for network in view.networks.values()})
    return merge([*parts, host_state(view)])


def merge(states: Iterable[HostState]) -> HostState:
    """The union. Parts of different networks never overlap; of two firewalls the last counts, of two readings too."""
    parts = [state for state in states if state != HostState()]
    if len(parts) == 1:
        return parts[0]
    links: dict[str, Link] = {}
    sysctls: dict[str, str] = {}
    containers: dict[str, ContainerSide] = {}
    uplinks: dict[str, Uplink] = {}
    firewall: Firewall | None = None
    gates: Mapping[Gate, bool] | None = None
    for part in parts:
        links.update(part.links)
        sysctls.update(part.sysctls)
        containers.update(part.containers)
        uplinks.update(part.uplinks)
        firewall = part.firewall if part.firewall is not None else firewall
        gates = part.gates if part.gates is not None else gates
    return HostState(
        links=links,
        addresses=_union([part.addresses for part in parts]),
        routes=_union([part.routes for part in parts]),
        neighbours=_union([part.neighbours for part in parts]),
        vteps=_union([part.vteps for part in parts]),
        ports=_union([part.ports for part in parts]),
        sysctls=sysctls,
        firewall=firewall,
        containers=containers,
        foreign={name: foreign for part in parts for name, foreign in part.foreign.items()},
        enslaved=_union([part.enslaved for part in parts]),
        uplinks=uplinks,
        gates=gates,
        is_forwarding=any(part.is_forwarding for part in parts),
    )


def _union(sets: Iterable[frozenset[E]]) -> frozenset[E]:
    """Where only one has anything in it, that one: it may be large, and there may be one such pass a second."""
    filled = [found for found in sets if found]
    return filled[0] if len(filled) == 1 else frozenset().union(*filled)


def own_record(view: HostView) -> Host:
    host = view.hosts.get(view.host)
    if host is None:
        raise NotFound(
            f"host {view.host} has no record in the store",
            fix="its worker registers it at the next start; until then its kernel stays as it is",
        )
    return host


def _part(view: HostView, host: Host, network: Network, memo: Memo) -> HostState:
    device = bridge_of(network)
    remembered = memo.of_network(device, network.has_ipv6)
    seen = network_view(view, host, network, remembered)
    if not is_built_of(view, network, seen.members):
        memo.forget(device)
        return HostState()
    part = DRIVERS[network.driver](seen)
    remembered.keep(view.endpoints.get(network.id, {}))
    return part


def network_view(view: HostView, host: Host, network: Network, memo: NetworkMemo | None = None) -> NetworkView:
    memo = memo or NetworkMemo(bridge_of(network), network.has_ipv6)
    return NetworkView(
        network,
        host,
        view.hosts,
        memo.census.members(view.endpoints.get(network.id, {}), host.name, view.courses.get(network.id)),
        view.attachments,
        memo,
        blocks=view.blocks.get(network.id, ()),
        uplink=view.uplinks.get(network.uplink),
        dns=view.dns,
    )
