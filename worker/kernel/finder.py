"""Finds one network's links among everybody's: by name, by master, by alias, and by memory.

A network's own names are a function of its id, but an operator may have named its bridge, and somebody may have taken
an interface out of it. What is remembered is only a hint where to look. Runs in the kernel thread only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datapath.names import bridge_name, shim_name, vxlan_name
from datapath.objects import Link, Scope, Veth
from worker.kernel import messages as m
from worker.kernel.dump import ALIAS, Device, device
from worker.kernel.netlink import Message, Netlink

Found = tuple[Device, bytes]


@dataclass(frozen=True, slots=True)
class NetworkDevices:
    """`devices` are ours; `foreign` are in their way."""

    devices: list[Found]
    uplinks: list[Found]
    foreign: list[Device]


class Finder:
    """Remembers which interface was last seen in which bridge."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._homes: dict[str, str] = {}

    def network(self, scope: Scope) -> NetworkDevices:
        bridges = self._bridges_of(scope)
        tunnel = vxlan_name(scope.network)
        names = {tunnel, shim_name(scope.network)}
        uplinks = [entry for name in sorted(scope.uplinks) for entry in self.named(name) if not entry[0].is_ours]
        found = [entry for name in sorted(names) for entry in self.named(name)]
        found += bridges
        names |= {bridge_name(scope.network), *(found.name for found, _ in bridges)}
        names |= {scope.bridge} if scope.bridge else set()
        for master in [d for d, _ in bridges if d.is_ours and d.kind == "bridge"]:
            found += self.parsed(m.dump_links(master=master.index))
        found += self._strays(names, {d.name for d, _ in found})
        # In an operator's bridge there may be ports of several networks.
        theirs = [d for d, _ in uplinks if d.kind == "bridge"]
        guests = [port for master in theirs for port in self.parsed(m.dump_links(master=master.index))]
        guests += self._strays({master.name for master in theirs}, {d.name for d, _ in guests})
        found += [(d, body) for d, body in guests if d.network == scope.network]
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

    def remember_all(self, links: Mapping[str, Link]) -> None:
        """The same, and forget what is not there."""
        self._homes.clear()
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
        """Under the name that it has by itself, and under the one that it got; if nobody tells that: by its alias."""
        name = bridge_name(scope.network)
        own = self.named(name)
        if scope.bridge:
            return own + (self.named(scope.bridge) if scope.bridge != name else [])
        if own:
            return own
        alias = (ALIAS + scope.network).encode()
        bodies = [body for body in self._rtnetlink.dump(m.dump_links(kind="bridge")) if alias in body]
        return [(d, body) for body in bodies if (d := device(body)).is_ours and d.network == scope.network]

    def _strays(self, homes: set[str], seen: set[str]) -> list[Found]:
        """Interfaces that were in one of these bridges when they were last seen."""
        found: list[Found] = []
        for name in [name for name, home in self._homes.items() if home in homes and name not in seen]:
            there = self.named(name)
            found += there
            if not there:
                del self._homes[name]
        return found
