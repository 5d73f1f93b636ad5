"""Whether the next machine on the way to a host answers for its address: as the kernel noted it when probes were sent.

Reads only, in a thread. A neighbour that does not answer is why packets never leave, and no firewall's doing.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address

from kvnet.model import Address
from worker.kernel import messages as m
from worker.kernel.netlink import Netlink, attributes

NUD_INCOMPLETE, NUD_FAILED = 0x01, 0x20
STATE = 8  # where ndm_state is in a neighbour message


def silent_next_hops(targets: Collection[Address]) -> dict[Address, Address]:
    """Of those whose next hop does not answer: which that is."""
    rtnetlink = Netlink(small=True)
    try:
        hops = {target: _next_hop(rtnetlink, target) for target in targets}
        silent = {address for version in {t.version for t in targets} for address in _silent(rtnetlink, version)}
    finally:
        rtnetlink.close()
    return {target: hop for target, hop in hops.items() if hop in silent}


def _next_hop(rtnetlink: Netlink, target: Address) -> Address:
    try:
        body = rtnetlink.get(m.get_route(target.packed))
    except OSError:
        return target
    gateway = attributes(body, m.ROUTE.size).get(m.RTA_GATEWAY) if body is not None else None
    return ip_address(gateway) if gateway else target


def _silent(rtnetlink: Netlink, version: int) -> set[Address]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = set()
    for body in rtnetlink.dump(m.dump_neighbours(family)):
        if body[STATE] & (NUD_INCOMPLETE | NUD_FAILED):
            address = attributes(body, m.NEIGHBOUR.size).get(m.NDA_DST)
            if address:
                found.add(ip_address(address))
    return found
