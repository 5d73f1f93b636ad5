"""Reads `nft -j list table` (or `list ruleset`): chains, and rules as conditions on a packet. Pure.

What is not understood stays so, whatever shape it has: another version of nft may have words that nobody knows here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datapath.rules.nft_match import Sets, choice, conditions_of
from datapath.rules.nft_text import shown
from datapath.rules.ruleset import UNKNOWN, Action, Chain, Choice, Condition, Rule, Step
from datapath.rules.targets import TARGETS_WITHOUT_MEANING
from datapath.rules.values import SHAPES, named

VERDICTS = {
    "accept": Action.ACCEPT,
    "drop": Action.DROP,
    "reject": Action.DROP,
    "return": Action.RETURN,
    "continue": Action.NOTHING,
    "jump": Action.JUMP,
    "goto": Action.GOTO,
    # A translated packet goes on, as another one.
    "dnat": Action.ACCEPT,
    "snat": Action.ACCEPT,
    "masquerade": Action.ACCEPT,
    "redirect": Action.ACCEPT,
}
# Statements that do nothing to a packet's fate.
WITHOUT_MEANING = frozenset(
    {"counter", "comment", "log", "mangle", "notrack", "ct timeout", "ct helper", "ct expectation", "secmark"}
    | {"flow", "last", "dup"}
)
# They may end the rule, and do no more than that.
LIMITING = frozenset({"limit", "quota", "ct count", "connlimit"})
Texts = Mapping[tuple[str, int], str]


def chains_of(listing: Mapping[str, Any], texts: Texts | None = None) -> list[Chain]:
    """`texts`: of the rules of this one table, by chain and handle, as nft spells them.

    Raises:
        SHAPES: it is not what nft prints.
    """
    entries = [pair for item in listing.get("nftables", ()) if isinstance(item, dict) for pair in item.items()]
    sets: dict[tuple[str, str], dict[str, Sequence[Any]]] = {}
    for kind, body in entries:
        if kind in ("set", "map"):
            sets.setdefault(_table(body), {})[body["name"]] = body.get("elem", ())
    known = {table: Sets(elements) for table, elements in sets.items()}
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for kind, body in entries:
        if kind == "rule":
            text = (texts or {}).get((body["chain"], body.get("handle", 0)), "")
            rule = _rule(body.get("expr", ()), text, known.setdefault(_table(body), Sets({})))
            rules.setdefault((*_table(body), body["chain"]), []).append(rule)
    return [_chain(body, rules.get((*_table(body), body["name"]), ())) for kind, body in entries if kind == "chain"]


def _table(body: Mapping[str, Any]) -> tuple[str, str]:
    return body["family"], body["table"]


def _chain(found: Mapping[str, Any], rules: Sequence[Rule]) -> Chain:
    devices, priority = found.get("dev", ()), found.get("prio", 0)
    return Chain(
        found["family"],
        found["table"],
        found["name"],
        hook=found.get("hook", ""),
        priority=priority if isinstance(priority, int) else 0,
        is_dropping=found.get("policy") == "drop",
        rules=tuple(rules),
        devices=(devices,) if isinstance(devices, str) else tuple(devices),
        is_nat=found.get("type") == "nat",
    )


def _rule(expressions: Sequence[Any], text: str, sets: Sets) -> Rule:
    conditions: list[Condition] = []
    step, chosen = Step(Action.NOTHING), None
    for expression in expressions:
        name, body = named(expression) if expression and isinstance(expression, dict) else ("", None)
        if name == "vmap":
            more, chosen = _chosen(body, sets)
            conditions += more
        elif name in VERDICTS:
            step = _step(name, body)
        elif name == "match":
            conditions += _understood(body, sets)
        elif name == "xt":
            more, step = _of_iptables(body, step)
            conditions += more
        elif name in LIMITING or (name in ("set", "map") and isinstance(body, dict) and body.get("stmt")):
            conditions.append(UNKNOWN)
        elif name not in WITHOUT_MEANING and name not in ("set", "map"):
            conditions.append(UNKNOWN)
            step = Step(Action.UNKNOWN)
    return Rule(text or shown(expressions), tuple(conditions), step, chosen)


def _step(name: str, body: Any) -> Step:
    return Step(VERDICTS[name], str(body.get("target", "")) if name in ("jump", "goto") and body else "")


def _understood(body: Any, sets: Sets) -> Sequence[Condition]:
    try:
        return conditions_of(body, sets)
    except SHAPES:
        return (UNKNOWN,)


def _chosen(body: Any, sets: Sets) -> tuple[Sequence[Condition], Choice]:
    try:
        conditions, keys, pairs = choice(body, sets)
        return conditions, Choice(keys, tuple((wanted, verdict) for wanted, verdict in _verdicts(pairs)))
    except SHAPES:
        return (UNKNOWN,), Choice((), (((), Step(Action.UNKNOWN)),))


def _verdicts(pairs: Sequence[tuple[Any, Any]]) -> Iterator[tuple[Any, Step]]:
    for wanted, verdict in pairs:
        name, body = named(verdict)
        yield wanted, _step(name, body) if name in VERDICTS else Step(Action.UNKNOWN)


def _of_iptables(body: Any, step: Step) -> tuple[Sequence[Condition], Step]:
    """What a rule of iptables asks or does, of which nft knows the name alone."""
    kind, name = (body.get("type"), body.get("name")) if isinstance(body, dict) else (None, None)
    if kind == "match":
        return () if name == "comment" else (UNKNOWN,), step
    if kind == "target" and (name == "REJECT" or name in TARGETS_WITHOUT_MEANING):
        return (), Step(Action.DROP) if name == "REJECT" else step
    return (UNKNOWN,), Step(Action.UNKNOWN)
