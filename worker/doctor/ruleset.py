"""What a host's firewalls would do with one packet: rules of nftables and iptables as data, and a walk through them.

Pure, and careful: a condition that is not understood is neither met nor not, so a verdict may be "perhaps". Good enough
to name the rule that drops, not to prove that none does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Any

MAX_DEPTH = 16
MAX_RULES = 50_000  # that one packet meets in one chain and what that jumps to: jumps multiply
ENDING = frozenset({"accept", "drop", "reject"})


@dataclass(frozen=True, slots=True)
class Packet:
    """A first packet: no connection is known of it. `protocol`: udp, tcp, icmp."""

    family: int
    protocol: str
    source: str = ""
    target: str = ""
    port: int = 0
    coming: str = ""
    leaving: str = ""
    mark: int = 0


Condition = Callable[[Packet], bool | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`action`: accept, drop, reject, return, jump, goto, or "" where it only counts. `choose`: of a verdict map."""

    conditions: tuple[Condition, ...]
    action: str
    target: str = ""
    text: str = ""
    choose: Callable[[Packet], tuple[str, str] | None] | None = None


@dataclass(slots=True)
class Chain:
    """`hook` "" = no base chain. `place`: as an operator would look for it."""

    place: str
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    kind: str = "filter"
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """`families`: IP versions whose packets it sees."""

    name: str
    families: frozenset[int]
    chains: dict[str, Chain] = field(default_factory=dict)


class Fate(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    PERHAPS = "perhaps"


@dataclass(frozen=True, slots=True)
class Outcome:
    fate: Fate
    place: str = ""
    rule: str = ""


def fate_of(packet: Packet, hook: str, tables: Sequence[Table]) -> Outcome:
    """A drop anywhere is final; an accept ends one chain only."""
    perhaps: Outcome | None = None
    for table in tables:
        if packet.family not in table.families:
            continue
        for chain in sorted(table.chains.values(), key=lambda c: c.priority):
            if chain.hook != hook or chain.kind != "filter":
                continue
            outcome = _walk(packet, table, chain)
            if outcome.fate is Fate.DROP:
                return outcome
            if outcome.fate is Fate.PERHAPS:
                perhaps = perhaps or outcome
    return perhaps or Outcome(Fate.ACCEPT)


@dataclass(slots=True)
class _Doubt:
    drop: Outcome | None = None
    accept: bool = False
    met: int = 0


def _walk(packet: Packet, table: Table, base: Chain) -> Outcome:
    doubt = _Doubt()
    action, place, rule = _through(packet, table, base, doubt, 0)
    if action == "":
        action, place, rule = base.policy, base.place, f"policy {base.policy}"
    if action in ("drop", "reject"):
        return Outcome(Fate.PERHAPS if doubt.accept else Fate.DROP, place, rule)
    return doubt.drop or Outcome(Fate.ACCEPT)


def _through(packet: Packet, table: Table, chain: Chain, doubt: _Doubt, depth: int) -> tuple[str, str, str]:
    """The action that ends it, where, and by which rule; "" = it went through to the end."""
    if depth > MAX_DEPTH:
        return "", "", ""
    for rule in chain.rules:
        doubt.met += 1
        if doubt.met > MAX_RULES:
            doubt.drop = doubt.drop or Outcome(Fate.PERHAPS, chain.place, f"more than {MAX_RULES} rules")
            return "accept", chain.place, ""
        is_met = _all(condition(packet) for condition in rule.conditions)
        if is_met is False:
            continue
        action, target = rule.action, rule.target
        if rule.choose is not None:
            action, target = rule.choose(packet) or ("", "")
        if is_met is None:
            _note(packet, table, chain, rule, action, target, doubt, depth)
            continue
        if action in ENDING:
            return action, chain.place, rule.text
        if action == "return":
            return "", "", ""
        if action in ("jump", "goto") and target in table.chains:
            found = _through(packet, table, table.chains[target], doubt, depth + 1)
            if found[0] or action == "goto":
                return found
    return "", "", ""


def _note(
    packet: Packet, table: Table, chain: Chain, rule: Rule, action: str, target: str, doubt: _Doubt, depth: int
) -> None:
    """A rule of which nobody knows whether it is met."""
    place, text = chain.place, rule.text
    if action in ("jump", "goto") and target in table.chains:
        action, place, text = _through(packet, table, table.chains[target], doubt, depth + 1)
    if action in ("drop", "reject") and doubt.drop is None:
        doubt.drop = Outcome(Fate.PERHAPS, place, text)
    elif action in ("accept", "return"):
        doubt.accept = True


def _all(results: Iterator[bool | None]) -> bool | None:
    found: bool | None = True
    for result in results:
        if result is False:
            return False
        if result is None:
            found = None
    return found


def is_device(pattern: str, name: str) -> bool:
    for star in ("*", "+"):
        if pattern.endswith(star):
            return name.startswith(pattern[:-1])
    return pattern == name


def lies_within(address: str, block: str) -> bool | None:
    """None where either is no address, or nothing is known of it."""
    if not address:
        return None
    try:
        return ip_address(address) in ip_network(block, strict=False)
    except ValueError:
        return None


def unknown(_: Packet) -> bool | None:
    return None


Json = Mapping[str, Any]
