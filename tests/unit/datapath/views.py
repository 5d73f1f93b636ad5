"""One host's view of a few networks, as the tests of the desired state put it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from datapath.objects import Uplink
from datapath.view import Attachment, HostView
from kvnet.model import Address, Block, Cidr, Endpoint, Host, Network
from tests.unit.datapath.clusters import endpoint, host, namespace_of

HERE, THERE = host(0), host(1)


def view_of(
    networks: Iterable[Network],
    endpoints: Iterable[Endpoint] = (),
    *,
    hosts: Iterable[Host] = (HERE, THERE),
    blocks: Iterable[Block] = (),
    uplinks: Iterable[Uplink] = (),
    attachments: Mapping[str, Attachment] | None = None,
    host: str = "h0",
) -> HostView:
    """The view of a host on which every local endpoint is attached, unless `attachments` say otherwise."""
    networks, endpoints, blocks = list(networks), list(endpoints), list(blocks)
    attached = {e.id: Attachment(e.id, namespace_of(e), "eth0") for e in endpoints if e.host == host}
    return HostView(
        host,
        {record.name: record for record in hosts},
        {network.id: network for network in networks},
        {network.id: {e.id: e for e in endpoints if e.network == network.id} for network in networks},
        attached if attachments is None else attachments,
        {network.id: [b for b in blocks if b.network == network.id] for network in networks},
        {uplink.name: uplink for uplink in uplinks},
    )


def placed(of: Network, number: int, on: str) -> Endpoint:
    """An endpoint that has the addresses from .10 on, whichever block those are in."""
    addresses = tuple(subnet.cidr.network_address + 10 + number for subnet in of.subnets)
    return replace(endpoint(of, number, on), addresses=addresses)


def block(of: Network, cidr: str, on: str) -> Block:
    return Block(of.id, ip_network(cidr), on, 0.0)


def packed(text: str) -> bytes:
    """An address as the kernel tells it."""
    return ip_address(text).packed


def range_of(cidr: Cidr | str) -> tuple[bytes, int]:
    """A block as the kernel tells it."""
    found = ip_network(cidr)
    return found.network_address.packed, found.prefixlen


def single(address: Address) -> tuple[bytes, int]:
    return address.packed, address.max_prefixlen
