"""Which kind of address space a network has: one that any host shares, or one that is cut into blocks of hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controller.ipam.addresses import AddressSpace
from controller.ipam.routed import BlockSpace
from kvnet.model import Address, Driver, Network

Space = AddressSpace | BlockSpace


def space_for(network: Network, endpoint_name: Callable[[str], str], host_of: Callable[[Address], str]) -> Space:
    """`host_of` tells whether an address is a host's own; it counts where endpoints share the hosts' network."""
    if network.driver is Driver.ROUTED:
        return BlockSpace(network, endpoint_name)
    return AddressSpace(network, endpoint_name, host_of if network.driver is Driver.TRANSPARENT else None)


def shape(network: Network) -> Any:
    """What a space is made from: when it changes, the space is made anew."""
    return network.driver, network.subnets, network.block_prefix_length, network.block_prefix_length6
