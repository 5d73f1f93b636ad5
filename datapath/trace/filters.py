"""What other programs' rules make of a packet: a small reading of nftables and iptables, in three values.

A condition holds, does not, or is not understood. A drop behind one that is not understood is told as possible, never
as certain; and so is every drop behind an accept that may have let the packet through before. So nothing is claimed
that the rules do not say. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from datapath.trace.seen import Crossing, SeenDrop

T = TypeVar("T")
Condition = Callable[[Crossing], bool | None]  # None: not understood
DEEPEST = 16
LONGEST_TEXT = 300  # of a rule that is told
MOST_STEPS = 20_000  # rules that one packet is held against in one base chain: chains that call chains multiply


class Action(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NOTHING = "nothing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """What a rule does where it applies. `target`: of a jump."""

    action: Action
    target: str = ""


# What a verdict map does with a packet; None where it is not understood.
Choice = Callable[[Crossing], Step | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`text`: as its owner would write it. `choice`: of a verdict map, in place of `step`."""

    text: str
    conditions: tuple[Condition, ...]
    step: Step
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook`: "" of one that is only jumped to. `devices`: of a chain on netdev; empty: not known, or all."""

    family: str
    table: str
    name: str
    hook: str = ""
    priority: int = 0
    is_dropping: bool = False
    rules: Sequence[Rule] = ()
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class Verdict:
    """Of one base chain: what became of the packet, by which rule. `doubts`: rules that may have dropped it.

    `may_be_accepted`: by a rule that is not understood; nothing behind that is certain. `left`: how many rules are
    looked at yet; what comes after that is in doubt.
    """

    is_dropped: bool = False
    rule: str = ""
    chain: str = ""
    doubts: list[tuple[str, str]] = field(default_factory=list)
    may_be_accepted: bool = False
    left: int = MOST_STEPS

    def has_another(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def note(self, action: Action, chain: str, rule: str, *, is_certain: bool) -> None:
        """A rule that applies (`is_certain`), or may."""
        if action is Action.DROP and is_certain:
            self.drop(chain, rule)
        elif action is Action.DROP:
            self.doubts.append((chain, rule))
        elif action is Action.ACCEPT and not is_certain:
            self.may_be_accepted = True

    def drop(self, chain: str, rule: str) -> None:
        """It ends here, if it came so far."""
        self.is_dropped, self.chain, self.rule = True, chain, rule
        self.doubts = [(chain, rule)] if self.may_be_accepted else []


FAMILIES: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    "ip": {4: ("ip", "inet"), 6: ("ip6", "inet")},
    "bridge": {4: ("bridge",), 6: ("bridge",)},
}
MARKED_FROM = -10  # kvnet's own chain on the forward hook: what it admits bears the mark from there on


def drops(crossing: Crossing, chains: Sequence[Chain], mark: int = 0) -> list[SeenDrop]:
    """Of every base chain on the packet's hook: a certain drop, or the first possible one.

    `mark`: what it bears from kvnet's own chain on.
    """
    version = 6 if ":" in crossing.destination else 4
    families = FAMILIES.get(crossing.layer, {}).get(version, ("netdev", "inet"))  # inet has the hook ingress, too
    tables: dict[tuple[str, str], dict[str, Chain]] = {(chain.family, chain.table): {} for chain in chains}
    for chain in chains:
        tables[chain.family, chain.table][chain.name] = chain
    found = []
    for base in chains:
        if base.family not in families or base.hook != crossing.hook or not _is_on(base, crossing):
            continue
        is_behind = crossing.hook != "forward" or base.priority > MARKED_FROM
        packet = _marked(crossing, mark) if mark and is_behind else crossing
        verdict = judge(packet, base, tables[base.family, base.table])
        if verdict.is_dropped:
            found.append(_told(crossing, base, verdict.chain, verdict.rule, is_certain=not verdict.doubts))
        elif verdict.doubts:
            where, rule = verdict.doubts[0]
            found.append(_told(crossing, base, where, rule, is_certain=False))
    return found


def judge(packet: Crossing, base: Chain, chains: Mapping[str, Chain]) -> Verdict:
    verdict = Verdict()
    end = _through(packet, base, chains, verdict, 0, is_certain=True)
    if verdict.left < 0:
        return Verdict(doubts=[(base.name, "it has more rules than are looked at")])
    if end is None and base.is_dropping:
        verdict.drop(base.name, "policy drop")
    return verdict


def _through(
    packet: Crossing, chain: Chain, chains: Mapping[str, Chain], verdict: Verdict, depth: int, *, is_certain: bool
) -> Action | None:
    """ACCEPT or DROP where that is the end for certain; None where the packet goes on behind the chain, or may."""
    for rule in chain.rules:
        if not verdict.has_another():
            return None
        holds = applies(rule, packet)
        if holds is False:
            continue
        step = rule.step if rule.choice is None else _understood(rule.choice, packet)
        if step is None or step.action is Action.UNKNOWN:
            verdict.may_be_accepted = True
            continue
        sure = is_certain and holds is True
        if step.action in (Action.JUMP, Action.GOTO):
            target = chains.get(step.target)
            end = None
            if target is not None and depth < DEEPEST:
                end = _through(packet, target, chains, verdict, depth + 1, is_certain=sure)
            if end is not None:
                return end
        else:
            verdict.note(step.action, chain.name, rule.text, is_certain=sure)
        if step.action in (Action.JUMP, Action.NOTHING):
            continue
        if holds is True:
            return step.action if sure and step.action in (Action.ACCEPT, Action.DROP) else None
        is_certain = is_certain and step.action in (Action.ACCEPT, Action.DROP)  # else it may have left the chain
    return None


def applies(rule: Rule, packet: Crossing) -> bool | None:
    result: bool | None = True
    for condition in rule.conditions:
        holds = _understood(condition, packet)
        if holds is False:
            return False
        result = None if holds is None else result
    return result


def _understood(condition: Callable[[Crossing], T | None], packet: Crossing) -> T | None:
    """None also where the rule is of a shape that nobody expected: another version's, another program's."""
    try:
        return condition(packet)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, StopIteration):
        return None


def _is_on(base: Chain, crossing: Crossing) -> bool:
    if crossing.layer != "netdev":
        return True
    return not base.devices or crossing.device_in in base.devices or crossing.device_out in base.devices


def _marked(crossing: Crossing, mark: int) -> Crossing:
    return replace(crossing, mark=crossing.mark | mark)


def _told(crossing: Crossing, base: Chain, chain: str, rule: str, *, is_certain: bool) -> SeenDrop:
    return SeenDrop(crossing.name, base.family, base.table, chain, rule[:LONGEST_TEXT], is_certain)
