"""What every bridged network has on a host: its bridge, its gateway, and the interfaces of the local workloads.

Drivers add to a `Parts` and freeze it at the end; nothing here knows about other hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datapath.names import bridge_name, veth_name
from datapath.objects import (
    Bridge,
    ContainerSide,
    HostState,
    InterfaceAddress,
    Ip,
    Link,
    Mac,
    Neighbour,
    PortEntry,
    Route,
    Veth,
    VtepEntry,
)
from datapath.packing import packed_mac
from datapath.sysctls import device_sysctls
from datapath.view import Attachment, NetworkView
from kvnet.model import Endpoint, Network


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

    def add_link(self, link: Link) -> None:
        self.links[link.name] = link
        self.sysctls.update(device_sysctls(link))

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
        )


def local_parts(view: NetworkView, mtu: int) -> Parts:
    """The network as far as it is the same for every driver with a bridge."""
    network = view.network
    parts = Parts()
    device = bridge_name(network.id)
    parts.add_link(Bridge(device, packed_mac(network.gateway_mac), mtu, network.has_ipv6))
    if not network.internal:
        _add_gateways(parts, network, device)
    for endpoint in view.endpoints:
        if endpoint.host == view.host.name:
            name = veth_name(endpoint.id)
            entries = view.memo.entries(endpoint, name)
            parts.neighbours += entries.neighbours
            attachment = view.attachments.get(endpoint.id)
            if attachment is not None:
                parts.add_link(Veth(name, mtu, device))
                parts.ports.append(entries.port)
                if attachment.netns:
                    parts.containers[name] = _container_side(network, endpoint, attachment, entries.port.mac, mtu)
    return parts


def _add_gateways(parts: Parts, network: Network, device: str) -> None:
    for subnet in network.subnets:
        if subnet.gateway is not None:
            gateway, length = subnet.gateway.packed, subnet.cidr.prefixlen
            parts.addresses.append(InterfaceAddress(device, gateway, length))
            parts.routes.append(Route(subnet.cidr.network_address.packed, length, device, source=gateway))


def _container_side(network: Network, endpoint: Endpoint, attachment: Attachment, mac: Mac, mtu: int) -> ContainerSide:
    addresses: list[tuple[Ip, int]] = []
    gateways: list[Ip] = []
    for address in endpoint.addresses:
        subnet = network.subnet_of(address)
        addresses.append((address.packed, subnet.cidr.prefixlen if subnet else address.max_prefixlen))
        if subnet and subnet.gateway is not None and not network.internal:
            gateways.append(subnet.gateway.packed)
    return ContainerSide(attachment.netns, attachment.interface, mac, mtu, tuple(addresses), tuple(gateways))
