"""What an address of a network means to its workload: its prefix length, the way out, the ways to the rest of it.

Follows from the stored network, so it can be told before anything is built: to the kernel, where kvnet configures the
interface, and to a runtime that does. Pure.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import NamedTuple

from kvnet.model import Address, Cidr, Driver, Network, UplinkMode

# Of a stored network the length is always given; this is what it is without.
_BLOCK_LENGTH = {4: 26, 6: 122}


class Way(NamedTuple):
    """`gateway` None: on the link."""

    destination: Cidr
    gateway: Address | None = None


class Place(NamedTuple):
    """`routes`: to the rest of the network that is of the same family."""

    prefix_length: int
    gateway: Address | None
    routes: tuple[Way, ...]


def place_of(network: Network, address: Address, underlay: Address | None = None) -> Place:
    """`underlay`: of the host, where it is known."""
    if network.driver is not Driver.ROUTED:
        return _on_link(network, address, underlay)
    block = block_of(network, address)
    return Place(address.max_prefixlen, None, ()) if block is None else in_block(network, block)


def in_block(network: Network, block: Cidr) -> Place:
    """Only the block is on the link; everything else of the network is behind the host's address in it.

    These ways are there beside the default route: an internal network has none, and another network may have it.
    """
    gateway: Address = block.network_address + 1
    # A block as large as its subnet is the link itself.
    rest = (cidr for cidr in _of_family(network, block.version) if cidr != block)
    return Place(block.prefixlen, gateway, tuple(Way(cidr, gateway) for cidr in rest))


def block_of(network: Network, address: Address) -> Cidr | None:
    """All blocks of a family are equal parts of their subnet."""
    own = network.subnet_of(address)
    if own is None:
        return None
    wanted = network.block_prefix_length if address.version == 4 else network.block_prefix_length6
    return ip_network((address, max(wanted or _BLOCK_LENGTH[address.version], own.cidr.prefixlen)), strict=False)


def reaches_host(network: Network) -> bool:
    """Whether a workload's frames reach its host: the kernel keeps a macvlan and the host's link apart."""
    is_macvlan = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN
    return not is_macvlan or network.shim


def way_to_host(network: Network, destination: Address, underlay: Address | None) -> Way:
    """To an address of the host's that is in no network. On the link, for the host answers ARP for all that it has; but
    behind a shim every other host on that wire would answer for it, too."""
    is_there = network.shim and underlay is not None and underlay.version == destination.version
    return Way(ip_network(destination), underlay if is_there else None)


def _on_link(network: Network, address: Address, underlay: Address | None) -> Place:
    """The network's other subnets are on the same link, so the way there takes no gateway; and so is a shim's host."""
    own = network.subnet_of(address)
    if own is None:
        return Place(address.max_prefixlen, None, ())
    ways = [Way(cidr) for cidr in _of_family(network, address.version) if cidr != own.cidr]
    if network.shim and underlay is not None and underlay.version == address.version:
        ways += [Way(ip_network(underlay))] if network.subnet_of(underlay) is None else []
    return Place(own.cidr.prefixlen, own.gateway, tuple(ways))


def _of_family(network: Network, version: int) -> list[Cidr]:
    return [subnet.cidr for subnet in network.subnets if subnet.cidr.version == version]
