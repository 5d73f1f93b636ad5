"""Joins hosts by a fabric: one bridge in a namespace of its own, one cable to every host.

Built with kvnet's own kernel code: a cable is what an endpoint's interface is to a network, so nothing new is needed.
Everything lives in namespaces that the lab made; the fabric's namespace never runs a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from datapath.objects import BRIDGE_PREFIX, VETH_PREFIX, Bridge, ContainerSide, CreateLink, Kernel, Operation, Veth
from kvnet.errors import KernelRefused

# RFC 2544: set aside for test beds, so it meets neither a site's ranges nor kvnet's pools.
UNDERLAY = IPv4Network("198.18.0.0/16")
UNDERLAY6 = IPv6Network("fd00:198:18::/64")
BRIDGE = f"{BRIDGE_PREFIX}fabric"
UPLINK = "eth0"


@dataclass(frozen=True, slots=True)
class Port:
    """Where the fabric's `number`-th cable (from 1) ends: a host's namespace and its address on the underlay."""

    number: int
    netns: Path
    mtu: int = 1500

    @property
    def underlay(self) -> IPv4Address:
        return UNDERLAY[self.number]

    @property
    def underlay6(self) -> IPv6Address:
        return UNDERLAY6[self.number]

    @property
    def cable(self) -> str:
        return f"{VETH_PREFIX}host{self.number}"


async def build(kernel: Kernel, ports: Sequence[Port]) -> None:
    """Make the bridge and plug in every host; `kernel` is the fabric namespace's.

    Raises:
        KernelRefused: with the kernel's words.
    """
    bridge = Bridge(BRIDGE, mac=bytes((0x02, 0x66, 0, 0, 0, 1)), mtu=max(p.mtu for p in ports), ipv6=True)
    operations: list[Operation] = [CreateLink(bridge)]
    operations += (CreateLink(Veth(p.cable, p.mtu, BRIDGE), _host_side(p)) for p in ports)
    failures = await kernel.apply(operations)
    if failures:
        raise KernelRefused(
            f"the lab's fabric: {failures[0].reason}", context={"operation": str(failures[0].operation)}
        )


def _host_side(port: Port) -> ContainerSide:
    return ContainerSide(
        netns=str(port.netns),
        interface=UPLINK,
        mac=bytes((0x02, 0x66, *port.underlay.packed)),
        mtu=port.mtu,
        addresses=(
            (port.underlay.packed, UNDERLAY.prefixlen),
            (port.underlay6.packed, UNDERLAY6.prefixlen),
        ),
        gateways=(),
    )
