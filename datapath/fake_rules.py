"""What our fixed nftables rules, and the FORWARD chains of iptables after them, make of one packet.

The same order as in `worker.kernel.rules`; the lab asks the real rules the same questions. Without our tables nothing
is judged, translated or marked, as on a real host whose rules somebody flushed.
"""

from __future__ import annotations

from dataclasses import dataclass

from datapath.fake_tables import Tables
from datapath.objects import Firewall, Ip
from datapath.packing import IPV6_LENGTH, contains

LOOPBACK4 = b"\x7f\x00\x00\x01"
_TCP, _UDP = 6, 17
_DNS_PORT = 53


class Lost(Exception):
    """A packet's end, on its way out of the walk."""


@dataclass(slots=True)
class Packet:
    """One packet. `source`: what the receiver sees; b"" where nobody knows.

    translated: a published port led it elsewhere. masqueraded: it bears a host's address instead of its sender's.
    marked: our rules admitted it. is_own: a host's, not a workload's. is_routed: its frame bears a gateway's MAC.
    """

    destination: Ip
    source: Ip = b""
    port: int = 0
    protocol: int = _TCP
    translated: bool = False
    masqueraded: bool = False
    marked: bool = False
    is_own: bool = False
    is_routed: bool = False


def translate(tables: Tables, packet: Packet) -> None:
    """Published ports, before the way is chosen."""
    if tables.firewall is None or not packet.port:
        return
    if packet.destination in tables.firewall.dns:
        return
    is_loopback = packet.destination == LOOPBACK4 and packet.is_own  # from a workload it would be a way around
    if not is_loopback and packet.destination not in tables.local_addresses():
        return
    found = [
        publication
        for publication in tables.firewall.publications
        if (publication.protocol, publication.port) == (packet.protocol, packet.port)
        and publication.address in (b"", packet.destination)
        and len(publication.to) == len(packet.destination)
    ]
    if found:
        chosen = max(found, key=lambda publication: publication.address)
        packet.destination, packet.port, packet.translated = chosen.to, chosen.to_port, True


def require_input(tables: Tables, packet: Packet, entrance: str) -> None:
    """A workload that makes up a route does not get at the host's 127.0.0.1, one of an internal network at nothing but
    names."""
    if tables.firewall is None or entrance not in tables.firewall.bridges:
        return
    if packet.destination == LOOPBACK4:
        raise Lost("the firewall keeps workloads from the host's loopback addresses")
    is_asking = packet.destination in tables.firewall.dns and packet.port == _DNS_PORT
    if entrance in tables.firewall.internal and not (is_asking and packet.protocol in (_TCP, _UDP)):
        raise Lost("the firewall keeps workloads of an internal network from the host")


def guard(tables: Tables, packet: Packet, entrance: str, exit_: str) -> None:
    """A frame between two ports of a bridge: of a network without ICC only what was routed comes over its tunnel."""
    apart = tables.firewall.apart if tables.firewall is not None else frozenset()
    if exit_ in apart or (entrance in apart and not packet.is_routed):
        raise Lost("the firewall keeps the workloads of a network without ICC apart")
    packet.marked = entrance in apart


def judge(tables: Tables, packet: Packet, entrance: str, exit_: str) -> None:
    """The forward hook: our chain first, then the gates, which let pass what bears our mark if they are open.

    What is marked already on its way through one bridge was admitted by that bridge's guard.
    """
    is_passed_on = packet.marked and entrance == exit_
    packet.marked = is_passed_on or (
        tables.firewall is not None and _is_admitted(tables.firewall, packet, entrance, exit_)
    )
    family = 6 if len(packet.destination) == IPV6_LENGTH else 4
    for gate, is_open in tables.gates.items():
        if gate.family == family and not (is_open and packet.marked):
            raise Lost(f"the FORWARD chain of iptables-{gate.flavour} drops it")


def masquerade(tables: Tables, packet: Packet, entrance: str, exit_: str, own: Ip) -> None:
    """`own`: the host's address towards `exit_`. Who is led back into his own network would get no answer else."""
    firewall = tables.firewall
    if firewall is None:
        return
    if exit_ in firewall.bridges:
        is_hairpin = packet.translated and (
            entrance == exit_
            or any(contains(*b, packet.source) and contains(*b, packet.destination) for b in firewall.blocks)
        )
        if packet.source != LOOPBACK4 and not is_hairpin:
            return
    else:
        if not any(contains(*block, packet.source) for block in firewall.subnets4 | firewall.subnets6):
            return
        if any(contains(*block, packet.destination) for block in firewall.blocks):
            return
    packet.source, packet.masqueraded = own, True


def _is_admitted(firewall: Firewall, packet: Packet, entrance: str, exit_: str) -> bool:
    """Whether it is ours and may pass; not ours is neither. Raises `Lost` for what our chain drops."""
    ours = firewall.bridges
    if entrance == exit_ and entrance in ours - firewall.isolated:
        return True
    if (entrance, exit_) in firewall.pairs or _is_within(firewall, packet, entrance, exit_):
        return True
    if entrance not in ours and exit_ not in ours:
        return False
    if entrance in firewall.internal or exit_ in firewall.internal:
        raise Lost("the firewall lets nothing into an internal network or out of it")
    if packet.translated:
        return True
    if entrance == exit_:
        raise Lost("the firewall keeps the workloads of a network without ICC apart")
    if entrance in ours and exit_ in ours:
        raise Lost("the firewall keeps networks apart")
    if exit_ in ours:
        raise Lost("the firewall lets nothing in")
    return exit_ not in firewall.dockers


def _is_within(firewall: Firewall, packet: Packet, entrance: str, exit_: str) -> bool:
    """To or from the part of a routed network that is behind another host."""
    if entrance in firewall.bridges and exit_ in firewall.bridges:
        return False
    bridge, other = (entrance, packet.destination) if entrance in firewall.bridges else (exit_, packet.source)
    return any(name == bridge and contains(*block, other) for name, block in firewall.within)
