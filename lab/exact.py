"""Whether a host's kernel has exactly the entries that an overlay's endpoints ask for: no more, no less.

Worked out from the endpoints as the API tells them, not by the worker's own planner, and read from the kernel.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from datapath.objects import Scope
from lab.lab import Host, Lab
from worker.kernel.linux import LinuxKernel


class Entry(NamedTuple):
    """`where`: the remote underlay address of a tunnel entry; "" for a neighbour or a bridge's forwarding entry."""

    kind: str
    mac: bytes
    address: bytes = b""
    where: bytes = b""


async def missing_and_extra(lab: Lab, network: str, host: Host) -> tuple[set[Entry], set[Entry]]:
    """Of the neighbours and forwarding entries of one network on one host."""
    record = await lab.client.get_network(network)
    wanted = await _wanted(lab, network, host)
    async with await LinuxKernel.open(netns=str(host.netns)) as kernel:
        state = await kernel.read(Scope(record["id"]), firewall=False)
    there = {Entry("neighbour", n.mac, n.address) for n in state.neighbours if not _is_link_local(n.address)}
    there |= {Entry("tunnel", v.mac, where=v.remote) for v in state.vteps}
    there |= {Entry("port", p.mac) for p in state.ports}
    return wanted - there, there - wanted


async def _wanted(lab: Lab, network: str, host: Host) -> set[Entry]:
    wanted = set()
    async for endpoint in lab.client.endpoints(network=network):
        mac = bytes.fromhex(endpoint["mac"].replace(":", ""))
        for family in ("address", "address6"):
            if endpoint.get(family):
                wanted.add(Entry("neighbour", mac, ip_address(str(endpoint[family])).packed))
        wanted.add(Entry("port", mac))
        if endpoint["host"] != host.name:
            wanted.add(Entry("tunnel", mac, where=lab.hosts[endpoint["host"]].port.underlay.packed))
    return wanted


def _is_link_local(address: bytes) -> bool:
    return ip_address(address).is_link_local
