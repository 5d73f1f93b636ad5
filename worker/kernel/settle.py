"""Waits until what was just made also works: the kernel leaves the last steps to work queues.

A link whose other half came up is told so by one: until then the kernel drops what is sent, the bridge does not
forward, and there is no link-local address. An IPv6 address becomes a local destination by another one, duplicate
detection or not. Both take less than a millisecond, but on a busy host the first packet may be faster. Runs in the
kernel thread, bounded, and gives up in silence: a link may be down because somebody wants it so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from datapath.objects import Ip
from worker.kernel import messages as m
from worker.kernel.dump import device
from worker.kernel.netlink import Netlink

PAUSE_S = 0.0005
ATTEMPTS = 100
ROUTE_TYPE = 7  # its place in rtmsg


def until_it_works(rtnetlink: Netlink, name: str) -> None:
    for _ in range(ATTEMPTS):
        body = rtnetlink.get(m.get_link(name))  # asking makes the kernel catch up at once (Linux 6.8 and newer)
        if body is None or not m.LINK.unpack_from(body)[3] & m.IFF_UP:
            return
        if device(body).fields.get(m.IFLA_OPERSTATE) in m.WORKING_STATES:
            return
        time.sleep(PAUSE_S)


def hurry(rtnetlink: Netlink, name: str) -> None:
    """As far as asking once helps."""
    rtnetlink.get(m.get_link(name))


def until_local(rtnetlink: Netlink, addresses: Iterable[Ip]) -> None:
    """Until the kernel takes packets to these addresses for its own."""
    waiting = [address for address in addresses if len(address) == 16]
    for _ in range(ATTEMPTS):
        waiting = [address for address in waiting if not _is_local(rtnetlink, address)]
        if not waiting:
            return
        time.sleep(PAUSE_S)


def _is_local(rtnetlink: Netlink, address: Ip) -> bool:
    try:
        body = rtnetlink.get(m.get_route(address))
    except OSError:  # no route at all
        return False
    return body is not None and body[ROUTE_TYPE] == m.RTN_LOCAL
