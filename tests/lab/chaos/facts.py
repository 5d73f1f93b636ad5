"""What a host's kernel says of everything of ours, as plain facts, by other means than the product's own.

Links, addresses, routes, neighbours and forwarding entries by pyroute2, rules by `nft -j`, settings by /proc. Each host
has one thread, which lives in its namespace. A fact is a tuple whose first part is its kind; devices go by name, so one
that was made anew gives the same facts.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from worker.kernel.firewall import find_nft
from worker.kernel.namespaces import enter_for_good, open_namespace

T = TypeVar("T")
Fact = tuple[Any, ...]

OURS = ("kvb", "kvx", "kve", "kvs")
PROTOCOL = 222
NUD_PERMANENT, NUD_NOARP = 0x80, 0x40
NTF_SELF = 0x02
IFF_UP = 1
HOST_SETTINGS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
OFF_OR_ON = "net/ipv6/conf/{}/disable_ipv6"
BRIDGE_SETTINGS = ("net/ipv4/conf/{}/route_localnet",)
IPV6_BRIDGE_SETTINGS = ("net/ipv6/conf/{}/accept_ra", "net/ipv6/conf/{}/autoconf")
PORT_FLAGS = ("ISOLATED", "LEARNING", "NEIGH_SUPPRESS", "UNICAST_FLOOD", "MCAST_FLOOD", "BCAST_FLOOD", "MODE")
LINKS = frozenset({"link", "port"})
IN_THE_KERNEL = LINKS | {"address", "route", "neighbour", "forwarding", "setting"}
RULES = frozenset({"rule", "element", "table"})
NFT_TABLES = (("inet", "kvnet"), ("bridge", "kvnet"))
TIMEOUT_S = 10.0


class Eye:
    """Looks at one host, and acts on it as an administrator would. Made by `open_eye`."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._nft = find_nft()
        self.ip: Any = None

    async def open(self, netns: Path) -> None:
        await self.do(partial(self._enter, netns))

    def _enter(self, netns: Path) -> None:
        descriptor = open_namespace(str(netns))
        enter_for_good(descriptor)
        os.close(descriptor)
        self.ip = IPRoute()

    async def do(self, action: Callable[[], T]) -> T:
        """In the host's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def facts(self, kinds: Iterable[str] = ()) -> frozenset[Fact]:
        """All of ours, or only of these kinds."""
        return await self.do(partial(self.look, frozenset(kinds)))

    def look(self, kinds: frozenset[str] = frozenset()) -> frozenset[Fact]:
        """The same, for who is in the thread already."""
        names = dict(socket.if_nameindex())  # a dump of the links is the dearest of all
        readers: list[tuple[frozenset[str], Callable[[], Iterator[Fact]]]] = [
            (LINKS, lambda: _links(self.ip, names)),
            (frozenset({"address"}), lambda: _addresses(self.ip, names)),
            (frozenset({"route"}), lambda: _routes(self.ip, names)),
            (frozenset({"neighbour"}), lambda: _neighbours(self.ip, names)),
            (frozenset({"forwarding"}), lambda: _forwarding(self.ip, names)),
            (frozenset({"setting"}), lambda: _settings(names.values())),
            (RULES, self._rules),
        ]
        return frozenset(fact for about, read in readers if not kinds or about & kinds for fact in read())

    def nft(self, *words: str) -> str:
        return self.run(self._nft, *words)

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        return done.stdout

    def _rules(self) -> Iterator[Fact]:
        for family, name in NFT_TABLES:
            said = self.nft("-j", "-s", "list", "table", family, name)
            for entry in json.loads(said)["nftables"] if said else ():
                yield from _rule_facts(entry)

    def close(self) -> None:
        if self.ip is not None:
            self._thread.submit(self.ip.close).result(TIMEOUT_S)


@contextmanager
def opened_eyes(names: Iterable[str]) -> Iterator[dict[str, Eye]]:
    """One for each host; `open` each before use."""
    threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"eye-{name}") for name in names}
    eyes = {name: Eye(thread) for name, thread in threads.items()}
    try:
        yield eyes
    finally:
        for name, eye in eyes.items():
            eye.close()
            threads[name].shutdown()


def device_of(fact: Fact) -> str | None:
    """The device that a fact is about."""
    return str(fact[1]) if fact[0] in ("link", "port", "address", "route", "neighbour", "forwarding") else None


def _links(ip: Any, names: dict[int, str]) -> Iterator[Fact]:
    for link in ip.get_links():
        name = link.get_attr("IFLA_IFNAME")
        if not name.startswith(OURS):
            continue
        kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
        master = names.get(link.get_attr("IFLA_MASTER") or 0, "")
        is_up = bool(link["flags"] & IFF_UP)
        mac = link.get_attr("IFLA_ADDRESS") if kind == "bridge" else ""
        yield "link", name, kind, link.get_attr("IFLA_MTU"), master, is_up, mac, link.get_attr("IFLA_GROUP")
        port = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        if port is not None and master:
            yield "port", name, tuple((flag, port.get_attr(f"IFLA_BRPORT_{flag}")) for flag in PORT_FLAGS)


def _addresses(ip: Any, names: dict[int, str]) -> Iterator[Fact]:
    for found in ip.get_addr():
        name, address = names.get(found["index"], ""), found.get_attr("IFA_ADDRESS")
        if name.startswith(OURS) and not address.startswith("fe80:"):
            yield "address", name, address, found["prefixlen"]


def _routes(ip: Any, names: dict[int, str]) -> Iterator[Fact]:
    for family in (2, 10):
        for route in ip.get_routes(family=family, table=254):
            if route["proto"] == PROTOCOL:
                device = names.get(route.get_attr("RTA_OIF") or 0, "")
                yield (
                    "route",
                    device,
                    route.get_attr("RTA_DST"),
                    route["dst_len"],
                    route.get_attr("RTA_GATEWAY"),
                    route.get_attr("RTA_PREFSRC"),
                )


def _neighbours(ip: Any, names: dict[int, str]) -> Iterator[Fact]:
    for family in (2, 10):
        for found in ip.get_neighbours(family=family):
            name, mac = names.get(found["ifindex"], ""), found.get_attr("NDA_LLADDR")
            if name.startswith(OURS) and found["state"] & NUD_PERMANENT and not _is_multicast(mac):
                yield "neighbour", name, found.get_attr("NDA_DST"), mac


def _forwarding(ip: Any, names: dict[int, str]) -> Iterator[Fact]:
    for found in ip.fdb("dump"):
        name, mac = names.get(found["ifindex"], ""), found.get_attr("NDA_LLADDR")
        if name.startswith(OURS) and found["state"] & NUD_NOARP and not _is_multicast(mac):
            yield "forwarding", name, mac, found.get_attr("NDA_DST") or "", bool(found["flags"] & NTF_SELF)


def _is_multicast(mac: str | None) -> bool:
    return mac is not None and bool(int(mac[:2], 16) & 1)


def _settings(names: Iterable[str]) -> Iterator[Fact]:
    """Without what means nothing: a device that does not speak IPv6 listens to no router."""
    for path in HOST_SETTINGS:
        yield from _setting(path)
    for device in names:
        if not device.startswith(("kvb", "kvx")):
            continue
        switch = list(_setting(OFF_OR_ON.format(device)))
        forms = BRIDGE_SETTINGS if device.startswith("kvb") else ()
        if device.startswith("kvb") and any(fact[2] == "0" for fact in switch):
            forms += IPV6_BRIDGE_SETTINGS
        yield from switch
        for form in forms:
            yield from _setting(form.format(device))


def _setting(path: str) -> Iterator[Fact]:
    try:
        yield "setting", path, Path("/proc/sys", path).read_text().strip()
    except OSError:
        return  # the device is on its way


def _rule_facts(entry: dict[str, Any]) -> Iterator[Fact]:
    kind, content = next(iter(entry.items()))
    if kind in ("set", "map"):
        yield "table", content["family"], kind, content["name"]
        for element in content.get("elem", ()):
            yield "element", content["family"], content["name"], json.dumps(element)
    elif kind == "rule":
        yield "rule", content["family"], content["chain"], json.dumps(content["expr"])
    elif kind == "chain":
        yield "table", content["family"], kind, content["name"]
