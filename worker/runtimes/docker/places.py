"""What an address of a network means to Docker: its prefix length, the way out, the ways to the rest of the network.

The same rules as `datapath.drivers.sides`, which configures interfaces that kvnet keeps; these Docker configures, and
asks before the interface is there. Pure.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import NamedTuple

from kvnet.model import Address, Cidr, Driver, Network, UplinkMode

# Of a stored network the length is always given; this is what it is without.
_BLOCK_LENGTH = {4: 26, 6: 122}


class Place(NamedTuple):
    """`routes`: destinations with the gateway that leads there; None = on the link."""

    prefix_length: int
    gateway: Address | None
    routes: tuple[tuple[Cidr, Address | None], ...]


def place_of(network: Network, address: Address) -> Place:
    own = network.subnet_of(address)
    if own is None:
        return Place(address.max_prefixlen, None, ())
    family = [subnet.cidr for subnet in network.subnets if subnet.cidr.version == address.version]
    if network.driver is not Driver.ROUTED:
        others = tuple((cidr, None) for cidr in family if cidr != own.cidr)
        return Place(own.cidr.prefixlen, own.gateway, others)
    wanted = network.block_prefix_length if address.version == 4 else network.block_prefix_length6
    length = max(wanted or _BLOCK_LENGTH[address.version], own.cidr.prefixlen)
    block: Cidr = ip_network((address, length), strict=False)
    gateway: Address = block.network_address + 1
    return Place(length, gateway, tuple((cidr, gateway) for cidr in family if cidr != block))


def reaches_host(network: Network) -> bool:
    """Whether a workload's frames reach its host: the kernel keeps a macvlan and the host's link apart."""
    is_macvlan = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN
    return not is_macvlan or network.shim
