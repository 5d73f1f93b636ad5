"""What every bridged network has on a host: its bridge, its gateway, and the interfaces of the local workloads.

Drivers add to a `Parts` and freeze it at the end; nothing here knows about other hosts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from datapath.drivers.sides import container_side
from datapath.names import bridge_of, veth_name
from datapath.objects import (
    Bridge,
    ContainerSide,
    Enslavement,
    HostState,
    InterfaceAddress,
    Link,
    Neighbour,
    PortEntry,
    Route,
    Veth,
    VtepEntry,
)
from datapath.packing import packed_mac
from datapath.sysctls import device_sysctls
from datapath.view import NetworkView
from kvnet.model import Address, Cidr, Driver, Endpoint

PORTS_OF_A_BRIDGE = 1023  # the kernel's limit: port 1,024 fails with EXFULL


@dataclass(slots=True)
class Parts:
    """A network's objects while they are put together."""

    links: dict[str, Link] = field(default_factory=dict)
    addresses: list[InterfaceAddress] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    vteps: list[VtepEntry] = field(default_factory=list)
    ports: list[PortEntry] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    containers: dict[str, ContainerSide] = field(default_factory=dict)
    enslaved: list[Enslavement] = field(default_factory=list)

    def add_link(self, link: Link, settings: Mapping[str, str] | None = None) -> None:
        """`settings`: where they are not those that such a device needs anyway."""
        self.links[link.name] = link
        self.sysctls.update(device_sysctls(link) if settings is None else settings)

    def add_gateway(self, device: str, gateway: Address, block: Cidr) -> None:
        """The host's own address in a block that is behind a bridge, and the way there."""
        self.addresses.append(InterfaceAddress(device, gateway.packed, block.prefixlen))
        self.routes.append(Route(block.network_address.packed, block.prefixlen, device, source=gateway.packed))

    def state(self) -> HostState:
        return HostState(
            links=self.links,
            addresses=frozenset(self.addresses),
            routes=frozenset(self.routes),
            neighbours=frozenset(self.neighbours),
            vteps=frozenset(self.vteps),
            ports=frozenset(self.ports),
            sysctls=self.sysctls,
            containers=self.containers,
            enslaved=frozenset(self.enslaved),
        )


def local_parts(view: NetworkView, mtu: int) -> Parts:
    """The network as far as it is the same for the drivers that have a subnet's gateway on its bridge."""
    network = view.network
    parts = bridge_parts(view, mtu, ports=PORTS_OF_A_BRIDGE - (network.driver is Driver.OVERLAY))
    if network.internal:
        add_ways_back(parts, view)
        return parts
    for subnet in network.subnets:
        if subnet.gateway is not None:
            parts.add_gateway(bridge_of(network), subnet.gateway, subnet.cidr)
    return parts


def add_ways_back(parts: Parts, view: NetworkView) -> None:
    """The host has no address in an internal network, and its answers about names would leave by its default route.

    Without a source, so that workloads know no way to answer what else the host might send them.
    """
    if view.dns:
        blocks = [s.cidr for s in view.network.subnets if len(s.cidr.network_address.packed) == len(view.dns)]
        parts.routes += [Route(b.network_address.packed, b.prefixlen, bridge_of(view.network)) for b in blocks]


def bridge_parts(view: NetworkView, mtu: int, *, ports: int = PORTS_OF_A_BRIDGE) -> Parts:
    """The bridge with the local workloads behind it, without any address of the host's.

    ports: so many interfaces fit; the oldest endpoints have them, so that a new one never takes an old one's place.
    """
    network, parts = view.network, Parts()
    device = bridge_of(network)
    link = Bridge(device, packed_mac(network.gateway_mac), mtu, network.has_ipv6, network=network.id)
    local = view.members.local
    is_publishing = any(endpoint.ports and endpoint.address is not None for endpoint in local)
    parts.add_link(link, device_sysctls(link, is_publishing=is_publishing))
    for endpoint in local:
        entries = view.memo.entries(endpoint, veth_name(endpoint.id))
        parts.neighbours += entries.neighbours
    for endpoint in fitting(view, local, ports):
        parts.ports.append(view.memo.entries(endpoint, veth_name(endpoint.id)).port)
        add_veth(parts, view, endpoint, device, mtu)
    return parts


def fitting(view: NetworkView, local: Collection[Endpoint], ports: int) -> list[Endpoint]:
    """Of the local endpoints those that have an interface, as many as the bridge takes."""
    attached = [endpoint for endpoint in local if endpoint.id in view.attachments]
    if len(attached) > ports:
        attached = sorted(attached, key=lambda endpoint: (endpoint.created_at, endpoint.id))[:ports]
    return attached


def add_veth(parts: Parts, view: NetworkView, endpoint: Endpoint, bridge: str, mtu: int) -> None:
    network, name = view.network, veth_name(endpoint.id)
    parts.add_link(Veth(name, mtu, bridge, isolated=not network.icc, hairpin=bool(endpoint.ports), network=network.id))
    add_side(parts, view, endpoint, name, mtu)


def add_side(parts: Parts, view: NetworkView, endpoint: Endpoint, name: str, mtu: int) -> None:
    """The workload's half, if it is known where that is and what it gets.

    An interface without it is kept where it is there, and not made where it is not.
    """
    attachment = view.attachments[endpoint.id]
    side = container_side(view, endpoint, attachment, mtu) if attachment.netns else None
    if side is not None:
        parts.containers[name] = side
