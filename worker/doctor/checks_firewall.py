"""Whether firewalls of others let through what kvnet needs: the tunnels' port in and out, and what is forwarded.

Pure. Judges by walking the rules with the packets in question; what a rule asks that is not understood makes a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from datapath.objects import BRIDGE_PREFIX, VETH_PREFIX, VXLAN_PORT, VXLAN_PREFIX
from datapath.rules.ruleset import Chain, Packet
from datapath.rules.walk import Drop, drops, first
from worker.doctor.facts import FirewallFacts
from worker.doctor.report import Check, fail, ok, unknown, warn
from worker.kernel.rules import FAMILIES, MARK, TABLE

INWARD = (("netdev", "ingress"), ("ip", "prerouting"), ("ip", "input"))
OUTWARD = (("ip", "output"), ("ip", "postrouting"), ("netdev", "egress"))
FIREWALLD = "firewall-cmd --permanent --zone={zone} {what}; firewall-cmd --reload"
NOBODY = "000000000000"
BRIDGE = f"{BRIDGE_PREFIX}{NOBODY}"
# A workload and a machine in the world, by IP version: no site's rules are about these.
SOMEBODY = {4: ("10.255.254.2", "203.0.113.1"), 6: ("fd00:ffff::2", "2600::1")}
Hooks = Sequence[tuple[str, str]]  # (layer, hook)


def check_firewall(facts: FirewallFacts, family: int, source: str = "", target: str = "") -> Iterator[Check]:
    """`source`: a peer's address, `target`: our own, as far as they are known."""
    if facts.chains is None:
        yield unknown(
            "firewall.rules", facts.problem or "the rules cannot be read", "run it as root: sudo kvnet doctor"
        )
        return
    if facts.unread:
        yield unknown(
            "firewall.rules", f"not read: {'; '.join(facts.unread)}", "look at these yourself: nft list ruleset"
        )
    chains = others_of(facts.chains)
    inward = Packet(family, "udp", source, target, VXLAN_PORT, device_in=facts.underlay_device)
    outward = Packet(family, "udp", target, source, VXLAN_PORT, device_out=facts.underlay_device)
    yield _way("firewall.tunnels_in", inward, INWARD, chains, "other hosts' tunnels do not come in")
    yield _way("firewall.tunnels_out", outward, OUTWARD, chains, "this host's tunnels do not get out")
    yield _forward(facts, chains)
    yield _bridged(chains)
    yield _managers(chains)


def others_of(chains: Iterable[Chain]) -> list[Chain]:
    return [chain for chain in chains if not (chain.table == TABLE and chain.family in FAMILIES)]


def _way(id_: str, packet: Packet, hooks: Hooks, chains: Sequence[Chain], why: str) -> Check:
    found = [(drop, hook) for layer, hook in hooks for drop in drops(packet, layer, hook, chains)]
    drop = first([drop for drop, _ in found])
    if drop is None:
        return ok(id_, f"UDP port {VXLAN_PORT} passes")
    where, mend = f"{_place(drop)}: {drop.rule}", _mend(drop)
    if drop.is_certain:
        return fail(id_, f"dropped by {where}", why, mend)
    hint = f"try it: kvnet connectivity test --hosts-only; {mend}"
    return warn(id_, f"perhaps dropped by {where}", f"if so, {why}", hint)


def _place(drop: Drop) -> str:
    """As an operator would look for it."""
    base = drop.base
    where = f"{base.program} -t" if base.program else base.family
    return f"{where} {base.table} {drop.chain}"


def _mend(drop: Drop) -> str:
    base, place = drop.base, _place(drop)
    if "firewalld" in place:
        return FIREWALLD.format(zone="public", what=f"--add-port={VXLAN_PORT}/udp")
    if "ufw" in place:
        direction = "allow out" if base.hook in [hook for _, hook in OUTWARD] else "allow"
        return f"ufw {direction} {VXLAN_PORT}/udp"
    if base.program:
        return f"{base.program} -t {base.table} -I {drop.chain} -p udp --dport {VXLAN_PORT} -j ACCEPT"
    return f"nft insert rule {place} udp dport {VXLAN_PORT} accept"


def _forward(facts: FirewallFacts, chains: Sequence[Chain]) -> Check:
    """What kvnet admits bears its mark when others' chains see it."""
    why = "what workloads send beyond their host's network is dropped"
    for family in (4, 6):
        source, target = SOMEBODY[family]
        packet = Packet(family, "tcp", source, target, 80, BRIDGE, facts.underlay_device or "eth0")
        drop = first(drops(packet, "ip", "forward", chains, MARK))
        if drop is None:
            continue
        where = f"{_place(drop)}: {drop.rule}"
        if not drop.is_certain:
            return warn("firewall.forward", f"perhaps dropped by {where}", f"if so, {why}", _mend_forward(drop))
        if drop.base.program and not (facts.has_networks and facts.has_worker):
            told = f"{where}; the worker adds its one rule there as soon as a network needs it"
            return ok("firewall.forward", told)
        return fail("firewall.forward", f"dropped by {where}", why, _mend_forward(drop))
    return ok("firewall.forward", "what kvnet admits is forwarded")


def _bridged(chains: Sequence[Chain]) -> Check:
    """What goes from workload to workload inside a network, as a frame of any two addresses."""
    for family in (4, 6):
        source, target = SOMEBODY[family]
        packet = Packet(family, "tcp", source, target, 80, f"{VETH_PREFIX}{NOBODY}", f"{VXLAN_PREFIX}{NOBODY}")
        drop = first(drops(packet, "bridge", "forward", chains))
        if drop is not None:
            where, why = f"{_place(drop)}: {drop.rule}", "what workloads of one network send each other is dropped"
            mend = f"nft insert rule {_place(drop)} iifname 'kv*' accept"
            if drop.is_certain:
                return fail("firewall.bridged", f"dropped by {where}", why, mend)
            return warn("firewall.bridged", f"perhaps dropped by {where}", f"if so, {why}", mend)
    return ok("firewall.bridged", "frames inside networks pass")


def _mend_forward(drop: Drop) -> str:
    place = _place(drop)
    if "firewalld" in place:
        return FIREWALLD.format(zone="trusted", what="--add-interface=kv+")
    if drop.base.program:
        return f"{drop.base.program} -A FORWARD -m mark --mark {MARK:#x}/{MARK:#x} -m comment --comment kvnet -j ACCEPT"
    return f"nft insert rule {place} meta mark and {MARK:#x} == {MARK:#x} accept"


def _managers(chains: Sequence[Chain]) -> Check:
    tables = {(chain.family, chain.table) for chain in chains if not chain.program}
    names = {chain.name for chain in chains}
    found = ["firewalld"] if any("firewalld" in table for _, table in tables) else []
    found += [name for word, name in (("ufw", "ufw"), ("DOCKER", "docker")) if any(word in chain for chain in names)]
    others = sorted(f"{f} {t}" for f, t in tables if "firewalld" not in t)
    told = "; ".join(filter(None, [", ".join(found), f"tables: {', '.join(others)}" if others else ""]))
    return ok("firewall.others", told or "no other firewall has rules here")
