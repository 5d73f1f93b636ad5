"""The difference between what a host should have and what it has, as operations in an order that the kernel accepts.

Pure, and the same for every use: the worker applies a plan, `kvnet plan` prints it, the fake kernel executes it.
`actual` may be a dump of the kernel or an earlier `expected` state. Makes come before uses, uses go before what they
use, forwarding entries come before the neighbours that rely on them. Never touches anything that is not ours: a
foreign object in the way is a `Conflict`, and the rest of the host goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from datapath.conflicts import Conflict, obstacles
from datapath.entries import plan_entries
from datapath.flows import departures, published, unpublished
from datapath.links import LinkPlan, plan_links
from datapath.objects import (
    CloseGate,
    Firewall,
    Gate,
    HostState,
    OpenGate,
    Operation,
    SetFirewall,
    SetSysctl,
    Uplink,
)
from datapath.sysctls import device_of_sysctl

__all__ = ["Conflict", "Plan", "expected", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    operations: tuple[Operation, ...]
    conflicts: tuple[Conflict, ...] = ()


def plan(desired: HostState, actual: HostState) -> Plan:
    """Operations that turn `actual` into `expected(desired, actual)`, and what stands in the way of the rest.

    The firewall comes first, so that no workload is ever reachable without it; connections that may be no more are
    forgotten as soon as no new one can take their place.
    """
    blocked = obstacles(desired, actual)
    links = plan_links(desired, actual, blocked.devices)
    firewall = _without(desired.firewall, blocked.devices)
    operations: list[Operation] = []
    if firewall is not None and firewall != actual.firewall:
        operations.append(SetFirewall(firewall))
        operations += unpublished(firewall, actual.firewall)
        operations += published(firewall, actual.firewall)
    operations += _plan_gates(desired, actual)
    operations += links.changes
    operations += _sysctls(desired, actual, links)
    entries = plan_entries(desired, actual, links, blocked.devices)
    operations += entries
    operations += links.removals
    if entries or links.removals or links.changes:  # else nobody left
        operations += departures(desired, actual, blocked.devices)
    return Plan(tuple(operations), blocked.conflicts)


def expected(desired: HostState, actual: HostState) -> HostState:
    """What the host has once `plan(desired, actual)` was applied without a failure.

    The desired state but for what could not be built (an interface whose namespace is not known) or not be touched
    (behind a foreign object). Keep this, not the desired state, to plan against later without reading the kernel.
    """
    blocked = obstacles(desired, actual)
    withheld = plan_links(desired, actual, blocked.devices).withheld
    found = replace(desired, foreign=actual.foreign, walls=actual.walls, dockers=actual.dockers)
    around = replace(found, gates=_gates(desired, actual))
    if not withheld and not blocked.devices:
        return replace(around, uplinks=_uplinks(around, actual))
    built = _only(desired, lambda device: device not in withheld)
    left = _only(actual, lambda device: device in blocked.devices)
    whole = replace(
        around,
        links={**built.links, **left.links},
        addresses=built.addresses | left.addresses,
        routes=built.routes | left.routes,
        neighbours=built.neighbours | left.neighbours,
        vteps=built.vteps | left.vteps,
        ports=built.ports | left.ports,
        sysctls={**built.sysctls, **left.sysctls},
        firewall=_without(desired.firewall, blocked.devices),
        containers={**built.containers, **left.containers},
        enslaved=built.enslaved | left.enslaved,
    )
    return replace(whole, uplinks=_uplinks(whole, actual))


def _only(state: HostState, belongs: Callable[[str | None], bool]) -> HostState:
    """The part of a state that is on devices for which `belongs` holds; None and "" stand for the host itself."""
    return HostState(
        links={name: link for name, link in state.links.items() if belongs(name)},
        addresses=frozenset(entry for entry in state.addresses if belongs(entry.device)),
        routes=frozenset(entry for entry in state.routes if belongs(entry.device)),
        neighbours=frozenset(entry for entry in state.neighbours if belongs(entry.device)),
        vteps=frozenset(entry for entry in state.vteps if belongs(entry.device)),
        ports=frozenset(entry for entry in state.ports if belongs(entry.port)),
        sysctls={path: value for path, value in state.sysctls.items() if belongs(device_of_sysctl(path))},
        containers={name: side for name, side in state.containers.items() if belongs(name)},
        enslaved=frozenset(entry for entry in state.enslaved if belongs(entry.bridge)),
    )


def _uplinks(state: HostState, actual: HostState) -> dict[str, Uplink]:
    """As they were found, but for the bridge that they are now a port of."""
    ours = {entry.uplink: entry.bridge for entry in state.enslaved}
    freed = {entry.uplink for entry in actual.enslaved}
    return {
        name: replace(uplink, bridge=ours.get(name, "" if name in freed else uplink.bridge))
        for name, uplink in actual.uplinks.items()
    }


def _plan_gates(desired: HostState, actual: HostState) -> list[Operation]:
    """A gate belongs to all networks, as the firewall does: one network's part says nothing of it."""
    if desired.firewall is None or actual.gates is None:
        return []
    wrong = sorted(gate for gate, is_open in actual.gates.items() if is_open != desired.is_forwarding)
    return [OpenGate(gate) if desired.is_forwarding else CloseGate(gate) for gate in wrong]


def _gates(desired: HostState, actual: HostState) -> dict[Gate, bool] | None:
    if actual.gates is None:
        return None
    return dict.fromkeys(actual.gates, desired.is_forwarding) if desired.firewall is not None else dict(actual.gates)


def _sysctls(desired: HostState, actual: HostState, links: LinkPlan) -> list[Operation]:
    return [
        SetSysctl(path, value)
        for path, value in desired.sysctls.items()
        if (actual.sysctls.get(path) != value or device_of_sysctl(path) in links.fresh)
        and device_of_sysctl(path) not in links.withheld
    ]


def _without(firewall: Firewall | None, devices: frozenset[str]) -> Firewall | None:
    """The rules must not apply to a foreign device that happens to bear a name of ours."""
    if firewall is None or not devices:
        return firewall
    return replace(
        firewall,
        bridges=firewall.bridges - devices,
        internal=firewall.internal - devices,
        vxlans=firewall.vxlans - devices,
        apart=firewall.apart - devices,
        isolated=firewall.isolated - devices,
        pairs=frozenset(pair for pair in firewall.pairs if devices.isdisjoint(pair)),
        within=frozenset(entry for entry in firewall.within if entry[0] not in devices),
    )
