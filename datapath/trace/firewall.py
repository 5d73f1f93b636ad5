"""Hops that are firewalls: what kvnet's own tables know of the pair, and what other programs' rules do to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from datapath.objects import NO_FIREWALL, Firewall, Ip, Publication
from datapath.packing import contains
from datapath.trace.case import Case, is_macvlan
from datapath.trace.hop import Draft, Hop, Side, Weight, mended
from datapath.words import firewall_changes

DROPS_IF_MISSING = frozenset({"pairs", "within"})
DROPS_IF_THERE = frozenset({"isolated", "internal", "apart"})
OWN_TABLE, OWN_FAMILIES = "kvnet", ("inet", "bridge")
INSIDE = ("inside-in", "inside-out")
LIMIT = 8


def relevant(firewall: Firewall, devices: Collection[str], addresses: Collection[Ip]) -> tuple[str, ...]:
    """The elements of our sets that are about these, as "set: element"."""
    kept = {name: frozenset(_kept(getattr(firewall, name), devices, addresses)) for name in SETS}
    return tuple(f"{name}: {text}" for _, name, text in firewall_changes(Firewall(**kept), NO_FIREWALL))


SETS = ("bridges", "internal", "isolated", "pairs", "within", "blocks", "publications", "vxlans", "apart")


def _kept(elements: Collection[Any], devices: Collection[str], addresses: Collection[Ip]) -> Iterator[Any]:
    for element in elements:
        match element:
            case Publication():
                is_about = element.to in addresses
            case str():
                is_about = element in devices
            case (str() as one, str() as other):
                is_about = one in devices and other in devices
            case (str() as device, (bytes() as block, int() as length)):
                is_about = device in devices and any(contains(block, length, ip) for ip in addresses)
            case (bytes() as block, int() as length):
                is_about = any(contains(block, length, ip) for ip in addresses)
            case _:
                is_about = False
        if is_about:
            yield element


def own(side: Side, devices: Collection[str]) -> Hop | None:
    """None for networks that kvnet's firewall does not judge."""
    case, firewall = side.case, side.wanted.firewall
    if firewall is None or all(is_macvlan(network) for network in case.own_networks):
        return None
    draft = Draft(side, "firewall", "inet kvnet, bridge kvnet")
    wanted = relevant(firewall, devices, [case.a.address.packed, case.b.address.packed])
    draft.expect(f"{len(wanted)} elements about the pair" if wanted else "nothing about the pair")
    if side.sight is None:
        return draft.hop()
    held = side.sight.rules
    if held is None:
        draft.see("missing or altered")
        reason = (
            "kvnet's tables are not as kvnet makes them: what they would admit bears no mark, nothing is masqueraded"
        )
        draft.differ(
            "tables-damaged", "tables", "as kvnet makes them", "missing or altered", reason, mended(side), Weight.NOTE
        )
        return draft.hop()
    missing, extra = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    draft.see("the same" if not missing and not extra else f"{len(missing)} missing, {len(extra)} too many")
    for element in missing[:LIMIT]:
        is_ending = element.partition(":")[0] in DROPS_IF_MISSING
        reason = (
            "so the pair is not admitted" if is_ending else "so what passes there is not judged and marked as it should"
        )
        weight = Weight.BREAKS if is_ending else Weight.NOTE
        draft.differ("element-missing", "set", element, "not there", reason, mended(side), weight)
    for element in extra[:LIMIT]:
        is_ending = element.partition(":")[0] in DROPS_IF_THERE
        reason = "so the pair is kept apart" if is_ending else "somebody put it there"
        weight = Weight.BREAKS if is_ending else Weight.NOTE
        draft.differ("element-extra", "set", "not there", element, reason, mended(side), weight)
    return draft.hop()


def others(side: Side) -> Hop:
    """What other programs' rules do to the pair's packets on this host, and to the tunnel's between the two."""
    draft = Draft(side, "other firewalls", "nftables, iptables")
    draft.expect("none drops it")
    if side.sight is None:
        return draft.hop()
    found = [drop for drop in side.sight.drops if drop.crossing.partition("/")[2] not in INSIDE]
    # Of the same rule for several packets: certain before possible, there before back.
    ordered = sorted(found, key=lambda d: (d.is_certain, d.crossing.startswith("there")))
    distinct = {(d.family, d.table, d.chain, d.rule): d for d in ordered}
    for (family, table, chain, rule), drop in sorted(distinct.items(), key=lambda item: not item[1].is_certain):
        where = f"{family} {table} {chain}"
        what = _words(side.case, drop.crossing)
        if table == OWN_TABLE and family in OWN_FAMILIES:
            reason = f"kvnet's own tables are not as kvnet makes them, and drop {what}"
            weight = Weight.BREAKS if drop.is_certain else Weight.NOTE
            draft.differ("dropped-by-altered", f"chain {where}", "lets it pass", rule, reason, mended(side), weight)
        elif drop.is_certain:
            reason = f"a rule that is not kvnet's drops {what}; no accept of kvnet's can overrule that"
            fix = f"change that rule: nft -a list chain {family} {table} {chain}, on {side.host}"
            draft.differ("dropped-by-others", f"chain {where}", "lets it pass", rule, reason, fix)
        else:
            reason = f"it may drop {what}: not all that it asks for is understood"
            fix = f"look at it: nft -a list chain {family} {table} {chain}, on {side.host}"
            draft.differ("perhaps-dropped", f"chain {where}", "lets it pass", rule, reason, fix, Weight.NOTE)
    draft.see(f"{len(distinct)} may drop it" if distinct else "none drops it")
    return draft.hop()


def _words(case: Case, crossing: str) -> str:
    direction, _, place = crossing.partition("/")
    source, target = (case.a, case.b) if direction == "there" else (case.b, case.a)
    if place.startswith("underlay"):
        return f"the tunnel's packets from {source.host} to {target.host} (UDP 4789)"
    if place == "arp":
        return f"the question of {source.address} whose {target.address} is (ARP)"
    return f"what goes from {source.address} to {target.address}"
