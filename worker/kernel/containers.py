"""Configures a workload's half of an interface, inside its namespace.

Once, at attach: what the workload does with it afterwards is its own business. Repeating is no error. Never forks,
never leaves the thread elsewhere than it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from datapath.objects import ContainerSide, Route
from worker.kernel import messages as m
from worker.kernel.dump import Device, device
from worker.kernel.failures import NAMESPACE_GONE, REFUSED, Told
from worker.kernel.namespaces import entered, open_namespace
from worker.kernel.netlink import Message, Netlink, Refusal
from worker.kernel.settle import hurry, until_local
from worker.kernel.sysctls import write_sysctl

LOOPBACK_INDEX = 1
# EINVAL: a file is left where the namespace was mounted.
GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR, errno.EINVAL})
# Set before the interface comes up: detection alone would hold the first IPv6 packet back for 2 s.
IPV6_SETTINGS: Mapping[str, str] = {
    "disable_ipv6": "0",
    "accept_dad": "0",
    "accept_ra": "0",
    "autoconf": "0",
    "router_solicitations": "0",
}
NO_IPV6_SETTINGS: Mapping[str, str] = {"disable_ipv6": "1"}


@contextlib.contextmanager
def opened(netns: str) -> Iterator[int]:
    """A descriptor of the workload's namespace.

    Raises:
        Told: it is gone, or not a network namespace; says so in words.
    """
    try:
        descriptor = open_namespace(netns)
    except OSError as error:
        number, code = error.errno or errno.EIO, NAMESPACE_GONE if error.errno in GONE else REFUSED
        raise Told(number, f"the workload's namespace {netns} cannot be opened: {error.strerror}", code) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[Netlink]:
    """A socket that works in the namespace, used from here."""
    rtnetlink = Netlink(namespace=namespace, small=True)
    try:
        yield rtnetlink
    finally:
        rtnetlink.close()


@contextlib.contextmanager
def where_it_is(side: ContainerSide) -> Iterator[Netlink]:
    """A socket that works where the interface is: in the workload's namespace, or in ours as long as it waits there.

    Raises:
        Told: as of `opened`.
    """
    if not side.is_handed_over:
        with opened(side.netns) as namespace, inside(namespace) as within:
            yield within
        return
    rtnetlink = Netlink(small=True)
    try:
        yield rtnetlink
    finally:
        rtnetlink.close()


def configure(side: ContainerSide, namespace: int) -> None:
    """Bring the interface up with its addresses and ways out.

    Raises:
        OSError: the kernel refused a step; says which.
    """
    with inside(namespace) as rtnetlink:
        index = _interface(rtnetlink, side).index
        with entered(namespace):
            _set_ipv6(side)
        for (what, _), refusal in _refused(rtnetlink, _steps(side, index)):
            raise OSError(refusal[0], f"{what} in {side.netns}: {refusal[1] or os.strerror(refusal[0])}")
        hurry(rtnetlink, side.interface)
        until_local(rtnetlink, [ip for ip, _ in side.addresses])


def is_peer_of(side: ContainerSide, namespace: int, outer: Device) -> bool:
    """Whether the interface in the namespace is the other half of `outer`."""
    with inside(namespace) as rtnetlink:
        inner = _peer_of(rtnetlink, side.interface, outer)
    return inner is not None and inner.mac == side.mac


def resize(side: ContainerSide, outer: Device) -> Refusal | None:
    """The workload's half gets its MTU. A workload that is gone, or its interface, needs nothing."""
    try:
        with opened(side.netns) as namespace, inside(namespace) as rtnetlink:
            inner = _peer_of(rtnetlink, side.interface, outer)
            return None if inner is None else rtnetlink.one(m.set_link(inner.index, mtu=side.mtu))
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def _peer_of(rtnetlink: Netlink, interface: str, outer: Device) -> Device | None:
    body = rtnetlink.get(m.get_link(interface))
    inner = None if body is None else device(body)
    if inner is None or not (inner.kind == "veth" and inner.index == outer.peer and inner.peer == outer.index):
        return None
    return inner


def _interface(rtnetlink: Netlink, side: ContainerSide) -> Device:
    body = rtnetlink.get(m.get_link(side.interface))
    if body is None:
        raise OSError(errno.ENODEV, f"the interface {side.interface} vanished from {side.netns}")
    return device(body)


def _set_ipv6(side: ContainerSide) -> None:
    has_ipv6 = any(len(ip) == 16 for ip, _ in side.addresses)
    folder = f"net/ipv6/conf/{side.interface}"
    if not has_ipv6 and not Path("/proc/sys", folder).exists():
        return
    for name, value in (IPV6_SETTINGS if has_ipv6 else NO_IPV6_SETTINGS).items():
        write_sysctl(f"{folder}/{name}", value)


def _steps(side: ContainerSide, index: int) -> list[tuple[str, Message]]:
    steps = [
        ("lo up", m.set_link(LOOPBACK_INDEX, up=True)),
        (f"{side.interface} up", m.set_link(index, up=True, mtu=side.mtu)),
    ]
    steps += [("address", m.address(index, ip, length, prefix_route=True)) for ip, length in side.addresses]
    for destination, length, gateway in side.routes:
        route = Route(destination, length, side.interface, gateway=gateway)
        steps.append((f"route to {ip_address(destination)}/{length}", m.workload_route(route, index)))
    for gateway in side.gateways:
        nowhere = Route(bytes(len(gateway)), 0, side.interface, gateway=gateway)
        steps.append(("default route", m.workload_route(nowhere, index, side.metric)))
    return steps


def _refused(
    rtnetlink: Netlink, steps: list[tuple[str, Message]]
) -> Iterator[tuple[tuple[str, Message], tuple[int, str]]]:
    """Refusals, but for what is there already: of two networks with equal metrics the first one is the way out."""
    for refusal in rtnetlink.request([message for _, message in steps]):
        if refusal.errno != errno.EEXIST:
            yield steps[refusal.place], (refusal.errno, refusal.text)
