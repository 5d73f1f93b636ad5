"""Connections that the kernel still tracks though nothing leads there any more: which ones a plan has to end.

Without it a client would go on talking to a port that is no longer published, or to whoever had the address before;
and one that kept sending to a port of the host while nobody published it would never reach who publishes it next.
Only what was on this host counts: nothing is tracked here for the workloads of others that they do not track too.
"""

from __future__ import annotations

from collections.abc import Iterable

from datapath.entries import differing
from datapath.objects import Firewall, ForgetCallers, ForgetFlows, HostState, Mac, Operation, Veth

UDP = 17
LINK_LOCAL = b"\xfe\x80"  # not routed, so not tracked by the host


def unpublished(wanted: Firewall, held: Firewall | None) -> list[Operation]:
    """For publications that ended. Which of two ports of the host a connection came through cannot be told from it."""
    if held is None or held.publications == wanted.publications:
        return []
    ended = {ForgetFlows(p.to, p.protocol, p.to_port) for p in held.publications - wanted.publications}
    return [*_ordered(ended)]


def published(wanted: Firewall, held: Firewall | None) -> list[Operation]:
    """For publications that begin. Of UDP only: what calls over TCP and is refused begins anew by itself."""
    begun = wanted.publications - (held.publications if held is not None else frozenset())
    callers = {ForgetCallers(4 if len(p.to) == 4 else 6, UDP, p.port, p.address) for p in begun if p.protocol == UDP}
    return [*sorted(callers, key=lambda o: (o.version, o.port, o.address))]


def departures(desired: HostState, actual: HostState, blocked: frozenset[str]) -> list[Operation]:
    """For addresses of workloads that were on this host, and are no more or have another MAC."""
    left = _local_macs(actual, differing(desired.ports, actual.ports)[1], blocked)
    changed = {n for n in differing(desired.neighbours, actual.neighbours)[1] if n.device not in blocked}
    local = _local_macs(actual, actual.ports, blocked) if changed else left
    gone = {n.address for n in changed if (n.device, n.mac) in local}
    if left:
        gone |= {n.address for n in actual.neighbours if (n.device, n.mac) in left}
    return [*_ordered({ForgetFlows(address) for address in gone if not address.startswith(LINK_LOCAL)})]


def _local_macs(state: HostState, ports: Iterable[tuple[str, Mac]], blocked: frozenset[str]) -> set[tuple[str, Mac]]:
    """(bridge, MAC) of those entries that lead to a workload here."""
    found = set()
    for port, mac in ports:
        link = state.links.get(port)
        if isinstance(link, Veth) and link.bridge and link.bridge not in blocked and port not in blocked:
            found.add((link.bridge, mac))
    return found


def _ordered(operations: set[ForgetFlows]) -> list[ForgetFlows]:
    return sorted(operations, key=lambda o: (o.address, o.protocol, o.port))
