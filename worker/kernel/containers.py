"""Configures a workload's half of an interface, inside its namespace.

Once, at attach: what the workload does with it afterwards is its own business. Repeating is no error. Never forks,
never leaves the thread elsewhere than it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from datapath.objects import ContainerSide
from worker.kernel import messages as m
from worker.kernel.dump import Device, device
from worker.kernel.namespaces import entered, open_namespace
from worker.kernel.netlink import Message, Netlink
from worker.kernel.settle import hurry, until_local
from worker.kernel.sysctls import write_sysctl

LOOPBACK_INDEX = 1
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
        OSError: it is gone, or not a network namespace; says so in words.
    """
    try:
        descriptor = open_namespace(netns)
    except OSError as error:
        raise OSError(error.errno, f"the workload's namespace {netns} cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def configure(side: ContainerSide, namespace: int) -> None:
    """Bring the interface up with its addresses and ways out.

    Raises:
        OSError: the kernel refused a step; says which.
    """
    with entered(namespace):
        rtnetlink = Netlink(small=True)
        try:
            index = _interface(rtnetlink, side).index
            _set_ipv6(side)
            for (what, _), refusal in _refused(rtnetlink, _steps(side, index)):
                raise OSError(refusal[0], f"{what} in {side.netns}: {refusal[1] or os.strerror(refusal[0])}")
            hurry(rtnetlink, side.interface)
            until_local(rtnetlink, [ip for ip, _ in side.addresses])
        finally:
            rtnetlink.close()


def is_peer_of(side: ContainerSide, namespace: int, outer: Device) -> bool:
    """Whether the interface in the namespace is the other half of `outer`."""
    with entered(namespace):
        rtnetlink = Netlink(small=True)
    try:
        body = rtnetlink.get(m.get_link(side.interface))
    finally:
        rtnetlink.close()
    if body is None:
        return False
    inner = device(body)
    return inner.kind == "veth" and inner.index == outer.peer and inner.peer == outer.index and inner.mac == side.mac


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
    return steps + [("default route", m.default_route(gateway, index)) for gateway in side.gateways]


def _refused(
    rtnetlink: Netlink, steps: list[tuple[str, Message]]
) -> Iterator[tuple[tuple[str, Message], tuple[int, str]]]:
    """Refusals, but for what is there already: a second network does not take the first one's way out."""
    for refusal in rtnetlink.request([message for _, message in steps]):
        if refusal.errno != errno.EEXIST:
            yield steps[refusal.place], (refusal.errno, refusal.text)
