"""How a subnet of a routed network is cut into blocks of hosts: equal parts, counted from its first address. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from kvnet.model import Address, Cidr, Network, Subnet

DEFAULT_LENGTH = {4: 26, 6: 122}


def block_length(network: Network, subnet: Subnet) -> int:
    """The prefix length of the blocks of a subnet; one that is smaller than a block is one block."""
    version = subnet.cidr.version
    wanted = network.block_prefix_length if version == 4 else network.block_prefix_length6
    return max(wanted or DEFAULT_LENGTH[version], subnet.cidr.prefixlen)


class Grid:
    """The blocks that a subnet can be cut into, by number."""

    def __init__(self, network: Network, subnet: Subnet) -> None:
        self.subnet = subnet
        self.length = block_length(network, subnet)
        self._bits = subnet.cidr.max_prefixlen - self.length
        bounds = subnet.range or subnet.cidr
        base = int(subnet.cidr.network_address)
        self.first = (int(bounds.network_address) - base) >> self._bits
        self.count = ((int(bounds.broadcast_address) - base) >> self._bits) - self.first + 1

    def at(self, number: int) -> Cidr:
        """Those that automatic choice may take, from 0 to `count` - 1."""
        start = int(self.subnet.cidr.network_address) + ((self.first + number) << self._bits)
        return _cidr(self.subnet.cidr.version, start, self.length)

    def number_of(self, cidr: Cidr) -> int:
        offset = int(cidr.network_address) - int(self.subnet.cidr.network_address)
        return (offset >> self._bits) - self.first

    def around(self, address: Address) -> Cidr:
        return _cidr(address.version, int(address) >> self._bits << self._bits, self.length)


def _cidr(version: int, start: int, length: int) -> Cidr:
    return IPv4Network((start, length)) if version == 4 else IPv6Network((start, length))
