"""Reads `iptables-save`: the filter, mangle, raw and security tables of both flavours as conditions on a packet. Pure.

What a match of an extension asks is understood for the common ones; any other leaves its rule in doubt.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from datapath.rules.ruleset import UNKNOWN, Action, Chain, Condition, Field, Name, Rule, Span, Step, Wanted
from datapath.rules.targets import TARGETS_THAT_DECIDE, TARGETS_WITHOUT_MEANING
from datapath.rules.values import SHAPES, asked, block, device, one

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
MATCHES = frozenset({"comment", "tcp", "udp", "mark", "conntrack", "state", "multiport", "icmp", "icmp6"})
ICMP_TYPES = {
    "--icmp-type": {"0": "echo-reply", "8": "echo-request"},
    "--icmpv6-type": {"129": "echo-reply", "128": "echo-request"},
}
FULL_MARK = 0xFFFFFFFF


def chains_of(text: str, family: str, program: str) -> list[Chain]:
    """`program`: of the iptables family, by which people see and change these.

    Raises:
        SHAPES: it is not what iptables-save prints.
    """
    found: list[Chain] = []
    table, policies, rules = "", {}, {}  # type: tuple[str, dict[str, str], dict[str, list[Rule]]]
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy
        elif line.startswith("-A "):
            words = _words(line)
            rules.setdefault(words[1], []).append(_rule(line, words[2:]))
        elif line.startswith("COMMIT") and table in PRIORITIES:
            for name, policy in policies.items():
                hook = HOOKS.get(name, "") if policy != "-" else ""
                own = tuple(rules.get(name, ()))
                is_dropping = policy == "DROP"
                found.append(Chain(family, table, name, hook, PRIORITIES[table], is_dropping, own, program=program))
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _rule(line: str, words: list[str]) -> Rule:
    step = Step(Action.NOTHING)
    conditions: list[Condition] = []
    for name, value, is_not in _options(words):
        if name in ("-j", "-g"):  # what follows is the target's
            step = _step(name, value)
            break
        if name == "-m":
            conditions += () if value in MATCHES else (UNKNOWN,)
        elif name != "--comment":
            conditions.append(_understood(name, value, is_not=is_not))
    return Rule(line, tuple(conditions), step)


def _options(words: list[str]) -> Iterator[tuple[str, str, bool]]:
    """(option, its value, is it negated)"""
    place, is_not = 0, False
    while place < len(words):
        word = words[place]
        place += 1
        if word == "!":
            is_not = True
            continue
        values = []
        if word == "--comment":  # which may say anything
            values, place = words[place : place + 1], place + 1
        while place < len(words) and not words[place].startswith("-") and words[place] != "!":
            values.append(words[place])
            place += 1
        yield word, " ".join(values), is_not
        is_not = False


def _step(name: str, target: str) -> Step:
    if target in TARGETS_THAT_DECIDE:
        return Step(TARGETS_THAT_DECIDE[target])
    if target in TARGETS_WITHOUT_MEANING:
        return Step(Action.NOTHING)
    return Step(Action.GOTO if name == "-g" else Action.JUMP, target)


def _understood(name: str, value: str, *, is_not: bool) -> Condition:
    try:
        return _condition(name, value, is_not=is_not)
    except SHAPES:
        return UNKNOWN


def _condition(name: str, value: str, *, is_not: bool) -> Condition:
    match name:
        case "-s" | "-d":
            return asked(Field.SOURCE if name == "-s" else Field.DESTINATION, block(value), is_not=is_not)
        case "-i" | "-o":
            field = Field.DEVICE_IN if name == "-i" else Field.DEVICE_OUT
            return asked(field, device(value, "+"), is_not=is_not)
        case "-p" if value != "all":
            return asked(Field.PROTOCOL, one(Field.PROTOCOL, value), is_not=is_not)
        case "--dport" | "--dports":
            return asked(Field.PORT, *map(_ports, value.split(",")), is_not=is_not)
        case "--icmp-type" | "--icmpv6-type" if value.isdigit():
            return asked(Field.ICMP_TYPE, Name(ICMP_TYPES[name].get(value, value)), is_not=is_not)
        case "--mark":
            wanted, _, mask = value.partition("/")
            number = int(wanted, 0)
            return asked(Field.MARK, Span(number, number), mask=int(mask, 0) if mask else FULL_MARK, is_not=is_not)
        case "--ctstate" | "--state":
            states = (one(Field.STATE, state.lower()) for state in value.split(","))
            return asked(Field.STATE, *states, is_not=is_not)
    return UNKNOWN


def _ports(text: str) -> Wanted:
    low, _, high = text.partition(":")
    return Span(int(low), int(high or low))
