"""What the echoes between two endpoints mean: pure. Where an echo was seen last is where its way ends.

A workload that drops pings is no fault of the network: it is told apart by its answers to ARP, or by the request that
was seen leaving for its interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.connectivity.choice import Pair
from controller.connectivity.links import Verdict, verdict_json
from controller.connectivity.told import Asked, Place, Watched
from datapath.names import veth_name
from kvnet.model import Address, Endpoint


@dataclass(frozen=True, slots=True)
class Path:
    """`number`: of the pair in the test. `near`, `far`: what the taps of its two hosts counted."""

    number: int
    pair: Pair
    asked: Asked
    near: Watched
    far: Watched

    def seen_near(self, *, reply: bool = False, full: bool = False) -> frozenset[Place]:
        return _of(self.near, self.number, reply=reply, full=full)

    def seen_far(self, *, reply: bool = False, full: bool = False) -> frozenset[Place]:
        return _of(self.far, self.number, reply=reply, full=full)

    @property
    def is_local(self) -> bool:
        return self.pair.source.host == self.pair.target.host

    def as_json(self, verdict: Verdict) -> dict[str, Any]:
        rtt = self.asked.rtt_ms
        return {
            "network": {"id": self.pair.network.id, "name": self.pair.network.name},
            "from": _endpoint(self.pair.source, self.pair.family),
            "to": _endpoint(self.pair.target, self.pair.family),
            "family": self.pair.family,
            **verdict_json(verdict),
            "rtt_ms": {"min": min(rtt), "avg": round(sum(rtt) / len(rtt), 3), "max": max(rtt)} if rtt else None,
            "echo": {"sent": self.asked.sent, "answered": len(rtt)},
            "full": {
                "size": self.asked.full,
                "sent": self.asked.full_sent,
                "answered": self.asked.full_answered,
            },
        }


def _of(watched: Watched, number: int, *, reply: bool, full: bool) -> frozenset[Place]:
    return frozenset(
        place for place in watched.pairs.get(number, frozenset()) if (place.is_reply, place.is_full) == (reply, full)
    )


def _endpoint(endpoint: Endpoint, family: int) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "host": endpoint.host,
        "address": str(_address(endpoint, family)),
    }


def _address(endpoint: Endpoint, family: int) -> Address | None:
    return endpoint.address if family == 4 else endpoint.address6


def judge(path: Path) -> Verdict:
    asked, source, target = path.asked, path.pair.source, path.pair.target
    if asked.rtt_ms:
        return _answered(path)
    if asked.error and asked.error != "EMSGSIZE":
        return _not_sent(path)
    if asked.neighbour:
        how = "ARP" if path.pair.family == 4 else "neighbour discovery"
        return Verdict(
            "ok",
            "answers-neighbours",
            f"{target.name} answers {how} and not ping: the way is fine, its own firewall drops ICMP",
        )
    if Place(veth_name(source.id), True, True, False) in path.seen_near(reply=True):
        detail = f"the answers reach {source.name}'s interface: its own firewall drops them"
        return Verdict("ok", "answer-dropped-inside", detail)
    if Place(veth_name(target.id), True, False, False) in path.seen_far():
        return _delivered(path)
    return _lost(path)


def _answered(path: Path) -> Verdict:
    asked = path.asked
    if asked.error == "EMSGSIZE" or (asked.full_sent and not asked.full_answered):
        return _too_small(path)
    lost = asked.sent - len(asked.rtt_ms)
    if lost > 0:
        return Verdict(
            "loss",
            "packets-lost",
            f"{lost} of {asked.sent} pings from {path.pair.source.name} to {path.pair.target.name} were not answered",
            _trace(path),
        )
    return Verdict("ok", "reached")


def _too_small(path: Path) -> Verdict:
    source, target, full = path.pair.source, path.pair.target, path.asked.full
    if path.asked.error == "EMSGSIZE":
        where = f"{source.name}'s own interface has a smaller MTU"
    elif not path.is_local and not path.seen_far(full=True):
        where = f"they do not arrive at {target.host}"
    elif Place(veth_name(target.id), False, True, True) in path.seen_far(reply=True, full=True):
        where = f"the answers are lost on the way back to {source.host}"
    else:
        where = f"{target.name} does not answer them"
    return Verdict(
        "mtu",
        "mtu-too-small",
        f"small packets pass, those of {full} bytes, which the network allows, do not: {where}",
        "compare with the hosts' matrix; 'kvnet doctor' on both hosts tells the links' MTUs",
    )


def _not_sent(path: Path) -> Verdict:
    asked, source = path.asked, path.pair.source
    if asked.error == "NOT-HERE":
        return Verdict("no-answer", "not-attached", asked.detail, f"kvnet endpoint inspect {source.id}")
    if asked.error == "EPERM":
        detail = f"{source.name}'s own firewall lets no ping out, so nothing was tried from there"
        return Verdict("no-answer", "refused-inside", detail, _trace(path))
    return Verdict(
        "blocked",
        "no-route-inside",
        f"{source.name} cannot send to {path.pair.target.name}: {asked.detail}",
        _trace(path),
    )


def _delivered(path: Path) -> Verdict:
    """The request was handed to the workload's interface, and no answer came out of it, or it went astray."""
    source, target = path.pair.source, path.pair.target
    if Place(veth_name(target.id), False, True, False) in path.seen_far(reply=True):
        return Verdict(
            "blocked",
            "answer-lost",
            f"{target.name} answers, and its answers do not reach {source.name}: last seen {_last(path, reply=True)}",
            f"kvnet trace {_name(path, target)} {_name(path, source)}",
        )
    if path.asked.neighbour is None:
        detail = f"what is sent reaches {target.name}'s interface; it does not answer ping"
        return Verdict("ok", "delivered", detail)
    return Verdict(
        "no-answer",
        "endpoint-silent",
        f"what is sent reaches {target.name}'s interface on {target.host}, which answers neither ping nor ARP: the "
        "interface is down in the workload, or has another address there",
        _trace(path),
    )


def _lost(path: Path) -> Verdict:
    source, target = path.pair.source, path.pair.target
    if not path.seen_near() and not path.seen_far():
        return Verdict(
            "blocked",
            "never-left",
            f"no packet to {target.name} leaves {source.name}'s interface: it does not get the MAC of its peer or "
            "gateway, or the interface is down",
            _trace(path),
        )
    detail = f"packets to {target.name} get lost: last seen {_last(path, reply=False)}"
    return Verdict("blocked", "lost", detail, _trace(path))


def _last(path: Path, *, reply: bool) -> str:
    """Where on its way a packet was seen last: the other side's host counts before the own, leaving before coming."""
    first, then = (path.seen_far, path.seen_near) if reply else (path.seen_near, path.seen_far)
    here, there = (path.pair.target, path.pair.source) if reply else (path.pair.source, path.pair.target)
    for host, places in ((there.host, then(reply=reply)), (here.host, first(reply=reply))):
        if places:
            place = max(places, key=lambda p: (p.is_out, p.device))
            return f"on {host}, {'leaving by' if place.is_out else 'coming in by'} {place.device}"
    return f"inside {here.name}"


def _trace(path: Path) -> str:
    return f"kvnet trace {_name(path, path.pair.source)} {_name(path, path.pair.target)}"


def _name(path: Path, endpoint: Endpoint) -> str:
    return f"{path.pair.network.name}/{endpoint.name}"
