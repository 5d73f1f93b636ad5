"""Whether the cluster means the two to reach each other at all, and what cannot be built as it was asked for.

Where it does not, no kernel is at fault, and the way out is another network, a peer, or a published port. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from datapath.packing import contains, packed_mac
from datapath.trace.case import Case, End, may_talk
from datapath.trace.hop import Difference, Draft, Hop, Side, Weight
from datapath.trace.wanted import found_wrong
from kvnet.model import Driver, Endpoint

# Conditions by which packets are lost; the others are told, and lose none by themselves.
LOSING = frozenset(
    {
        "vni-missing",
        "peer-unknown",
        "peer-unreachable",
        "peer-not-adjacent",
        "family-unreachable",
        "block-missing",
        "bridge-full",
        "shared-address",
    }
)


UNKNOWN_HOST = "peer-unknown"  # told of that host itself, too
OF_A_HOP = frozenset({"uplink-missing", "uplink-down"})  # told there
ABOUT_A_HOST = frozenset({"peer-unknown", "peer-unreachable", "peer-not-adjacent", "family-unreachable"})


def admission(side: Side, case: Case) -> Hop:
    draft = Draft(side, "plan", f"{case.a} -> {case.b}")
    draft.expect("the two are meant to reach each other")
    refusals = list(_refusals(case))
    draft.differences += refusals
    draft.see(f"they are: {_words(case)}{_told_port(case)}" if not refusals else "they are not")
    hop = draft.hop()
    return replace(hop, host="", is_known=True, found=", ".join(draft.found))


def _words(case: Case) -> str:
    one, other = case.a.network, case.b.network
    if case.is_itself:
        return "one endpoint"
    if one.id == other.id:
        return f"both on {one.name} ({one.driver})"
    return f"{one.name} ({one.driver}) and {other.name} ({other.driver}) are peers"


def _refusals(case: Case) -> Iterator[Difference]:
    one, other = case.a.network, case.b.network
    if case.is_itself:
        return
    if not may_talk(one, other):
        reason = f"{one.name} and {other.name} are not peers, and kvnet keeps networks apart"
        fix = (
            f"kvnet network peer {one.name} {other.name}; or reach it by a published port{_published(case.b.endpoint)}"
        )
        yield Difference("not-peers", "networks", "one network, or peers", f"{one.name} and {other.name}", reason, fix)
    elif one.id == other.id and not one.icc:
        reason = f"{one.name} has ICC off: its workloads do not reach each other"
        fix = f"kvnet network update {one.name} --icc; or reach it by a published port{_published(case.b.endpoint)}"
        yield Difference("icc-off", "icc", "on", "off", reason, fix)
    if case.a.host != case.b.host and Driver.BRIDGE in (one.driver, other.driver):
        local = one if one.driver is Driver.BRIDGE else other
        reason = f"{local.name} is a bridge network: each host has a part of its own, and nothing leads between them"
        fix = "put both on one host, or on an overlay or routed network"
        yield Difference("hosts-apart", "hosts", "one host", f"{case.a.host} and {case.b.host}", reason, fix)


def _told_port(case: Case) -> str:
    flow = case.flow
    ports = [p for p in case.b.endpoint.ports if (p.protocol, p.port) == (flow.protocol, flow.port)]
    return "".join(f", and published as {case.b.host}:{port.host_port}/{port.protocol}" for port in ports)


def _published(endpoint: Endpoint) -> str:
    ports = [f"{endpoint.host}:{port.host_port}/{port.protocol}" for port in endpoint.ports]
    return f" ({', '.join(ports)})" if ports else ""


def buildable(side: Side) -> Hop | None:
    """What of the networks cannot be on this host as it was asked for; None where all can."""
    case = side.case
    found = [f for f in found_wrong(case, side.host, side.sight) if _concerns(side, f.code)]
    if not found:
        return None
    draft = Draft(side, "networks", ", ".join(network.name for network in side.case.own_networks))
    draft.expect("can be built as asked for")
    draft.see(", ".join(dict.fromkeys(finding.code for finding in found)))
    for finding in found:
        weight = Weight.BREAKS if finding.code in LOSING else Weight.NOTE
        weight = Weight.SYMPTOM if finding.code == UNKNOWN_HOST else weight
        draft.differ(finding.code, "network", "as asked for", finding.code, finding.detail, "see the text", weight)
    hop = draft.hop()
    return replace(hop, is_known=True, found=", ".join(draft.found))


def _concerns(side: Side, code: str) -> bool:
    """What is told of other hosts is about this pair only where no way is made to the other end."""
    if code not in ABOUT_A_HOST:
        return code not in OF_A_HOP
    ends = [end for end in (side.case.a, side.case.b) if end.host != side.host]
    return any(not _is_led_to(side, end) for end in ends)


def _is_led_to(side: Side, end: End) -> bool:
    if end.network.driver is Driver.ROUTED:
        to = end.address.packed
        return any(contains(route.destination, route.prefix_length, to) for route in side.wanted.routes)
    return any(entry.mac == packed_mac(end.endpoint.mac) for entry in side.wanted.vteps)
