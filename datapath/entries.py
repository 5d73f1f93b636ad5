"""The entries' half of a plan: addresses and routes of the bridges, forwarding entries and neighbours.

Each kind has a key of which the kernel keeps one entry (a MAC per bridge, an address per device ...): writing another
value replaces it, so the old one is then not removed as well. A route via a peer has no device ("") and is lost with
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple, TypeVar

from datapath.links import LinkPlan
from datapath.objects import (
    AddAddress,
    Announce,
    HostState,
    InterfaceAddress,
    Ip,
    Neighbour,
    Operation,
    PortEntry,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    VtepEntry,
)
from datapath.packing import FLOOD_MAC, IPV6_LENGTH

Entry = TypeVar("Entry", InterfaceAddress, Route, Neighbour, VtepEntry, PortEntry)

_first: Callable[[tuple[object, ...]], str] = itemgetter(0)  # the device of every kind of entry but a route
_third: Callable[[tuple[object, ...]], str] = itemgetter(2)


def differing(wanted: frozenset[Entry], held: frozenset[Entry]) -> tuple[frozenset[Entry], frozenset[Entry]]:
    """(missing, extra). One look at a large set, where the sizes tell the rest."""
    if wanted is held:
        return frozenset(), frozenset()
    missing = wanted - held
    return missing, frozenset() if len(held) + len(missing) == len(wanted) else held - wanted


class Difference(NamedTuple):
    """What a plan has to do about the devices that it touches: see `LinkPlan`."""

    withheld: frozenset[str]  # not there afterwards: nothing can be added
    spent: frozenset[str]  # emptied or deleted by the plan, or not to be touched: nothing needs to be removed
    emptied: frozenset[str]  # whatever was there has to be written again

    def between(
        self, wanted: frozenset[Entry], held: frozenset[Entry], device: Callable[[tuple[object, ...]], str] = _first
    ) -> tuple[list[Entry], list[Entry]]:
        """(missing, extra), each in a stable order."""
        missing, extra = differing(wanted, held)
        if self.emptied:
            missing = missing.union(entry for entry in wanted if device(entry) in self.emptied)
        return (
            sorted(entry for entry in missing if device(entry) not in self.withheld),
            sorted(entry for entry in extra if device(entry) not in self.spent),
        )


def plan_entries(desired: HostState, actual: HostState, links: LinkPlan, blocked: frozenset[str]) -> list[Operation]:
    addressing, shaken = _plan_addressing(desired, actual, links, blocked)
    return [*addressing, *_plan_forwarding(desired, actual, links, blocked, shaken)]


def _plan_addressing(
    desired: HostState, actual: HostState, links: LinkPlan, blocked: frozenset[str]
) -> tuple[list[Operation], frozenset[str]]:
    """Gateway addresses and routes; and the devices that lose an address (a route via a peer needs none of ours).

    Removals first: the kernel has one IPv6 address whatever its prefix length. An IPv4 address that goes takes along
    its secondaries, the routes with it as source and, as the last of its device, all IPv4 neighbours there. So
    everything on a device that loses one is written again.
    """
    spent = links.gone | links.fresh | blocked
    difference = Difference(links.withheld, spent, links.fresh | links.revived)
    _, stale = difference.between(desired.addresses, actual.addresses)
    stale = [address for address in stale if not _is_muted(address.device, address.address, links)]
    shaken = frozenset(address.device for address in stale)
    again = difference._replace(emptied=difference.emptied | shaken)
    new, _ = again.between(desired.addresses, actual.addresses)
    rerouted = again._replace(emptied=again.emptied | {address.device for address in new})
    routes, old_routes = rerouted.between(desired.routes, actual.routes, _third)
    replaced = {(route.destination, route.prefix_length) for route in routes}
    operations: list[Operation] = [
        *(
            RemoveRoute(route)
            for route in old_routes
            if (route.destination, route.prefix_length) not in replaced
            and not _is_muted(route.device, route.destination, links)
        ),
        *map(RemoveAddress, stale),
        *map(AddAddress, new),
        *map(ReplaceRoute, routes),
    ]
    return operations, shaken


def _plan_forwarding(
    desired: HostState, actual: HostState, links: LinkPlan, blocked: frozenset[str], shaken: frozenset[str]
) -> list[Operation]:
    """Where MACs are, then whose addresses they are; then away with the old, and word of what changed."""
    spent = links.gone | links.fresh | blocked
    tunnels = Difference(links.withheld, spent, links.fresh)
    vteps, old_vteps = tunnels.between(desired.vteps, actual.vteps)
    bridges = Difference(links.withheld, spent | links.moved, links.fresh | links.moved)
    ports, old_ports = bridges.between(desired.ports, actual.ports)
    devices = Difference(links.withheld, spent, links.fresh | links.revived | shaken)
    neighbours, old_neighbours = devices.between(desired.neighbours, actual.neighbours)
    return [
        *map(ReplaceVtep, vteps),
        *map(ReplacePort, ports),
        *map(ReplaceNeighbour, neighbours),
        *(
            RemoveNeighbour(neighbour)
            for neighbour in _unreplaced(old_neighbours, neighbours)
            if neighbour.device not in links.flushed and not _is_muted(neighbour.device, neighbour.address, links)
        ),
        *map(RemovePort, _unmoved(old_ports, ports, desired, actual)),
        *map(RemoveVtep, _unreplaced(old_vteps, vteps)),
        *map(Announce, _changed(neighbours, old_neighbours)),
    ]


def _is_muted(device: str, address: Ip, links: LinkPlan) -> bool:
    """Whether the entry went with the device's IPv6."""
    return device in links.muted and len(address) == IPV6_LENGTH


Keyed = TypeVar("Keyed", Neighbour, VtepEntry)


def _unreplaced(old: list[Keyed], new: Iterable[Keyed]) -> list[Keyed]:
    """Those whose key (the first two members) gets no new value. Of the flooding MAC there may be many."""
    replaced = {entry[:2] for entry in new if entry[1] != FLOOD_MAC} if old else set()
    return [entry for entry in old if entry[:2] not in replaced]


def _unmoved(old: list[PortEntry], new: Iterable[PortEntry], desired: HostState, actual: HostState) -> list[PortEntry]:
    """Those whose MAC does not go to another port of the same bridge."""

    def key(entry: PortEntry, state: HostState) -> tuple[str, bytes]:
        link = state.links.get(entry.port)
        return getattr(link, "bridge", ""), entry.mac

    replaced = {key(entry, desired) for entry in new} if old else set()
    return [entry for entry in old if key(entry, actual) not in replaced]


def _changed(new: list[Neighbour], old: list[Neighbour]) -> list[Neighbour]:
    before = {(neighbour.device, neighbour.address) for neighbour in old}
    return [neighbour for neighbour in new if (neighbour.device, neighbour.address) in before]
