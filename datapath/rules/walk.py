"""Takes a packet through the chains on one hook: which of them drop it, or may, and by which rule.

A drop behind what is not understood is told as possible, never as certain; and so is every drop behind an accept that
may have let the packet through before. So nothing is claimed that the rules do not say. However many rules there are,
it ends: whoever wrote them may want it not to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from datapath.rules.ruleset import Action, Chain, Packet, Rule, Step, Values, found_by, holds, is_among, values_of

DEEPEST = 16
MOST_STEPS = 50_000  # rules that one packet is held against on one hook: chains that call chains multiply
A_STEP = 100  # elements of sets that count as one
FAMILIES: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    "ip": {4: ("ip", "inet"), 6: ("ip6", "inet")},
    "bridge": {4: ("bridge",), 6: ("bridge",)},
    "netdev": {4: ("netdev", "inet"), 6: ("netdev", "inet")},
}
ON_DEVICES = ("ingress", "egress")
MARKED_FROM = -10  # kvnet's own chain on the forward hook: what it admits bears the mark from there on
TOO_MANY = "it has more rules than are looked at"


@dataclass(frozen=True, slots=True)
class Drop:
    """`base`: the chain on the hook. `chain`: the one of the same table that has the rule."""

    base: Chain
    chain: str
    rule: str
    is_certain: bool


def drops(packet: Packet, layer: str, hook: str, chains: Sequence[Chain], mark: int = 0) -> list[Drop]:
    """Of every base chain on that hook, in their order: a certain drop, or the first possible one.

    `layer`: "ip", "bridge" or "netdev". `mark`: what the packet bears from kvnet's own chain on.
    """
    families = FAMILIES.get(layer, {}).get(packet.version, ())
    homes: dict[tuple[str, str, bool], dict[str, Chain]] = {chain.home: {} for chain in chains}
    for chain in chains:
        homes[chain.home][chain.name] = chain
    marked = values_of(replace(packet, mark=packet.mark | mark))
    plain = values_of(packet)
    budget = Budget()
    found = []
    for base in sorted(chains, key=lambda chain: chain.priority):
        if base.family not in families or base.hook != hook or not _sees(base, packet):
            continue
        is_behind = hook != "forward" or base.priority > MARKED_FROM
        drop = _of(base, marked if is_behind else plain, homes[base.home], budget)
        if drop is not None:
            found.append(drop)
        if budget.left < 0:
            break
    return found


def first(found: Sequence[Drop]) -> Drop | None:
    """The one that counts: a certain drop, else a possible one."""
    return next((drop for drop in found if drop.is_certain), next(iter(found), None))


def _sees(base: Chain, packet: Packet) -> bool:
    if base.is_nat and packet.state != "new":
        return False
    if base.hook not in ON_DEVICES or not base.devices:
        return True
    return packet.device_in in base.devices or packet.device_out in base.devices


@dataclass(slots=True)
class Budget:
    left: int = MOST_STEPS

    def has_another(self, elements: int) -> bool:
        self.left -= 1 + elements // A_STEP
        return self.left >= 0


@dataclass(slots=True)
class Verdict:
    """Of one base chain. `doubts`: (chain, rule) that may have dropped the packet.

    `may_be_accepted`: by a rule that is not understood; nothing behind that is certain.
    """

    drop: tuple[str, str] | None = None
    doubts: list[tuple[str, str]] = field(default_factory=list)
    may_be_accepted: bool = False

    def note(self, action: Action, chain: str, rule: str, *, is_certain: bool) -> None:
        """A rule that applies (`is_certain`), or may."""
        if action is Action.DROP and is_certain:
            self.drop = chain, rule
        elif action is Action.DROP and not self.doubts:
            self.doubts.append((chain, rule))
        elif action is Action.ACCEPT and not is_certain:
            self.may_be_accepted = True


def _of(base: Chain, values: Values, chains: Mapping[str, Chain], budget: Budget) -> Drop | None:
    walk = _Walk(values, chains, budget, Verdict())
    end = walk.through(base, 0, is_certain=True)
    verdict = walk.verdict
    if budget.left < 0:
        return Drop(base, base.name, TOO_MANY, is_certain=False)
    if end is None and base.is_dropping:
        verdict.drop = base.name, "policy drop"
    if verdict.drop is not None:
        return Drop(base, *verdict.drop, is_certain=not verdict.may_be_accepted)
    return Drop(base, *verdict.doubts[0], is_certain=False) if verdict.doubts else None


@dataclass(frozen=True, slots=True)
class _Walk:
    values: Values
    chains: Mapping[str, Chain]
    budget: Budget
    verdict: Verdict

    def through(self, chain: Chain, depth: int, *, is_certain: bool) -> Action | None:
        """ACCEPT or DROP where that is the end for certain; None where the packet goes on behind the chain, or may."""
        for rule in chain.rules:
            if not self.budget.has_another(_size(rule)):
                return None
            applies = _applies(rule, self.values)
            if applies is False:
                continue
            steps = list(_steps(rule, self.values))
            is_sure = applies is True and len(steps) == 1
            for step in steps:
                end = self._take(step, chain, rule, depth, is_certain=is_certain and is_sure)
                if end is not None:
                    return end
                if step.action in (Action.JUMP, Action.NOTHING, Action.UNKNOWN):
                    continue
                if is_sure:
                    return None
                # It may have left the chain, and what comes there is in doubt.
                is_certain = is_certain and step.action in (Action.ACCEPT, Action.DROP)
        return None

    def _take(self, step: Step, chain: Chain, rule: Rule, depth: int, *, is_certain: bool) -> Action | None:
        """ACCEPT or DROP where the packet's way ends with it for certain."""
        if step.action in (Action.JUMP, Action.GOTO):
            target = self.chains.get(step.target)
            if target is None or depth >= DEEPEST:
                self.verdict.may_be_accepted = True
                return None
            return self.through(target, depth + 1, is_certain=is_certain)
        if step.action is Action.UNKNOWN:
            self.verdict.may_be_accepted = True
        self.verdict.note(step.action, chain.name, rule.text, is_certain=is_certain)
        return step.action if is_certain and step.action in (Action.ACCEPT, Action.DROP) else None


def _size(rule: Rule) -> int:
    size = sum(len(condition.candidates) for condition in rule.conditions)
    return size + len(rule.choice.pairs) if rule.choice is not None else size


def _applies(rule: Rule, values: Values) -> bool | None:
    result: bool | None = True
    for condition in rule.conditions:
        is_met = holds(condition, values)
        if is_met is False:
            return False
        result = None if is_met is None else result
    return result


def _steps(rule: Rule, values: Values) -> Iterator[Step]:
    """One where it is known what the rule does; else all that it may do."""
    if rule.choice is None:
        yield rule.step
        return
    found = found_by(rule.choice.keys, values)
    possible = {Step(Action.NOTHING): None}
    for candidate, step in rule.choice.pairs:
        is_it = is_among(found, candidate) if rule.choice.keys else None
        if is_it:
            yield step
            return
        if is_it is None:
            possible[step] = None
    yield from possible
