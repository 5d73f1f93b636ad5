"""A whole trace: every hop, and what was found first. What the controller answers, and the command line shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datapath.trace.case import Case, End
from datapath.trace.hop import Difference, Hop, Weight
from datapath.trace.seen import SeenNetwork, SeenRepair, Sight
from datapath.trace.walk import Walk, first_difference
from datapath.trace.wanted import wanted_states


@dataclass(frozen=True, slots=True)
class Trace:
    case: Case
    hops: tuple[Hop, ...]
    sights: Mapping[str, Sight]
    silences: Mapping[str, str]

    @property
    def finding(self) -> tuple[Hop, Difference] | None:
        return first_difference(list(self.hops))

    @property
    def is_whole(self) -> bool:
        return self.finding is None

    @property
    def is_complete(self) -> bool:
        """Every hop was looked at."""
        return all(hop.is_known for hop in self.hops)


def trace(case: Case, sights: Mapping[str, Sight], silences: Mapping[str, str] | None = None) -> Trace:
    """`silences`: of hosts that did not answer, why."""
    silent = {host: (silences or {}).get(host, "it did not answer") for host in case.own_hosts if host not in sights}
    walk = Walk(case, wanted_states(case, sights), sights, silent)
    return Trace(case, tuple(walk.all()), sights, silent)


def as_json(found: Trace) -> dict[str, Any]:
    case = found.case
    numbered = list(enumerate(found.hops, 1))
    finding = found.finding
    number = next((n for n, hop in numbered if finding is not None and hop is finding[0]), None)
    return {
        "from": _end(case.a),
        "to": _end(case.b),
        "family": case.version,
        "protocol": case.flow.protocol,
        "port": case.flow.port or None,
        "whole": found.is_whole,
        "complete": found.is_complete,
        "hosts": [_host(found, host) for host in case.own_hosts],
        "hops": [{"number": n, **_hop(found, hop)} for n, hop in numbered],
        "finding": None if finding is None else {"hop": number, "host": finding[0].host or None, **_told(finding[1])},
        "unread": sorted({f"{host}: {text}" for host, sight in found.sights.items() for text in sight.unread}),
    }


def _end(end: End) -> dict[str, Any]:
    endpoint = end.endpoint
    return {
        "endpoint": endpoint.id,
        "name": endpoint.name,
        "network": end.network.name,
        "network_id": end.network.id,
        "driver": end.network.driver.value,
        "host": endpoint.host,
        "address": str(end.address),
        "mac": endpoint.mac,
    }


def _host(found: Trace, host: str) -> dict[str, Any]:
    sight, standing = found.sights.get(host), found.case.standing[host]
    return {
        "host": host,
        "alive": standing.is_alive,
        "answered": sight is not None and sight.mode != "here",
        "looked_at": sight is not None,
        "silence": found.silences.get(host) or None,
        "mode": sight.mode if sight is not None else None,
        "paused_seconds": round(sight.paused_s, 3) if sight is not None and sight.paused_s else None,
        "networks": [_network(found, network) for network in (sight.networks if sight is not None else ())],
    }


def _network(found: Trace, seen: SeenNetwork) -> dict[str, Any]:
    network = found.case.networks.get(seen.id)
    wanted = found.case.wanted.get(seen.id, seen.wanted)
    return {
        "id": seen.id,
        "name": network.name if network is not None else seen.id,
        "applied": seen.applied,
        "wanted": wanted,
        "conditions": list(seen.conditions),
    }


def _hop(found: Trace, hop: Hop) -> dict[str, Any]:
    sight = found.sights.get(hop.host)
    seen = next((n for n in sight.networks if n.id == hop.network), None) if sight is not None else None
    wanted = found.case.wanted.get(hop.network)
    return {
        "host": hop.host or None,
        "direction": hop.direction,
        "kind": hop.kind,
        "name": hop.name,
        "verdict": hop.verdict.value,
        "desired": hop.wanted,
        "found": hop.found if hop.is_known else None,
        "network_id": hop.network or None,
        "version": {"applied": seen.applied if seen is not None else None, "wanted": wanted} if wanted else None,
        "differences": [_told(difference) for difference in hop.differences],
        "repairs": [_repair(repair) for repair in hop.repairs],
    }


def _told(difference: Difference) -> dict[str, Any]:
    return {
        "code": difference.code,
        "what": difference.what,
        "desired": difference.wanted,
        "found": difference.found,
        "reason": difference.reason,
        "fix": difference.fix,
        "breaks": difference.weight is not Weight.NOTE,
    }


def _repair(repair: SeenRepair) -> dict[str, Any]:
    return {
        "text": repair.text,
        "seconds_ago": round(repair.seconds_ago, 3),
        "times": repair.times,
        "within_seconds": round(repair.within_s),
    }
