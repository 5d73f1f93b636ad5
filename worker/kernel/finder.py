"""Finds one network's links among everybody's: by name, by master, by MAC, and by memory.

A network's own names are a function of its id, but an operator may have named its bridge, and somebody may have taken
an interface out of it. What is remembered is only a hint where to look. Runs in the kernel thread only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datapath.names import bridge_name, shim_name, vxlan_name
from datapath.objects import BRIDGE_PREFIX, Bridge, Link, Scope, Veth
from datapath.packing import packed_mac
from kvnet.model import gateway_mac
from worker.kernel import messages as m
from worker.kernel.dump import Device, device
from worker.kernel.netlink import Message, Netlink

Found = tuple[Device, bytes]


@dataclass(frozen=True, slots=True)
class NetworkDevices:
    """`devices` are ours; `foreign` are in their way."""

    devices: list[Found]
    uplinks: list[Found]
    foreign: list[Device]


class Finder:
    """Remembers which bridge an operator named, and which interface was last seen in which bridge."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._homes: dict[str, str] = {}
        self._bridges: dict[bytes, str] = {}

    def network(self, scope: Scope) -> NetworkDevices:
        bridges = self._bridges_of(scope)
        tunnel = vxlan_name(scope.network)
        names = {tunnel, shim_name(scope.network)}
        uplinks = [entry for name in sorted(scope.uplinks) for entry in self.named(name) if not entry[0].is_ours]
        found = [entry for name in sorted(names) for entry in self.named(name)]
        found += bridges
        names |= {bridge_name(scope.network), *(found.name for found, _ in bridges)}
        names |= {scope.bridge} if scope.bridge else set()
        masters = [entry[0] for entry in bridges if entry[0].is_ours and entry[0].kind == "bridge"]
        masters += [entry[0] for entry in uplinks if entry[0].kind == "bridge"]
        for master in masters:
            found += self.parsed(m.dump_links(master=master.index))
        found += self._strays({master.name for master in masters} | names, {found.name for found, _ in found})
        others = [] if any(found.name == tunnel for found, _ in found) else self.parsed(m.dump_links(kind="vxlan"))
        foreign = [d for d, _ in found if not d.is_ours and d.name in names]
        foreign += [d for d, _ in others if not d.is_ours and d.is_default_port]
        return NetworkDevices(
            list({d.name: (d, body) for d, body in found if d.is_ours}.values()),
            uplinks,
            list({d.name: d for d in foreign}.values()),
        )

    def remember(self, links: Mapping[str, Link]) -> None:
        for name, link in links.items():
            if isinstance(link, Veth) and link.bridge:
                self._homes[name] = link.bridge
            elif isinstance(link, Bridge) and not name.startswith(BRIDGE_PREFIX):
                self._bridges[link.mac] = name

    def remember_all(self, links: Mapping[str, Link]) -> None:
        """The same, and forget what is not there."""
        self._homes.clear()
        self._bridges.clear()
        self.remember(links)

    def names(self, found: Iterable[Found], known: Mapping[int, str]) -> dict[int, str]:
        """`known`, and those that the found devices refer to: masters and lower devices."""
        names = dict(known)
        for other, _ in found:
            for index in (other.master, other.peer if other.kind == "macvlan" else 0):
                if index and index not in names:
                    names[index] = self.name(index)
        return names

    def name(self, index: int) -> str:
        body = self._rtnetlink.get(m.get_link_at(index))
        return f"#{index}" if body is None else device(body).name

    def named(self, name: str) -> list[Found]:
        body = self._rtnetlink.get(m.get_link(name))
        return [] if body is None else [(device(body), body)]

    def parsed(self, request: Message) -> list[Found]:
        return [(device(body), body) for body in self._rtnetlink.dump(request)]

    def _bridges_of(self, scope: Scope) -> list[Found]:
        """Under the name that it has by itself, and under the one that it got; if nobody tells that: by its MAC."""
        own = self.named(bridge_name(scope.network))
        mac = packed_mac(gateway_mac(scope.network))
        given = scope.bridge or self._bridges.get(mac, "")
        if given:
            return own + (self.named(given) if given != bridge_name(scope.network) else [])
        if own:
            return own
        bodies = [body for body in self._rtnetlink.dump(m.dump_links(kind="bridge")) if mac in body]
        return [(found, body) for body in bodies if (found := device(body)).is_ours and found.mac == mac]

    def _strays(self, homes: set[str], seen: set[str]) -> list[Found]:
        """Interfaces that were in one of these bridges when they were last seen."""
        found: list[Found] = []
        for name in [name for name, home in self._homes.items() if home in homes and name not in seen]:
            there = self.named(name)
            found += there
            if not there:
                del self._homes[name]
        return found
