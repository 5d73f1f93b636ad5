"""What the probes between two hosts mean: pure. One direction at a time, for that is how they fail.

Known of each direction: what was sent, what left the sender's last device, what reached the other's device, and what
came out of its tunnel. Where the count falls to nothing is where the fault is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.connectivity.told import Refused, Sent, Watched


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status`: ok, mtu, loss, blocked or no-answer. `code`: why, for programs. `fix`: what to do."""

    status: str
    code: str
    detail: str = ""
    fix: str = ""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One direction between two hosts that both answer.

    Attributes:
        sent, seen_here, seen_there: what the sender told, and what both taps counted.
        number, other: the sender's and the receiver's number in the test.
        has_tunnel: whether a tunnel of kvnet's is there to come out of.
        needed: the largest packet that the networks of both send.
        passes: the largest that passed, as far as it was looked for (None: it was not, or none did).
    """

    source: str
    target: str
    number: int
    other: int
    sent: Sent
    seen_here: Watched
    seen_there: Watched
    has_tunnel: bool
    needed: int
    passes: int | None = None
    refusals: tuple[Refused, ...] = ()

    @property
    def arrived(self) -> int:
        return self.seen_there.arrived.get(self.number, 0)

    @property
    def through(self) -> int:
        return self.seen_there.through.get(self.number, 0)

    @property
    def left(self) -> int:
        return self.seen_here.left.get(self.other, 0)

    @property
    def counted(self) -> int:
        """Of the small ones, those that came as far as they can."""
        return self.through if self.has_tunnel else self.arrived

    @property
    def is_whole(self) -> bool:
        """Whether packets of the needed size arrive."""
        return self.seen_there.sizes.get((self.number, self.needed), 0) > 0

    def as_json(self, verdict: Verdict) -> dict[str, Any]:
        rtt = self.sent.rtt_ms
        told = next((r.by for r in self.refusals if r.mtu), None)
        return {
            "from": self.source,
            "to": self.target,
            **verdict_json(verdict),
            "rtt_ms": {"min": min(rtt), "avg": round(sum(rtt) / len(rtt), 3), "max": max(rtt)} if rtt else None,
            "echo": {"sent": self.sent.echoes, "answered": len(rtt)},
            "tunnel": {
                "sent": self.sent.small,
                "left": self.left,
                "arrived": self.arrived,
                "through": self.through if self.has_tunnel else None,
            },
            "mtu": {"needed": self.needed, "passes": self.needed if self.is_whole else self.passes, "told_by": told},
        }


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing could be tried, because one of the two did not answer, or they have no family in common."""

    source: str
    target: str
    verdict: Verdict = field(default_factory=lambda: Verdict("no-answer", "host-silent"))

    def as_json(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"rtt_ms": None, "echo": None, "tunnel": None, "mtu": None}
        return {"from": self.source, "to": self.target, **verdict_json(self.verdict), **empty}


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {"status": verdict.status, "code": verdict.code, "detail": verdict.detail, "fix": verdict.fix}


def judge(crossing: Crossing) -> Verdict:
    if not crossing.sent.small:
        return _not_sent(crossing)
    if not crossing.arrived:
        return _never_arrived(crossing)
    if not crossing.counted:
        return _stopped_at_the_door(crossing)
    if not crossing.is_whole:
        return _too_small(crossing)
    lost = crossing.sent.small - crossing.counted
    if lost > 0:
        share = 100 * lost / crossing.sent.small
        missed = f"; {crossing.target} could not count {crossing.seen_there.missed} packets"
        return Verdict(
            "loss",
            "packets-lost",
            f"{lost} of {crossing.sent.small} packets ({share:.0f}%) from {crossing.source} did not arrive at "
            f"{crossing.target}{missed if crossing.seen_there.missed else ''}",
            "look at the errors and drops of the links between them: ip -s link",
        )
    return _fine(crossing)


def _fine(crossing: Crossing) -> Verdict:
    if not crossing.has_tunnel:
        return Verdict(
            "ok",
            "arrives",
            f"{crossing.target} has no overlay network yet: what arrives at its link was counted, and not what its "
            "firewall lets in",
        )
    if crossing.sent.echoes and not crossing.sent.rtt_ms:
        return Verdict("ok", "no-echo", f"{crossing.target} does not answer ping; the tunnel's port is open")
    return Verdict("ok", "reached")


def _not_sent(crossing: Crossing) -> Verdict:
    errors, source, target = crossing.sent.errors, crossing.source, crossing.target
    if "EPERM" in errors:
        return Verdict(
            "blocked",
            "refused-by-sender",
            f"a firewall of {source}'s own refuses UDP port 4789 to {target} (output hook)",
            f"on {source}: nft list ruleset, and let UDP port 4789 out; 'kvnet doctor {source}' names the chain",
        )
    why = "; ".join(errors.values()) or "nothing was sent"
    return Verdict(
        "blocked", "no-route", f"{source} cannot send to {target}: {why}", f"on {source}: ip route get to its address"
    )


def _never_arrived(crossing: Crossing) -> Verdict:
    source, target = crossing.source, crossing.target
    if crossing.sent.silent_hop:
        hop = crossing.sent.silent_hop
        return Verdict(
            "blocked",
            "next-hop-silent",
            f"{hop}, by which {source} reaches {target}, does not answer for its address: that machine is down, or a "
            "cable, a switch port or a VLAN between them",
            f"on {source}: ip route get to the address of {target}, ip neigh show {hop}; look at the link of {target}",
        )
    if not crossing.left:
        return Verdict(
            "blocked",
            "dropped-by-sender",
            f"packets of {source} for UDP port 4789 of {target} leave by none of its links: the link is down, or a "
            "firewall of its own drops them on the way out",
            f"'kvnet doctor {source}' tells; on {source}: ip link, nft list ruleset, tc filter show",
        )
    if crossing.sent.rtt_ms:
        return Verdict(
            "blocked",
            "filtered-on-the-way",
            f"UDP port 4789 from {source} does not arrive at {target}, which answers ping: something between them "
            "filters it",
            "let UDP port 4789 pass between the hosts: a security group, a router's or a hypervisor's firewall",
        )
    by = f"; {crossing.refusals[0].by} says that it cannot be reached" if crossing.refusals else ""
    return Verdict(
        "blocked",
        "nothing-arrives",
        f"nothing from {source} arrives at {target}, neither UDP port 4789 nor an answer to ping{by}",
        f"on {source}: ip route get to the address of {target}, and look at what is between them",
    )


def _stopped_at_the_door(crossing: Crossing) -> Verdict:
    source, target = crossing.source, crossing.target
    is_refused = any(refused.is_port for refused in crossing.refusals)
    how = "and is refused (port unreachable)" if is_refused else "and does not come out of its tunnel"
    return Verdict(
        "blocked",
        "dropped-by-receiver",
        f"UDP port 4789 from {source} arrives at {target}'s link {how}: a firewall of {target}'s own stops it (input "
        "hook), or its tunnel device is down",
        f"on {target}: 'kvnet doctor {target}' names the chain; let UDP port 4789 in from {source}",
    )


def _too_small(crossing: Crossing) -> Verdict:
    source, target, needed = crossing.source, crossing.target, crossing.needed
    passes = f"; {crossing.passes} bytes do" if crossing.passes else ""
    told = next((refused for refused in crossing.refusals if refused.mtu), None)
    if told is not None:
        who = f"{told.by} on the way says that {told.mtu} bytes would"
    elif "EPERM" in crossing.sent.errors:
        who = f"a firewall of {source}'s own refuses them"
    elif "EMSGSIZE" in crossing.sent.errors:
        who = f"{source}'s own link does not take more"
    else:
        who = "nobody on the way says so: such packets vanish"
    best = crossing.passes or (told.mtu if told is not None else 0)
    mend = f"make every link between them carry {needed} bytes"
    if best:
        mend += f", or give the hosts' links an MTU of {best} (ip link set DEVICE mtu {best}): networks follow"
    return Verdict(
        "mtu",
        "mtu-too-small",
        f"packets of {needed} bytes from {source}, which its networks send, do not reach {target} whole{passes}; {who}",
        mend,
    )
