"""Puts together what is there of ours: a few dumps, parsed, as one state.

All of it in one unfiltered pass per table; one network's part by filters, so that it costs what the network costs and
not what the host carries. Runs in the kernel thread only.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping

from datapath.names import is_of_docker
from datapath.objects import (
    PROTOCOL,
    ContainerSide,
    Enslavement,
    HostState,
    InterfaceAddress,
    Link,
    Macvlan,
    Neighbour,
    Route,
    Scope,
    Uplink,
)
from worker.kernel import dump, macvlans, routes
from worker.kernel import messages as m
from worker.kernel.finder import Finder, Found
from worker.kernel.netlink import Netlink
from worker.kernel.sysctls import device_settings

FAMILIES = (m.AF_INET, m.AF_INET6)
DOCKER_MARKS = (b"br-", b"docker")


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
    """Reads what netlink tells of a state: all but the firewall and the host's settings."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._finder = Finder(rtnetlink)

    def read(self, scope: Scope) -> HostState:
        with uncollected():
            return self._network(scope) if scope.network else self._everything(scope)

    def devices(self) -> dict[int, str]:
        """All of ours by index."""
        found = map(dump.device, self._rtnetlink.dump(m.dump_links()))
        return {device.index: device.name for device in found if device.is_ours}

    def dockers(self) -> frozenset[str]:
        """Docker's own bridges. Only what could be one is parsed: of our own there may be hundreds."""
        bodies = self._rtnetlink.dump(m.dump_links(kind="bridge"))
        found = (dump.device(body) for body in bodies if any(mark in body for mark in DOCKER_MARKS))
        return frozenset(d.name for d in found if d.kind == "bridge" and not d.is_ours and is_of_docker(d.name))

    def _everything(self, scope: Scope) -> HostState:
        found = self._finder.parsed(m.dump_links())
        everyone = {device.index: device.name for device, _ in found}
        ours = {device.index: device.name for device, _ in found if device.is_ours}
        tunnels = {device.index for device, _ in found if device.is_ours and device.kind == "vxlan"}
        links, sysctls = self._links(found, everyone)
        self._finder.remember_all(links)
        addresses = self._rtnetlink.dump(m.dump_addresses())
        uplinks = {
            device.name: dump.uplink(
                device, body, everyone, has_addresses=dump.has_global_address(addresses, device.index)
            )
            for device, body in found
            if device.name in scope.uplinks and not device.is_ours
        }
        within = self._inside(scope, everyone)
        found_routes = dump.routes(self._rtnetlink.dump(m.dump_routes(PROTOCOL)))
        vteps, ports = dump.forwarding(self._rtnetlink.dump(m.dump_forwarding()), ours, tunnels)
        return HostState(
            links={**links, **{link.name: link for link, _ in within}},
            addresses=frozenset(dump.addresses(addresses, ours)),
            routes=frozenset(routes.named(self._rtnetlink, found_routes, everyone)),
            neighbours=frozenset(self._neighbours(ours)),
            vteps=frozenset(vteps),
            ports=frozenset(ports),
            sysctls=sysctls,
            containers={link.name: side for link, side in within},
            foreign={device.name: dump.foreign(device) for device, _ in found if not device.is_ours},
            enslaved=_enslaved(uplinks, ours.values()),
            uplinks=uplinks,
        )

    def _network(self, scope: Scope) -> HostState:
        """`names`: of the network's devices, and of those that they refer to."""
        network = self._finder.network(scope)
        ours = {device.index: device.name for device, _ in network.devices}
        names = self._finder.names([*network.devices, *network.uplinks], ours)
        tunnels = {device.index: device for device, _ in network.devices if device.kind == "vxlan"}
        bridge = next((device.index for device, _ in network.devices if device.kind == "bridge"), 0)
        links, sysctls = self._links(network.devices, names)
        self._finder.remember(links)
        bodies = self._rtnetlink.dump(m.dump_forwarding(bridge=bridge)) if bridge else []
        loose = [index for index, device in tunnels.items() if not bridge or device.master != bridge]
        for index in loose:
            bodies += self._rtnetlink.dump(m.dump_forwarding(port=index))
        vteps, ports = dump.forwarding(bodies, ours, tunnels)
        speaking = [bridge, *loose] if bridge else loose
        uplinks = {
            device.name: dump.uplink(device, body, names, has_addresses=self._has_global_address(device.index))
            for device, body in network.uplinks
        }
        within = self._inside(scope, names)
        shims = [device.index for device, _ in network.devices if device.kind == "macvlan"]
        return HostState(
            links={**links, **{link.name: link for link, _ in within}},
            addresses=frozenset(self._addresses([*speaking, *shims], ours)),
            routes=self._routes(scope, [*speaking, *shims], names),
            neighbours=frozenset(entry for index in speaking for entry in self._neighbours(ours, index)),
            vteps=frozenset(vteps),
            ports=frozenset(ports),
            sysctls=sysctls,
            containers={link.name: side for link, side in within},
            foreign={device.name: dump.foreign(device) for device in network.foreign},
            enslaved=_enslaved(uplinks, ours.values()),
            uplinks=uplinks,
        )

    def _links(self, found: Iterable[Found], names: Mapping[int, str]) -> tuple[dict[str, Link], dict[str, str]]:
        links: dict[str, Link] = {}
        sysctls: dict[str, str] = {}
        for device, body in found:
            if device.is_ours:
                link = links[device.name] = dump.link(device, body, names)
                sysctls.update(device_settings(device, link))
        return links, sysctls

    def _inside(self, scope: Scope, names: Mapping[int, str]) -> list[tuple[Macvlan, ContainerSide]]:
        return list(macvlans.read(scope.inside, lambda index: names.get(index) or self._finder.name(index)))

    def _has_global_address(self, index: int) -> bool:
        return dump.has_global_address(self._rtnetlink.dump(m.dump_addresses(index)), index)

    def _addresses(self, devices: Iterable[int], names: Mapping[int, str]) -> Iterator[InterfaceAddress]:
        for index in devices:
            yield from dump.addresses(self._rtnetlink.dump(m.dump_addresses(index)), names)

    def _routes(self, scope: Scope, devices: list[int], names: Mapping[int, str]) -> frozenset[Route]:
        """Those over the network's devices, and those via peers to its blocks."""
        if not scope.blocks:
            bodies = [body for index in devices for body in self._rtnetlink.dump(m.dump_routes(PROTOCOL, index))]
            return frozenset(routes.named(self._rtnetlink, dump.routes(bodies), names))
        found = [
            (route, index)
            for route, index in dump.routes(self._rtnetlink.dump(m.dump_routes(PROTOCOL)))
            if index in devices or (route.gateway and routes.is_within(route, scope.blocks))
        ]
        everyone = {index: names.get(index) or self._finder.name(index) for _, index in found}
        return frozenset(routes.named(self._rtnetlink, found, everyone))

    def _neighbours(self, names: Mapping[int, str], index: int = 0) -> list[Neighbour]:
        found: list[Neighbour] = []
        for family in FAMILIES:
            found += dump.neighbours(self._rtnetlink.dump(m.dump_neighbours(family, index)), names, family)
        return found


def _enslaved(uplinks: Mapping[str, Uplink], ours: Iterable[str]) -> frozenset[Enslavement]:
    bridges = frozenset(ours)
    return frozenset(Enslavement(name, uplink.bridge) for name, uplink in uplinks.items() if uplink.bridge in bridges)
