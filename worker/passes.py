"""Pure steps of a reconcile pass: what belongs to which network, and what may be done when not all is known.

No I/O, no clock, no memory; `worker.reconcile` puts these together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields

from datapath.conflicts import network_of_link
from datapath.desired import HostView, desired
from datapath.names import network_of_device
from datapath.objects import (
    Announce,
    CreateLink,
    DeleteLink,
    Failure,
    Firewall,
    HostState,
    Link,
    Operation,
    PortEntry,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    SetFirewall,
    SetSysctl,
    UpdateLink,
)
from datapath.sysctls import device_of_sysctl

REMOVALS = (RemoveAddress, RemoveNeighbour, RemovePort, RemoveRoute, RemoveVtep)


def host_part(outline: HostView) -> HostState:
    """What concerns the whole host and no single network: the firewall and the forwarding settings."""
    whole = desired(outline)
    settings = {path: value for path, value in whole.sysctls.items() if device_of_sysctl(path) is None}
    return HostState(sysctls=settings, firewall=whole.firewall)


def additions_only(operations: Sequence[Operation], firewall: Firewall | None) -> list[Operation]:
    """The plan without what takes something away; a link is still replaced by itself.

    `firewall` is what is there now: the new one then knows both.
    """
    created = {operation.link.name for operation in operations if isinstance(operation, CreateLink)}
    kept: list[Operation] = []
    for operation in operations:
        if isinstance(operation, REMOVALS):
            continue
        if isinstance(operation, DeleteLink) and operation.link.name not in created:
            continue
        if isinstance(operation, SetFirewall) and firewall is not None:
            kept.append(SetFirewall(both(operation.firewall, firewall)))
        else:
            kept.append(operation)
    return kept


def both(one: Firewall, other: Firewall) -> Firewall:
    return Firewall(**{f.name: getattr(one, f.name) | getattr(other, f.name) for f in fields(Firewall)})


def without(state: HostState, networks: Collection[str]) -> HostState:
    """The state but for what belongs to these networks. The firewall stays as it is."""

    def stays(device: str) -> bool:
        return _network_of_name(device, state.links) not in networks

    return HostState(
        links={name: link for name, link in state.links.items() if network_of_link(link) not in networks},
        addresses=frozenset(entry for entry in state.addresses if stays(entry.device)),
        routes=frozenset(entry for entry in state.routes if stays(entry.device)),
        neighbours=frozenset(entry for entry in state.neighbours if stays(entry.device)),
        vteps=frozenset(entry for entry in state.vteps if stays(entry.device)),
        ports=frozenset(entry for entry in state.ports if stays(entry.port)),
        sysctls={path: value for path, value in state.sysctls.items() if stays(device_of_sysctl(path) or "")},
        firewall=state.firewall,
        containers={name: side for name, side in state.containers.items() if stays(name)},
        foreign=state.foreign,
    )


def failures_by_network(failures: Sequence[Failure], *states: HostState) -> dict[str, list[Failure]]:
    """Under "" those that concern the whole host."""
    links: dict[str, Link] = {}
    for state in states:
        links.update(state.links)
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(network_of_operation(failure.operation, links), []).append(failure)
    return found


def network_of_operation(operation: Operation, links: Mapping[str, Link]) -> str:
    """The network's id; "" for what concerns the whole host."""
    if isinstance(operation, (CreateLink, UpdateLink, DeleteLink)):
        return network_of_link(operation.link)
    if isinstance(operation, SetFirewall):
        return ""
    return _network_of_name(device_of_operation(operation), links)


def device_of_operation(operation: Operation) -> str:
    """The device an operation is about; "" for the whole host."""
    match operation:
        case CreateLink() | UpdateLink() | DeleteLink():
            return operation.link.name
        case SetFirewall():
            return ""
        case SetSysctl():
            return device_of_sysctl(operation.path) or ""
    entry = next(getattr(operation, f.name) for f in fields(operation))
    return entry.port if isinstance(entry, PortEntry) else entry.device


def may_lose_traffic(operation: Operation, is_ordered: Callable[[str], bool]) -> bool:
    """Whether it takes a network or an interface away that nobody on this host asked to take away."""
    if not isinstance(operation, DeleteLink):
        return False
    return not is_ordered(operation.link.name)


def changes_something(operation: Operation) -> bool:
    return not isinstance(operation, Announce)


def _network_of_name(device: str, links: Mapping[str, Link]) -> str:
    link = links.get(device)
    return network_of_link(link) if link is not None else network_of_device(device) or ""
