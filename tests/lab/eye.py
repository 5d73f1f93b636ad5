"""An independent eye on the kernel: what is in a namespace, read by another library than the product's own code."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pyroute2 import IPRoute

from lab import namespaces

NUD_PERMANENT = 0x80  # the kernel makes others by itself, for multicast groups
OURS = ("kvb", "kvx", "kve")
T = TypeVar("T")


class Seen(NamedTuple):
    """Everything in a namespace that kvnet could have made; entries as (device, ...) tuples."""

    links: dict[str, int]  # name -> ifindex
    addresses: set[tuple[str, str]]
    routes: set[tuple[str, str]]
    neighbours: set[tuple[str, str, str]]
    forwarding: set[tuple[str, str, str]]  # (device, MAC, remote VTEP or "")

    def of(self, device: str) -> Seen:
        """Only what belongs to one device."""
        return Seen(
            {n: i for n, i in self.links.items() if n == device},
            {a for a in self.addresses if a[0] == device},
            {r for r in self.routes if r[0] == device},
            {n for n in self.neighbours if n[0] == device},
            {f for f in self.forwarding if f[0] == device},
        )


def look(netns: Path) -> Seen:
    """Read a namespace's links of ours, and their addresses, routes, neighbours and forwarding entries."""
    return by_hand(netns, partial(_seen, OURS))


def everything(netns: Path) -> Seen:
    """The same of all links, whoever's they are: for showing that nothing foreign changed.

    Without multicast: the kernel joins and leaves groups by itself, forwarding being one of the reasons.
    """
    seen = by_hand(netns, partial(_seen, ""))
    return seen._replace(
        neighbours={n for n in seen.neighbours if not _is_multicast(n[2])},
        forwarding={f for f in seen.forwarding if not _is_multicast(f[1])},
    )


def _is_multicast(mac: str | None) -> bool:
    return mac is not None and bool(int(mac[:2], 16) & 1)


def by_hand(netns: Path, action: Callable[[Any], T]) -> T:
    """Do something in a namespace with pyroute2's `IPRoute`, as an administrator would with `ip`."""

    def run() -> T:
        with IPRoute() as ip:
            return action(ip)

    # A thread of its own: the library runs an event loop, and here may be one already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(namespaces.call, netns, run).result()


def _seen(prefixes: str | tuple[str, ...], ip: Any) -> Seen:
    names = {link["index"]: _attribute(link, "IFLA_IFNAME") for link in ip.get_links()}
    ours = {index: name for index, name in names.items() if name.startswith(prefixes)}
    return Seen(
        {name: index for index, name in ours.items()},
        {(ours[a["index"]], _attribute(a, "IFA_ADDRESS")) for a in ip.get_addr() if a["index"] in ours},
        {(ours[oif], _destination(r)) for r in ip.get_routes(table=254) if (oif := _attribute(r, "RTA_OIF")) in ours},
        {
            (ours[n["ifindex"]], _attribute(n, "NDA_DST"), _attribute(n, "NDA_LLADDR"))
            for family in (2, 10)
            for n in ip.get_neighbours(family=family)
            if n["ifindex"] in ours and n["state"] & NUD_PERMANENT
        },
        {
            (ours[f["ifindex"]], _attribute(f, "NDA_LLADDR"), _attribute(f, "NDA_DST") or "")
            for f in ip.fdb("dump")
            if f["ifindex"] in ours
        },
    )


def _destination(route: Any) -> str:
    return f"{_attribute(route, 'RTA_DST') or 'default'}/{route['dst_len']}"


def _attribute(message: Any, name: str) -> Any:
    return message.get_attr(name)
