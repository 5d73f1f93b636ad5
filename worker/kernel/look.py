"""What one interface in a workload's namespace is like now: its MAC and MTU, its addresses, and the routes over it.

Reads, never writes. Opening a path that came from outside may block, so it is called in a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from datapath.objects import Ip
from kvnet.errors import KernelRefused, NamespaceNotFound
from worker.kernel import messages as m
from worker.kernel.containers import inside
from worker.kernel.dump import IFA_SCOPE_LINK, Device, device
from worker.kernel.namespaces import open_namespace
from worker.kernel.netlink import Netlink, attributes

RTPROT_KERNEL = 2
MAC_BYTES = 6


@dataclass(frozen=True, slots=True)
class SeenRoute:
    """`gateway` is "" where the destination is on the link. Connected routes, which the kernel makes, are none."""

    destination: str
    gateway: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class SeenInterface:
    """`addresses` with their prefix lengths, without the link-local ones that the kernel makes."""

    name: str
    mac: str
    mtu: int
    is_up: bool
    addresses: tuple[str, ...] = ()
    routes: tuple[SeenRoute, ...] = ()


def look_inside(netns: str, interface: str) -> SeenInterface | None:
    """None: the namespace is there, the interface is not.

    Raises:
        NamespaceNotFound: it is gone.
        KernelRefused: the kernel does not answer.
    """
    try:
        namespace = open_namespace(netns)
    except (OSError, ValueError) as error:
        raise NamespaceNotFound(f"the network namespace {netns[:200]} is not there") from error
    try:
        with inside(namespace) as rtnetlink:
            return _seen(rtnetlink, interface)
    except OSError as error:
        raise KernelRefused(f"{interface} in {netns} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(namespace)


def look_here(interface: str) -> SeenInterface | None:
    """An interface of the host's, without addresses and routes."""
    rtnetlink = Netlink(small=True)
    try:
        body = rtnetlink.get(m.get_link(interface))
    except OSError as error:
        raise KernelRefused(f"{interface} cannot be read: {error.strerror or error}") from error
    finally:
        rtnetlink.close()
    return None if body is None else _interface(device(body), body)


def _seen(rtnetlink: Netlink, name: str) -> SeenInterface | None:
    body = rtnetlink.get(m.get_link(name))
    if body is None:
        return None
    found = device(body)
    addresses = tuple(_addresses(rtnetlink.dump(m.dump_addresses(found.index)), found.index))
    routes = tuple(_routes(rtnetlink.dump(m.dump_routes(device=found.index)), found.index))
    return _interface(found, body, addresses, routes)


def _interface(
    found: Device, body: bytes, addresses: tuple[str, ...] = (), routes: tuple[SeenRoute, ...] = ()
) -> SeenInterface:
    is_up = bool(m.LINK.unpack_from(body)[3] & m.IFF_UP)
    mac = found.mac.hex(":") if len(found.mac) == MAC_BYTES else ""
    return SeenInterface(found.name, mac, found.mtu, is_up, addresses, routes)


def _addresses(bodies: list[bytes], index: int) -> Iterator[str]:
    for body in bodies:
        _, length, _, scope, at = m.ADDRESS.unpack_from(body)
        if at == index and scope != IFA_SCOPE_LINK:
            fields = attributes(body, m.ADDRESS.size)
            yield f"{ip_address(fields.get(m.IFA_LOCAL) or fields[m.IFA_ADDRESS])}/{length}"


def _routes(bodies: list[bytes], index: int) -> Iterator[SeenRoute]:
    for body in bodies:
        family, length, _, _, table, protocol, _, kind, _ = m.ROUTE.unpack_from(body)
        fields = attributes(body, m.ROUTE.size)
        is_over_it = m.U32.unpack(fields.get(m.RTA_OIF, bytes(4)))[0] == index
        if protocol == RTPROT_KERNEL or table != m.RT_TABLE_MAIN or kind != m.RTN_UNICAST or not is_over_it:
            continue
        destination: Ip = fields.get(m.RTA_DST, bytes(4 if family == m.AF_INET else 16))
        gateway = fields.get(m.RTA_GATEWAY) or fields.get(m.RTA_VIA, b"")[m.FAMILY.size :]
        metric = m.U32.unpack(fields[m.RTA_PRIORITY])[0] if m.RTA_PRIORITY in fields else 0
        via = str(ip_address(gateway)) if gateway else ""
        yield SeenRoute(f"{ip_address(destination)}/{length}", via, metric)
