"""The workload's half of an interface: its addresses, its default routes, and the ways to the rest of its network.

Configured once at attach, so it holds nothing that may change while the workload runs (who is peered, say). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from datapath.objects import ContainerSide, Ip
from datapath.packing import packed_mac
from datapath.view import Attachment, NetworkView
from kvnet.model import Address, Block, Driver, Endpoint, Network, Subnet
from kvnet.rules import GATEWAY_PRIORITY

_ORDERS = 64  # interfaces of one workload that their order tells apart


class Place(NamedTuple):
    """What an address means to a workload. `routes`: to the rest of the network that is of the same family."""

    prefix_length: int
    gateway: Ip | None
    routes: list[tuple[Ip, int, Ip]]


def container_side(view: NetworkView, endpoint: Endpoint, attachment: Attachment, mtu: int) -> ContainerSide | None:
    """None where an address is in no block of this host: the block's record is still on its way, or gone."""
    network = view.network
    place = _in_block if network.driver is Driver.ROUTED else _on_link
    places = [place(view, address) for address in endpoint.addresses]
    found = [known for known in places if known is not None]
    if len(found) < len(places):
        return None
    gateways = [known.gateway for known in found if known.gateway is not None and not network.internal]
    return ContainerSide(
        attachment.netns,
        attachment.interface,
        packed_mac(endpoint.mac),
        mtu,
        addresses=tuple((a.packed, known.prefix_length) for a, known in zip(endpoint.addresses, found, strict=True)),
        gateways=tuple(gateways),
        metric=(GATEWAY_PRIORITY - endpoint.gateway_priority) * _ORDERS + attachment.order + 1,
        routes=(
            *(route for known in found for route in known.routes),
            *((*way, b"") for way in attachment.routes),
            *(_ways_to_names(view, endpoint, gateways) if not attachment.is_handed_over else ()),
        ),
        is_handed_over=attachment.is_handed_over,
    )


def _ways_to_names(view: NetworkView, endpoint: Endpoint, gateways: Sequence[Ip]) -> list[tuple[Ip, int, Ip]]:
    """Where the default route is not the host's: its address for names is on the link, for it answers ARP for all.

    On a physical network only where the host is there too: with an address on the workloads' bridge, or with a shim;
    behind that, because every other host on that wire would answer for the same address.
    """
    length = len(view.dns)
    if not length or all(len(address.packed) != length for address in endpoint.addresses):
        return []
    uplink, underlay, gateway = view.uplink, view.host.underlay.packed, b""
    if view.network.driver is not Driver.TRANSPARENT:
        is_there = all(len(gateway) != length for gateway in gateways)
    elif view.network.shim:
        is_there, gateway = len(underlay) == length, underlay
    else:
        is_there = uplink is not None and uplink.is_bridge and uplink.has_addresses
    return [(view.dns, length * 8, gateway)] if is_there else []


def own_blocks(view: NetworkView) -> list[Block]:
    """This host's, in a stable order."""
    own = [block for block in view.blocks if block.host == view.host.name]
    return sorted(own, key=lambda block: (block.cidr.version, int(block.cidr.network_address)))


def _on_link(view: NetworkView, address: Address) -> Place:
    """The network's other subnets are on the same link, so the way there takes no gateway; and so is a shim's host."""
    own, underlay = view.network.subnet_of(address), view.host.underlay
    if own is None:
        return Place(address.max_prefixlen, None, [])
    others = [subnet for subnet in _of_family(view.network, address.version) if subnet is not own]
    ways = [(other.cidr.network_address.packed, other.cidr.prefixlen, b"") for other in others]
    if view.network.shim and underlay.version == address.version and view.network.subnet_of(underlay) is None:
        ways.append((underlay.packed, underlay.max_prefixlen, b""))
    return Place(own.cidr.prefixlen, own.gateway.packed if own.gateway is not None else None, ways)


def _in_block(view: NetworkView, address: Address) -> Place | None:
    """Only the block is on the link; everything else of the network is behind the host's address in it.

    These ways are there beside the default route: an internal network has none, and another network may have it.
    """
    block = next((block for block in own_blocks(view) if address in block.cidr), None)
    if block is None:
        return None
    gateway = block.gateway.packed
    # A block as large as its subnet is the link itself.
    subnets = [subnet for subnet in _of_family(view.network, address.version) if subnet.cidr != block.cidr]
    ways = [(subnet.cidr.network_address.packed, subnet.cidr.prefixlen, gateway) for subnet in subnets]
    return Place(block.cidr.prefixlen, gateway, ways)


def _of_family(network: Network, version: int) -> list[Subnet]:
    return [subnet for subnet in network.subnets if subnet.cidr.version == version]
