"""Whether firewalls of others let through what kvnet needs: the tunnels' port in and out, and what is forwarded.

Pure. Judges by walking the rules with the packets in question; what a rule asks that is not understood makes a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

from datapath.objects import BRIDGE_PREFIX, VXLAN_PORT
from worker.doctor import iptables_rules, nft_rules
from worker.doctor.facts import FirewallFacts
from worker.doctor.report import Check, fail, ok, unknown, warn
from worker.doctor.ruleset import Fate, Outcome, Packet, Table, fate_of
from worker.kernel.rules import MARK, TABLE

INWARD, OUTWARD = ("ingress", "prerouting", "input"), ("output", "postrouting")
FIREWALLD = "firewall-cmd --permanent --zone={zone} {what}; firewall-cmd --reload"
BRIDGE = f"{BRIDGE_PREFIX}000000000000"
# A workload and a machine in the world, by IP version: no site's rules are about these.
SOMEBODY = {4: ("10.255.254.2", "203.0.113.1"), 6: ("fd00:ffff::2", "2600::1")}
OWN_TABLES = (f"inet {TABLE}", f"bridge {TABLE}")


def check_firewall(facts: FirewallFacts, family: int, source: str = "", target: str = "") -> Iterator[Check]:
    """`source`: a peer's address, `target`: our own, as far as they are known."""
    if facts.nft is None:
        yield unknown(
            "firewall.rules", facts.problem or "the rules cannot be read", "run it as root: sudo kvnet doctor"
        )
        return
    tables = tables_of(facts)
    inward = Packet(family, "udp", source, target, VXLAN_PORT, coming=facts.underlay_device)
    outward = Packet(family, "udp", target, source, VXLAN_PORT, leaving=facts.underlay_device)
    yield _way("firewall.tunnels_in", inward, INWARD, tables, "other hosts' tunnels do not come in")
    yield _way("firewall.tunnels_out", outward, OUTWARD, tables, "this host's tunnels do not get out")
    yield _forward(facts, tables)
    yield _managers(tables)


def tables_of(facts: FirewallFacts) -> list[Table]:
    """Others' tables. Those of iptables-nft come from iptables itself, which understands its own rules best."""
    tables = nft_rules.read(facts.nft or {}, without=(*OWN_TABLES, *(name.partition("/")[0] for name in facts.xtables)))
    for name, text in facts.xtables.items():
        place = name.partition("/")[0]
        family = 6 if place.startswith("ip6 ") else 4
        program = "ip6tables" if family == 6 else "iptables"
        tables.append(iptables_rules.read(f"{program} -t {place.partition(' ')[2]}", family, text))
    for program, text in facts.legacy.items():
        tables.append(iptables_rules.read(f"{program} -t filter", 6 if program.startswith("ip6") else 4, text))
    return tables


def _way(id_: str, packet: Packet, hooks: tuple[str, ...], tables: list[Table], why: str) -> Check:
    perhaps: Outcome | None = None
    for hook in hooks:
        outcome = fate_of(packet, hook, tables)
        if outcome.fate is Fate.DROP:
            return fail(id_, f"dropped by {outcome.place}: {outcome.rule}", why, _mend(outcome, hook))
        if outcome.fate is Fate.PERHAPS:
            perhaps = perhaps or outcome
    if perhaps is not None:
        found = f"perhaps dropped by {perhaps.place}: {perhaps.rule}"
        return warn(
            id_, found, f"if so, {why}", f"try it: kvnet connectivity test --hosts-only; {_mend(perhaps, hooks[-1])}"
        )
    return ok(id_, f"UDP port {VXLAN_PORT} passes")


def _mend(outcome: Outcome, hook: str) -> str:
    place = outcome.place
    if "firewalld" in place:
        return FIREWALLD.format(zone="public", what=f"--add-port={VXLAN_PORT}/udp")
    if "ufw" in place:
        direction = "allow" if hook in INWARD else "allow out"
        return f"ufw {direction} {VXLAN_PORT}/udp"
    if place.startswith(("iptables", "ip6tables")):
        program, _, chain = place.partition(" -t ")
        return f"{program} -t {chain.split()[0]} -I {chain.split()[-1]} -p udp --dport {VXLAN_PORT} -j ACCEPT"
    return f"nft insert rule {place} udp dport {VXLAN_PORT} accept"


def _forward(facts: FirewallFacts, tables: list[Table]) -> Check:
    """What kvnet admits bears its mark when others' chains see it."""
    why = "what workloads send beyond their host's network is dropped"
    for family in (4, 6):
        source, target = SOMEBODY[family]
        packet = Packet(family, "tcp", source, target, 80, BRIDGE, facts.underlay_device or "eth0", MARK)
        outcome = fate_of(packet, "forward", tables)
        if outcome.fate is Fate.ACCEPT:
            continue
        is_gate = outcome.place.startswith(("iptables", "ip6tables"))
        found = f"dropped by {outcome.place}: {outcome.rule}"
        if outcome.fate is Fate.PERHAPS:
            return warn("firewall.forward", f"perhaps {found}", f"if so, {why}", _mend_forward(outcome))
        if is_gate and not (facts.has_networks and facts.has_worker):
            told = f"{outcome.place}: {outcome.rule}; the worker adds its one rule there as soon as a network needs it"
            return ok("firewall.forward", told)
        return fail("firewall.forward", found, why, _mend_forward(outcome))
    return ok("firewall.forward", "what kvnet admits is forwarded")


def _mend_forward(outcome: Outcome) -> str:
    place = outcome.place
    if "firewalld" in place:
        return FIREWALLD.format(zone="trusted", what="--add-interface=kv+")
    if place.startswith(("iptables", "ip6tables")):
        program = place.partition(" ")[0]
        return f"{program} -A FORWARD -m mark --mark {MARK:#x}/{MARK:#x} -m comment --comment kvnet -j ACCEPT"
    return f"nft insert rule {place} meta mark and {MARK:#x} == {MARK:#x} accept"


def _managers(tables: list[Table]) -> Check:
    names = {table.name for table in tables}
    chains = {chain.place for table in tables for chain in table.chains.values()}
    found = [name for name in ("firewalld",) if any(name in table for table in names)]
    if any("ufw" in place for place in chains):
        found.append("ufw")
    if any("DOCKER" in place for place in chains):
        found.append("docker")
    others = sorted(name for name in names if name.startswith(("inet ", "netdev ")) and "firewalld" not in name)
    told = "; ".join(filter(None, [", ".join(found), f"tables: {', '.join(others)}" if others else ""]))
    return ok("firewall.others", told or "no other firewall has rules here")
