"""Everything one host should have, from what it knows of the cluster.

Pure: the worker applies it, `kvnet plan` shows it, the tests assert on it. A network is on a host if, and only if, at
least one of its endpoints is. What cannot be built (an unknown peer, say) is left out here and told by `conditions`.
Never returns an empty state for want of knowledge: that would tear the host's networks down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from datapath.drivers import DRIVERS
from datapath.memo import Memo
from datapath.names import bridge_name, network_of_device, veth_name, vxlan_name
from datapath.objects import Bridge, ContainerSide, Firewall, HostState, Link, Vxlan
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from datapath.view import Attachment, HostView, NetworkView
from kvnet.errors import NotFound
from kvnet.model import Endpoint, Host, Network

__all__ = [
    "Attachment",
    "HostView",
    "Memo",
    "bridge_name",
    "desired",
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
    parts = {id_: _part(view, host, network, memo) for id_, network in view.networks.items()}
    memo.keep({bridge_name(id_) for id_ in parts})
    present = [view.networks[id_] for id_, part in parts.items() if part.links]
    whole = merge(parts.values())
    return replace(
        whole,
        sysctls={**whole.sysctls, **_forwarding(present)},
        firewall=_firewall(present, whole.links),
    )


def merge(states: Iterable[HostState]) -> HostState:
    """The union. Parts of different networks never overlap; of two firewalls the last counts."""
    parts = [state for state in states if state != HostState()]
    if len(parts) == 1:
        return parts[0]
    links: dict[str, Link] = {}
    sysctls: dict[str, str] = {}
    containers: dict[str, ContainerSide] = {}
    firewall: Firewall | None = None
    for part in parts:
        links.update(part.links)
        sysctls.update(part.sysctls)
        containers.update(part.containers)
        firewall = part.firewall if part.firewall is not None else firewall
    return HostState(
        links=links,
        addresses=frozenset().union(*(part.addresses for part in parts)),
        routes=frozenset().union(*(part.routes for part in parts)),
        neighbours=frozenset().union(*(part.neighbours for part in parts)),
        vteps=frozenset().union(*(part.vteps for part in parts)),
        ports=frozenset().union(*(part.ports for part in parts)),
        sysctls=sysctls,
        firewall=firewall,
        containers=containers,
        foreign={name: foreign for part in parts for name, foreign in part.foreign.items()},
    )


def own_record(view: HostView) -> Host:
    host = view.hosts.get(view.host)
    if host is None:
        raise NotFound(
            f"host {view.host} has no record in the store",
            fix="its worker registers it at the next start; until then its kernel stays as it is",
        )
    return host


def sole_owners(endpoints: Collection[Endpoint]) -> Collection[Endpoint]:
    """Endpoints of which no two share a MAC or an address: of those that do, only the newest stays.

    The store forbids shared addresses, but a kernel has one entry per key, and two that claim it would replace each
    other for ever.
    """
    addresses = [int(address) for endpoint in endpoints for address in endpoint.addresses]
    if len({endpoint.mac for endpoint in endpoints}) == len(endpoints) and len(set(addresses)) == len(addresses):
        return endpoints
    taken: set[object] = set()
    owners: list[Endpoint] = []
    for endpoint in sorted(endpoints, key=lambda e: (e.created_at, e.id), reverse=True):
        keys = {endpoint.mac, *endpoint.addresses}
        if taken.isdisjoint(keys):
            owners.append(endpoint)
            taken |= keys
    return owners


def _part(view: HostView, host: Host, network: Network, memo: Memo) -> HostState:
    device = bridge_name(network.id)
    endpoints = view.endpoints.get(network.id, {})
    driver = DRIVERS.get(network.driver)
    if driver is None or not any(endpoint.host == view.host for endpoint in endpoints.values()):
        memo.forget(device)
        return HostState()
    remembered = memo.of_network(device, network.has_ipv6)
    everyone = list(endpoints.values())
    seen = NetworkView(network, host, view.hosts, everyone, view.attachments, remembered)
    part = driver(seen)
    if not _is_unambiguous(everyone, part):
        part = driver(replace(seen, endpoints=sole_owners(everyone)))
    remembered.keep(endpoints)
    return part


def _is_unambiguous(endpoints: Collection[Endpoint], part: HostState) -> bool:
    """Whether `sole_owners` would be all of them; asked of the packed addresses, which compare much faster."""
    has_own_macs = len({endpoint.mac for endpoint in endpoints}) == len(endpoints)
    return has_own_macs and len({neighbour.address for neighbour in part.neighbours}) == len(part.neighbours)


def _forwarding(networks: Sequence[Network]) -> dict[str, str]:
    outgoing = [network for network in networks if not network.internal]
    settings = {FORWARD_IPV4: "1"} if outgoing else {}
    if any(network.has_ipv6 for network in outgoing):
        settings[FORWARD_IPV6] = "1"
    return settings


def _firewall(networks: Sequence[Network], links: Mapping[str, Link]) -> Firewall:
    outgoing = [network for network in networks if not network.internal]
    blocks = [
        (subnet.cidr.version, (subnet.cidr.network_address.packed, subnet.cidr.prefixlen))
        for network in outgoing
        for subnet in network.subnets
    ]
    tunnels = [link for link in links.values() if isinstance(link, Vxlan)]
    bridges = {link.name: link for link in links.values() if isinstance(link, Bridge)}
    return Firewall(
        bridges=frozenset(bridges),
        internal=frozenset(bridge_name(network.id) for network in networks if network.internal),
        subnets4=frozenset(block for version, block in blocks if version == 4),
        subnets6=frozenset(block for version, block in blocks if version == 6),
        vxlans=frozenset(tunnel.name for tunnel in tunnels),
        gateway_macs=frozenset(bridges[tunnel.bridge].mac for tunnel in tunnels),
    )
