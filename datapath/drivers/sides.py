"""The workload's half of an interface: its addresses, its default routes, and the ways to the rest of its network.

Configured once at attach, so it holds nothing that may change while the workload runs (who is peered, say). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from datapath.drivers.places import Place, Way, in_block, place_of, way_to_host
from datapath.objects import ContainerSide, Ip
from datapath.packing import packed_mac
from datapath.view import Attachment, NetworkView
from kvnet.model import Address, Block, Driver, Endpoint
from kvnet.rules import GATEWAY_PRIORITY

_ORDERS = 64  # interfaces of one workload that their order tells apart


def container_side(view: NetworkView, endpoint: Endpoint, attachment: Attachment, mtu: int) -> ContainerSide | None:
    """None where an address is in no block of this host: the block's record is still on its way, or gone."""
    network = view.network
    places = [_place(view, address) for address in endpoint.addresses]
    found = [known for known in places if known is not None]
    if len(found) < len(places):
        return None
    gateways = [known.gateway.packed for known in found if known.gateway is not None and not network.internal]
    return ContainerSide(
        attachment.netns,
        attachment.interface,
        packed_mac(endpoint.mac),
        mtu,
        addresses=tuple((a.packed, known.prefix_length) for a, known in zip(endpoint.addresses, found, strict=True)),
        gateways=tuple(gateways),
        metric=(GATEWAY_PRIORITY - endpoint.gateway_priority) * _ORDERS + attachment.order + 1,
        routes=(
            *(_packed(way) for known in found for way in known.routes),
            *(_led(view, *way) for way in attachment.routes),
            *(_ways_to_names(view, endpoint, gateways) if not attachment.is_handed_over else ()),
        ),
        is_handed_over=attachment.is_handed_over,
    )


def _ways_to_names(view: NetworkView, endpoint: Endpoint, gateways: Sequence[Ip]) -> list[tuple[Ip, int, Ip]]:
    """Where the default route is not the host's.

    On a physical network only where the host is there too: with an address on the workloads' bridge, or with a shim.
    """
    length = len(view.dns)
    if not length or all(len(address.packed) != length for address in endpoint.addresses):
        return []
    if view.network.driver is not Driver.TRANSPARENT:
        is_there = all(len(gateway) != length for gateway in gateways)
    elif view.network.shim:
        is_there = len(view.host.underlay.packed) == length
    else:
        is_there = view.uplink is not None and view.uplink.is_bridge and view.uplink.has_addresses
    return [_led(view, view.dns, length * 8)] if is_there else []


def own_blocks(view: NetworkView) -> list[Block]:
    """This host's, in a stable order."""
    own = [block for block in view.blocks if block.host == view.host.name]
    return sorted(own, key=lambda block: (block.cidr.version, int(block.cidr.network_address)))


def _place(view: NetworkView, address: Address) -> Place | None:
    if view.network.driver is not Driver.ROUTED:
        return place_of(view.network, address, view.host.underlay)
    block = next((block for block in own_blocks(view) if address in block.cidr), None)
    return None if block is None else in_block(view.network, block.cidr)


def _led(view: NetworkView, destination: Ip, length: int) -> tuple[Ip, int, Ip]:
    """What leads there over this interface. The address for names is the host's, and behind it where that matters."""
    if destination != view.dns:
        return destination, length, b""
    return _packed(way_to_host(view.network, ip_address(destination), view.host.underlay))


def _packed(way: Way) -> tuple[Ip, int, Ip]:
    gateway = way.gateway.packed if way.gateway is not None else b""
    return way.destination.network_address.packed, way.destination.prefixlen, gateway
