"""Interfaces that a runtime moved into its workload and configured there: finds them, and adds what it was not told.

Never changes what the runtime set. Runs in the kernel thread only.
"""

from __future__ import annotations

import errno

from datapath.objects import MACVLAN_PREFIX, Ip, Mac, Route
from worker.kernel import dump, macvlans
from worker.kernel import messages as m
from worker.kernel.containers import GONE, inside, opened
from worker.kernel.failures import Told
from worker.kernel.netlink import Message, Netlink


def name_inside(rtnetlink: Netlink, device: str, netns: str, mac: Mac) -> str:
    """What the interface whose half on the host is `device` is called in the namespace; "" where it is not there.

    Of one without such a half the MAC has to tell.

    Raises:
        Told: the namespace is gone.
    """
    with opened(netns) as namespace, inside(namespace) as within:
        if device.startswith(MACVLAN_PREFIX):
            found = macvlans.with_mac(within, mac)
            return "" if found is None else found.name
        outer = _device(rtnetlink, m.get_link(device))
        if outer is None or not outer.is_ours:
            return ""
        inner = _device(within, m.get_link_at(outer.peer))
        # The index alone could be another device's: it counts anew in every namespace.
        if inner is None or inner.kind != "veth" or inner.peer != outer.index or inner.mac != mac:
            return ""
        return inner.name


def remove_macvlan(rtnetlink: Netlink, netns: str, mac: Mac) -> bool:
    """In the namespace ("" for none) or back on the host, whatever it is called; False: it is in neither.

    That may also mean that its runtime moves it just now: for some milliseconds the kernel lists it nowhere.

    Raises:
        OSError: it is there and cannot be removed.
    """
    is_there = False
    try:
        if netns:
            with opened(netns) as namespace, inside(namespace) as within:
                is_there = _delete(within, mac)
    except OSError as error:
        if error.errno not in GONE:
            raise
    return _delete(rtnetlink, mac) or is_there


def _delete(within: Netlink, mac: Mac) -> bool:
    found = macvlans.with_mac(within, mac)
    refusal = None if found is None else within.one(m.delete_link(found.index))
    if refusal is not None and refusal.errno != errno.ENODEV:
        raise Told(refusal.errno, refusal.text or "the interface cannot be deleted")
    return found is not None and refusal is None


def lead(netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
    """On the link, over the interface in the namespace. One that is there already is no error.

    Raises:
        OSError: the namespace or the interface is gone, or the kernel refused.
    """
    with opened(netns) as namespace, inside(namespace) as within:
        found = _device(within, m.get_link(interface))
        if found is None:
            raise Told(errno.ENODEV, f"the interface {interface} vanished from {netns}")
        route = Route(destination, prefix_length, interface)
        refusal = within.one(m.workload_route(route, found.index))
        if refusal is not None and refusal.errno != errno.EEXIST:
            raise Told(refusal.errno, refusal.text or f"the route over {interface} in {netns} cannot be set")


def _device(rtnetlink: Netlink, request: Message) -> dump.Device | None:
    body = rtnetlink.get(request)
    return None if body is None else dump.device(body)
