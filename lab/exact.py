"""Whether a host's kernel has exactly the entries that an overlay's endpoints ask for: no more, no less.

Worked out from the endpoints as the API tells them, not by the worker's own planner, and read from the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from datapath.objects import Scope
from kvnet.wire import Endpoint
from lab.lab import Host
from worker.kernel.linux import LinuxKernel


class Entry(NamedTuple):
    """`where`: the remote underlay address of a tunnel entry; "" for a neighbour or a bridge's forwarding entry."""

    kind: str
    mac: bytes
    address: bytes = b""
    where: bytes = b""


async def missing_and_extra(
    endpoints: Sequence[Endpoint], hosts: Mapping[str, Host], host: Host
) -> tuple[set[Entry], set[Entry]]:
    """Of the neighbours and forwarding entries on one host, of the one network that all these endpoints are of."""
    wanted = _wanted(endpoints, hosts, host)
    async with await LinuxKernel.open(netns=str(host.netns)) as kernel:
        state = await kernel.read(Scope(endpoints[0]["network"]), firewall=False)
    there = {Entry("neighbour", n.mac, n.address) for n in state.neighbours if not ip_address(n.address).is_link_local}
    there |= {Entry("tunnel", v.mac, where=v.remote) for v in state.vteps}
    there |= {Entry("port", p.mac) for p in state.ports}
    return wanted - there, there - wanted


def _wanted(endpoints: Sequence[Endpoint], hosts: Mapping[str, Host], host: Host) -> set[Entry]:
    wanted = set()
    for endpoint in endpoints:
        mac = bytes.fromhex(endpoint["mac"].replace(":", ""))
        for address in (endpoint["address"], endpoint["address6"]):
            if address:
                wanted.add(Entry("neighbour", mac, ip_address(address).packed))
        wanted.add(Entry("port", mac))
        if endpoint["host"] != host.name:
            wanted.add(Entry("tunnel", mac, where=hosts[endpoint["host"]].port.underlay.packed))
    return wanted
