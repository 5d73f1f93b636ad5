"""Puts together what is there of ours: a few dumps, parsed, as one state.

All of it in one unfiltered pass per table; one network's part by filters, so that it costs what the network costs and
not what the host carries. Runs in the kernel thread only.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping

from datapath.names import bridge_name, vxlan_name
from datapath.objects import PROTOCOL, Firewall, Foreign, HostState, Link, Neighbour, Veth
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.dump import Device
from worker.kernel.netlink import Message, Netlink
from worker.kernel.sysctls import device_settings, host_settings

FAMILIES = (m.AF_INET, m.AF_INET6)
Found = tuple[Device, bytes]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """A dump makes tens of thousands of objects, none of them garbage: collections meanwhile double its time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Reader:
    """Reads states; remembers which interface was last seen in which bridge.

    That memory is only a hint where to look: an interface that somebody took out of its bridge is found again by it
    when just its network is read.
    """

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._homes: dict[str, str] = {}

    def everything(self, firewall: Firewall | None) -> HostState:
        with uncollected():
            return self._everything(firewall)

    def network(self, network_id: str, firewall: Firewall | None) -> HostState:
        with uncollected():
            return self._network(network_id, firewall)

    def devices(self) -> dict[int, str]:
        """All of ours by index."""
        found = map(dump.device, self._rtnetlink.dump(m.dump_links()))
        return {device.index: device.name for device in found if device.is_ours}

    def _everything(self, firewall: Firewall | None) -> HostState:
        found = self._parsed(m.dump_links())
        everyone = {device.index: device.name for device, _ in found}
        foreign = [other for device, _ in found if (other := dump.foreign(device)) is not None]
        ours = {device.index: device.name for device, _ in found if device.is_ours}
        tunnels = {device.index for device, _ in found if device.is_ours and device.kind == "vxlan"}
        links, sysctls = self._links(found, everyone)
        self._homes = {name: link.bridge for name, link in links.items() if isinstance(link, Veth) and link.bridge}
        vteps, ports = dump.forwarding(self._rtnetlink.dump(m.dump_forwarding()), ours, tunnels)
        return HostState(
            links=links,
            addresses=frozenset(dump.addresses(self._rtnetlink.dump(m.dump_addresses()), ours)),
            routes=frozenset(dump.routes(self._rtnetlink.dump(m.dump_routes(PROTOCOL)), everyone)),
            neighbours=frozenset(self._neighbours(ours)),
            vteps=frozenset(vteps),
            ports=frozenset(ports),
            sysctls={**sysctls, **host_settings()},
            firewall=firewall,
            foreign={other.name: other for other in foreign},
        )

    def _network(self, network_id: str, firewall: Firewall | None) -> HostState:
        found, foreign = self._network_devices(network_id)
        ours = [(device, body) for device, body in found if device.is_ours]
        names = {device.index: device.name for device, _ in ours}
        tunnels = {device.index for device, _ in ours if device.kind == "vxlan"}
        bridge = next((device.index for device, _ in ours if device.kind == "bridge"), 0)
        links, sysctls = self._links(ours, names)
        self._homes.update(
            {name: link.bridge for name, link in links.items() if isinstance(link, Veth) and link.bridge}
        )
        loose = [device.index for device, _ in ours if device.index in tunnels and device.master != bridge]
        bodies = self._rtnetlink.dump(m.dump_forwarding(bridge=bridge)) if bridge else []
        for index in loose:
            bodies += self._rtnetlink.dump(m.dump_forwarding(port=index))
        vteps, ports = dump.forwarding(bodies, names, tunnels)
        return HostState(
            links=links,
            addresses=frozenset(dump.addresses(self._dump_if(bridge, m.dump_addresses(bridge)), names)),
            routes=frozenset(dump.routes(self._dump_if(bridge, m.dump_routes(PROTOCOL, bridge)), names)),
            neighbours=frozenset(self._neighbours(names, bridge)) if bridge else frozenset(),
            vteps=frozenset(vteps),
            ports=frozenset(ports),
            sysctls=sysctls,
            firewall=firewall,
            foreign={other.name: other for other in foreign},
        )

    def _links(self, found: Iterable[Found], names: Mapping[int, str]) -> tuple[dict[str, Link], dict[str, str]]:
        links: dict[str, Link] = {}
        sysctls: dict[str, str] = {}
        for device, body in found:
            if device.is_ours:
                link = links[device.name] = dump.link(device, body, names)
                sysctls.update(device_settings(device, link))
        return links, sysctls

    def _network_devices(self, network_id: str) -> tuple[list[Found], list[Foreign]]:
        """The network's devices by name, by bridge, and by memory; and what is in their way."""
        bridge, tunnel = bridge_name(network_id), vxlan_name(network_id)
        found = self._named(bridge) + self._named(tunnel)
        for device, _ in list(found):
            if device.is_ours and device.kind == "bridge":
                found += self._parsed(m.dump_links(master=device.index))
        seen = {device.name for device, _ in found}
        for name in [name for name, home in self._homes.items() if home == bridge and name not in seen]:
            there = self._named(name)
            found += there
            if not there:
                del self._homes[name]
        others = found if tunnel in seen else found + self._parsed(m.dump_links(kind="vxlan"))
        foreign = [other for device, _ in others if (other := dump.foreign(device)) is not None]
        return list({device.name: (device, body) for device, body in found}.values()), foreign

    def _named(self, name: str) -> list[Found]:
        body = self._rtnetlink.get(m.get_link(name))
        return [] if body is None else [(dump.device(body), body)]

    def _parsed(self, request: Message) -> list[Found]:
        return [(dump.device(body), body) for body in self._rtnetlink.dump(request)]

    def _dump_if(self, index: int, request: Message) -> list[bytes]:
        return self._rtnetlink.dump(request) if index else []

    def _neighbours(self, names: Mapping[int, str], index: int = 0) -> list[Neighbour]:
        found: list[Neighbour] = []
        for family in FAMILIES:
            found += dump.neighbours(self._rtnetlink.dump(m.dump_neighbours(family, index)), names, family)
        return found
