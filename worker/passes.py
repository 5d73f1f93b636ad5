"""Pure steps of a reconcile pass: what may be done when not all is known, and what is left when it was done.

No I/O, no clock, no memory; `worker.reconcile` puts these together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace

from datapath.names import DNS_BRIDGE
from datapath.objects import (
    AddAddress,
    Announce,
    CloseGate,
    CreateLink,
    DeleteLink,
    Failure,
    Firewall,
    ForgetCallers,
    ForgetFlows,
    HostState,
    OpenGate,
    Operation,
    Publication,
    Release,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    SetFirewall,
    SetSysctl,
    UpdateLink,
)
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl
from worker.owners import Owners

REMOVALS = (
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    Release,
    CloseGate,
    ForgetFlows,
)
# What fails among these is told, and tried again by itself; no network is the worse built for it.
BLOCKED = "forward-blocked"
MARK = "0x80000/0x80000"
SOFT = (OpenGate, CloseGate, ForgetFlows, ForgetCallers, Announce)


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
    """What either knows. Of a host port that leads to two places, where `one` has it."""
    union = Firewall(**{f.name: getattr(one, f.name) | getattr(other, f.name) for f in fields(Firewall)})
    taken = {_front(publication) for publication in one.publications}
    more = frozenset(p for p in other.publications if _front(p) not in taken)
    return replace(union, publications=one.publications | more)


def _front(publication: Publication) -> tuple[int, int, bytes, int]:
    return publication.protocol, len(publication.to), publication.address, publication.port


def without(state: HostState, networks: Collection[str], owners: Owners) -> HostState:
    """The state but for what belongs to these networks. What is the whole host's stays as it is."""

    def stays(device: str) -> bool:
        return owners.of_device(device) not in networks

    return replace(
        state,
        links={name: link for name, link in state.links.items() if owners.of_link(link) not in networks},
        addresses=frozenset(entry for entry in state.addresses if stays(entry.device)),
        routes=frozenset(entry for entry in state.routes if owners.of_route(entry) not in networks),
        neighbours=frozenset(entry for entry in state.neighbours if stays(entry.device)),
        vteps=frozenset(entry for entry in state.vteps if stays(entry.device)),
        ports=frozenset(entry for entry in state.ports if stays(entry.port)),
        sysctls={path: value for path, value in state.sysctls.items() if stays(device_of_sysctl(path) or "")},
        containers={name: side for name, side in state.containers.items() if stays(name)},
        enslaved=frozenset(entry for entry in state.enslaved if stays(entry.bridge)),
    )


def host_settings(state: HostState) -> dict[str, str]:
    """The settings of the whole host that were read."""
    return {path: value for path, value in state.sysctls.items() if path in HOST_SYSCTLS}


def device_settings(state: HostState, device: str) -> dict[str, str]:
    return {path: value for path, value in state.sysctls.items() if device_of_sysctl(path) == device}


def host_left(operations: Collection[Operation], host: HostState, actual: HostState) -> HostState:
    """The host's part as it is after the operations, none of which failed; `host` is what it should have."""
    firewall, gates = actual.firewall, actual.gates
    settings = host_settings(actual)
    for operation in operations:
        match operation:
            case SetFirewall():
                firewall = operation.firewall
            case OpenGate(gate) | CloseGate(gate):
                gates = {**(gates or {}), gate: isinstance(operation, OpenGate)}
            case SetSysctl(path, value) if path in HOST_SYSCTLS:
                settings[path] = value
    left = replace(host, firewall=firewall, gates=gates, walls=actual.walls, dockers=actual.dockers)
    return replace(left, sysctls={**host.sysctls, **settings})


def walled(host: HostState, actual: HostState) -> list[tuple[str, str]]:
    """What of others ends our traffic in forward though we accepted it, as problems of every network of the host."""
    if not host.is_forwarding:
        return []
    advice = f"let it accept packets with the mark {MARK}, or with firewalld put the devices kv+ into the zone trusted"
    what = "ends what it does not know, and kvnet leaves it alone"
    return [(BLOCKED, f"the nftables chain {wall} {what}: {advice}") for wall in sorted(actual.walls)]


def split_failures(failures: Sequence[Failure]) -> tuple[list[Failure], list[Failure]]:
    """(those that leave a network unbuilt, the others)"""
    hard: list[Failure] = []
    soft: list[Failure] = []
    for failure in failures:
        (soft if isinstance(failure.operation, SOFT) or is_about_names(failure.operation) else hard).append(failure)
    return hard, soft


def is_about_names(operation: Operation) -> bool:
    """Without the address for names all networks work, only nobody answers there."""
    match operation:
        case CreateLink(link) | UpdateLink(link) | DeleteLink(link):
            return link.name == DNS_BRIDGE
        case AddAddress(address) | RemoveAddress(address):
            return address.device == DNS_BRIDGE
        case SetSysctl(path, _):
            return device_of_sysctl(path) == DNS_BRIDGE
    return False


def by_network(failures: Sequence[Failure], owners: Owners) -> dict[str, list[Failure]]:
    """Under "" those that concern the whole host."""
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(owners.of_operation(failure.operation), []).append(failure)
    return found


def may_lose_traffic(operation: Operation, is_ordered: Callable[[str], bool]) -> bool:
    """Whether it takes a network or an interface away that nobody on this host asked to take away."""
    if isinstance(operation, Release):
        return True
    return isinstance(operation, DeleteLink) and not is_ordered(operation.link.name)


def ends_a_path(operation: Operation) -> bool:
    """Whether it takes away how another host's workloads are reached."""
    return isinstance(operation, RemoveNeighbour | RemoveVtep | RemovePort | RemoveRoute)


def changes_something(operation: Operation) -> bool:
    return not isinstance(operation, Announce)
