"""What lies around the hosts of a laboratory: the router between segments, the outside world, a physical network.

All of it is namespaces and cables that know nothing of kvnet: the router has no route to any range of kvnet's, so what
gets out and back proves that it left with its host's address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from datapath.objects import VETH_PREFIX, ContainerSide, CreateLink, Kernel, Operation, Veth
from lab import fabric, namespaces
from worker.kernel.sysctls import write_sysctl

# RFC 5737 and a ULA: what the world's addresses are in the lab.
OUTSIDE, OUTSIDE6 = IPv4Network("203.0.113.0/24"), IPv6Network("fd00:203::/64")
# The other half of RFC 2544's range: the physical network that uplinks are on.
LAN, LAN6 = IPv4Network("198.19.0.0/24"), IPv6Network("fd00:198:19::/64")
LAN_UPLINK = "lan0"
LAN_BRIDGE = "kvblan"
OUTSIDE_BRIDGE = "kvboutside"
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


@dataclass(frozen=True, slots=True)
class Place:
    """Something that is not a host: a namespace with one interface and its addresses."""

    name: str
    netns: Path
    interface: str
    address: IPv4Address
    address6: IPv6Address


async def add_router(kernel: Kernel, stack: AsyncExitStack, segments: Iterable[int], *, outside: bool) -> Place:
    """Joins the segments, and the outside if there is one. Hosts reach it as their default gateway."""
    netns = _namespace(stack, "router")
    sides = []
    for segment in sorted(segments):
        addresses = fabric.router_of(segment)
        lengths = (fabric.SEGMENT_LENGTH, fabric.SEGMENT_LENGTH6)
        sides.append((fabric.bridge_of(segment), _side(netns, f"seg{segment}", addresses, lengths)))
    if outside:
        await fabric.make(kernel, [fabric.switch(OUTSIDE_BRIDGE, 0xF0)])
        addresses = (OUTSIDE[1], OUTSIDE6[1])
        sides.append((OUTSIDE_BRIDGE, _side(netns, "world", addresses, (OUTSIDE.prefixlen, OUTSIDE6.prefixlen))))
    await fabric.make(kernel, [_cable(f"rt{number}", *side) for number, side in enumerate(sides)])
    for path in FORWARDING:
        namespaces.call(netns, partial(write_sysctl, path, "1"))
    return Place("router", netns, "seg0", *fabric.router_of(0))


async def add_outside(kernel: Kernel, stack: AsyncExitStack) -> Place:
    """The world behind the router."""
    netns = _namespace(stack, "outside")
    addresses, gateways = (OUTSIDE[10], OUTSIDE6[10]), (OUTSIDE[1].packed, OUTSIDE6[1].packed)
    side = _side(netns, "eth0", addresses, (OUTSIDE.prefixlen, OUTSIDE6.prefixlen), gateways)
    await fabric.make(kernel, [_cable("outside", OUTSIDE_BRIDGE, side)])
    return Place("outside", netns, "eth0", *addresses)


async def add_lan(kernel: Kernel, stack: AsyncExitStack, hosts: Sequence[tuple[int, Path]]) -> Place:
    """A physical network: an uplink `lan0` without an address in every host, and one machine, which is the gateway."""
    netns = _namespace(stack, "lan")
    addresses = (LAN[1], LAN6[1])
    operations: list[Operation] = [fabric.switch(LAN_BRIDGE, 0xF1)]
    operations.append(_cable("lanbox", LAN_BRIDGE, _side(netns, "eth0", addresses, (LAN.prefixlen, LAN6.prefixlen))))
    operations += (_cable(f"lan{number}", LAN_BRIDGE, _side(host, LAN_UPLINK, (), ())) for number, host in hosts)
    await fabric.make(kernel, operations)
    return Place("lan", netns, "eth0", *addresses)


def _namespace(stack: AsyncExitStack, name: str) -> Path:
    netns = namespaces.create(name)
    stack.callback(namespaces.destroy, netns)
    return netns


def _cable(name: str, bridge: str, side: ContainerSide) -> Operation:
    return CreateLink(Veth(f"{VETH_PREFIX}{name}", side.mtu, bridge), side)


def _side(
    netns: Path,
    interface: str,
    addresses: Sequence[IPv4Address | IPv6Address],
    lengths: Sequence[int],
    gateways: tuple[bytes, ...] = (),
) -> ContainerSide:
    mac = bytes((0x02, 0x67, *_digest(f"{netns}:{interface}")))
    packed = tuple((address.packed, length) for address, length in zip(addresses, lengths, strict=True))
    return ContainerSide(str(netns), interface, mac, 1500, packed, gateways)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:4]
