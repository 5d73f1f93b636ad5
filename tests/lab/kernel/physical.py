"""An operator's own links in a host's namespace: an uplink with a neighbour behind it, made by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from lab import namespaces
from tests.lab.eye import by_hand
from worker.kernel.netlink import Message, Netlink

UPLINK = "up0"
BEHIND = "192.0.2.1"
BEHIND6 = "2001:db8::1"
CARRIER_S = 5.0


def cable(netns: Path, other: Path, name: str = UPLINK, *, addresses: Sequence[str] = ("192.0.2.1/24",)) -> None:
    """`name` in the host's namespace, plugged into the other one, which has the addresses."""

    def make(ip: Any) -> None:
        ip.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}-far", "net_ns_fd": str(other)}, mtu=1500)
        ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")

    by_hand(netns, make)
    by_hand(other, lambda ip: ip.link("set", index=ip.link_lookup(ifname=f"{name}-far")[0], state="up"))
    for address in addresses:
        give(other, f"{name}-far", address)
    by_hand(netns, lambda ip: until_carrier(ip, name))


def until_carrier(ip: Any, name: str) -> None:
    """The kernel tells of a carrier a moment after the other end is up; who looked before would see two hosts."""
    end = time.monotonic() + CARRIER_S
    while ip.link("get", index=ip.link_lookup(ifname=name)[0])[0].get_attr("IFLA_OPERSTATE") != "UP":
        assert time.monotonic() < end, f"{name} has no carrier"
        time.sleep(0.01)


def give(netns: Path, device: str, address: str) -> None:
    wanted = ip_interface(address)

    def add(ip: Any) -> None:
        index = ip.link_lookup(ifname=device)[0]
        flags = {"flags": 0x02} if wanted.version == 6 else {}  # IFA_F_NODAD
        ip.addr("add", index=index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen, **flags)

    by_hand(netns, add)


def take(netns: Path, device: str, address: str) -> None:
    wanted = ip_interface(address)
    by_hand(
        netns,
        lambda ip: ip.addr(
            "del",
            index=ip.link_lookup(ifname=device)[0],
            address=str(wanted.ip),
            prefixlen=wanted.network.prefixlen,
        ),
    )


def bridge(netns: Path, name: str) -> None:
    """An operator's own."""

    def make(ip: Any) -> None:
        ip.link("add", ifname=name, kind="bridge")
        ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")

    by_hand(netns, make)


def tell(netns: Path, *messages: Message) -> None:
    """Requests through a socket of somebody else's."""

    def run() -> None:
        with closing(Netlink()) as rtnetlink:
            assert rtnetlink.request(messages) == []

    namespaces.call(netns, run)


def raw(netns: Path) -> dict[str, list[Any]]:
    """All that the kernel tells of links, addresses, routes and rules of this namespace, but for counters and ages."""

    def read(ip: Any) -> dict[str, list[Any]]:
        return {
            "links": sorted(_plain(link) for link in ip.get_links()),
            "addresses": sorted(_plain(address) for address in ip.get_addr()),
            "routes": sorted(_plain(route) for route in ip.get_routes() if _is_lasting(route)),
            "rules": sorted(_plain(rule) for rule in ip.get_rules()),
        }

    return by_hand(netns, read)


_FLEETING = ("IFLA_STATS", "CACHEINFO", "INET6_STATS", "ICMP6STATS", "_TIMER", "CARRIER_", "header", "event")


def _is_lasting(route: Any) -> bool:
    """Not the kernel's multicast routes, which come and go with listeners."""
    destination = route.get_attr("RTA_DST")
    return destination is None or not ip_address(destination.split("/")[0]).is_multicast


def _plain(message: Any) -> str:
    return repr(_without_fleeting(message))


def _without_fleeting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_fleeting(v) for k, v in sorted(value.items()) if not _is_fleeting(k)}
    if hasattr(value, "name") and hasattr(value, "value"):  # an attribute
        return None if _is_fleeting(value.name) else (value.name, _without_fleeting(value.value))
    if isinstance(value, (list, tuple)):
        return [_without_fleeting(item) for item in value]
    return str(value)


def _is_fleeting(name: str) -> bool:
    return any(word in name for word in _FLEETING)
