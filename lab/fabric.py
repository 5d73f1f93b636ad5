"""Joins hosts by a fabric: a bridge per segment in a namespace of its own, one cable to every host.

Built with kvnet's own kernel code: a cable is what an endpoint's interface is to a network, so nothing new is needed.
Everything lives in namespaces that the lab made; the fabric's namespace never runs a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from datapath.objects import (
    BRIDGE_PREFIX,
    VETH_PREFIX,
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Kernel,
    Operation,
    Veth,
)
from kvnet.errors import KernelRefused
from kvnet.model import Address

# RFC 2544: set aside for test beds, so it meets neither a site's ranges nor kvnet's pools. One part for each segment.
UNDERLAY = IPv4Network("198.18.0.0/16")
UNDERLAY6 = IPv6Network("fd00:198:18::/56")
SEGMENT_LENGTH, SEGMENT_LENGTH6 = 20, 64
BRIDGE = f"{BRIDGE_PREFIX}fabric"
UPLINK = "eth0"


@dataclass(frozen=True, slots=True)
class Port:
    """Where the fabric's `number`-th cable (from 1) ends: a host's namespace and its address on the underlay.

    `segment`: which of the fabric's segments it is plugged into. `is_routed`: its way out is the router there.
    `family`: of the underlay address; it has both.
    """

    number: int
    netns: Path
    mtu: int = 1500
    segment: int = 0
    is_routed: bool = False
    family: int = 4

    @property
    def underlay(self) -> Address:
        return self.underlay4 if self.family == 4 else self.underlay6

    @property
    def underlay4(self) -> IPv4Address:
        return segment_of(self.segment)[self.number]

    @property
    def underlay6(self) -> IPv6Address:
        return segment6_of(self.segment)[self.number]

    @property
    def cable(self) -> str:
        return f"{VETH_PREFIX}host{self.number}"


def segment_of(number: int) -> IPv4Network:
    size = 1 << (UNDERLAY.max_prefixlen - SEGMENT_LENGTH)
    return IPv4Network((int(UNDERLAY.network_address) + number * size, SEGMENT_LENGTH))


def segment6_of(number: int) -> IPv6Network:
    size = 1 << (UNDERLAY6.max_prefixlen - SEGMENT_LENGTH6)
    return IPv6Network((int(UNDERLAY6.network_address) + number * size, SEGMENT_LENGTH6))


def router_of(segment: int) -> tuple[IPv4Address, IPv6Address]:
    """The router's addresses there."""
    return segment_of(segment)[-2], segment6_of(segment)[0xFFFF]


def bridge_of(segment: int) -> str:
    return BRIDGE if segment == 0 else f"{BRIDGE}{segment}"


async def build(kernel: Kernel, ports: Sequence[Port]) -> None:
    """Make the bridges and plug in every host; `kernel` is the fabric namespace's.

    Raises:
        KernelRefused: with the kernel's words.
    """
    mtu = max((p.mtu for p in ports), default=1500)
    await make(kernel, [switch(bridge_of(segment), segment, mtu) for segment in sorted({p.segment for p in ports})])
    await plug(kernel, ports)


async def plug(kernel: Kernel, ports: Sequence[Port]) -> None:
    await make(kernel, [CreateLink(_cable(port), _host_side(port)) for port in ports])


async def unplug(kernel: Kernel, port: Port) -> None:
    """Both halves go; no error if they are gone already."""
    await kernel.apply([DeleteLink(_cable(port))])


def _cable(port: Port) -> Veth:
    return Veth(port.cable, port.mtu, bridge_of(port.segment))


def switch(name: str, number: int, mtu: int = 1500) -> CreateLink:
    return CreateLink(Bridge(name, mac=bytes((0x02, 0x66, 0, 0, 1, number + 1)), mtu=mtu, ipv6=True))


async def make(kernel: Kernel, operations: Sequence[Operation]) -> None:
    """
    Raises:
        KernelRefused: with the kernel's words.
    """
    failures = await kernel.apply(operations)
    if failures:
        raise KernelRefused(
            f"the lab's fabric: {failures[0].reason}", context={"operation": str(failures[0].operation)}
        )


def _host_side(port: Port) -> ContainerSide:
    return ContainerSide(
        netns=str(port.netns),
        interface=UPLINK,
        mac=bytes((0x02, 0x66, *port.underlay4.packed)),
        mtu=port.mtu,
        addresses=((port.underlay4.packed, SEGMENT_LENGTH), (port.underlay6.packed, SEGMENT_LENGTH6)),
        gateways=tuple(address.packed for address in router_of(port.segment)) if port.is_routed else (),
    )
