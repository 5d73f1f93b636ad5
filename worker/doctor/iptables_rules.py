"""Reads what `iptables -S` prints into `worker.doctor.ruleset`. Pure; what is not known is an unknown condition."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from worker.doctor.ruleset import Chain, Condition, Packet, Rule, Table, is_device, lies_within, unknown

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
ACTIONS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
WITHOUT_MEANING = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "CHECKSUM", "TRACE"})
SKIPPED = frozenset({"-m", "--match", "--comment", "--reject-with"})


def read(name: str, family: int, text: str) -> Table:
    """`name`: as an operator would look for it, such as "iptables filter"."""
    table = Table(name, frozenset({family}))
    for line in text.splitlines():
        words = _words(line)
        if len(words) < 2:
            continue
        if words[0] in ("-P", "-N"):
            chain = table.chains.setdefault(words[1], Chain(f"{name} {words[1]}"))
            if words[0] == "-P":
                chain.hook, chain.policy = HOOKS.get(words[1], ""), words[2].lower() if len(words) > 2 else "accept"
        elif words[0] == "-A":
            table.chains.setdefault(words[1], Chain(f"{name} {words[1]}")).rules.append(_rule(words[2:]))
    return table


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _rule(words: list[str]) -> Rule:
    conditions: list[Condition] = []
    action = target = ""
    for is_not, option, values in _options(words):
        if option in ("-j", "-g"):
            target = values[0] if values else ""
            action = ACTIONS.get(target, "" if target in WITHOUT_MEANING else "jump" if option == "-j" else "goto")
            continue
        if option in SKIPPED:
            continue
        conditions.append(_negated(_condition(option, values)) if is_not else _condition(option, values))
    return Rule(tuple(conditions), action, target, " ".join(words))


def _options(words: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """(negated, option, its values)."""
    is_not, place = False, 0
    while place < len(words):
        if words[place] == "!":
            is_not, place = True, place + 1
            continue
        option, place = words[place], place + 1
        values = []
        while place < len(words) and not words[place].startswith("-") and words[place] != "!":
            values.append(words[place])
            place += 1
        yield is_not, option, values
        is_not = False


def _condition(option: str, values: list[str]) -> Condition:
    value = values[0] if values else ""
    found: dict[str, Condition] = {
        "-p": lambda p: value in ("all", p.protocol),
        "-s": lambda p: lies_within(p.source, value),
        "-d": lambda p: lies_within(p.target, value),
        "-i": lambda p: is_device(value, p.coming),
        "-o": lambda p: is_device(value, p.leaving),
        "--dport": lambda p: _is_port(p, value),
        "--dports": lambda p: any(_is_port(p, one) for one in value.split(",")),
        "--ctstate": lambda p: "NEW" in value.split(","),
        "--state": lambda p: "NEW" in value.split(","),
        "--mark": lambda p: _is_mark(p, value),
    }
    return found.get(option, unknown)


def _is_port(packet: Packet, value: str) -> bool:
    low, _, high = value.partition(":")
    return low.isdigit() and int(low) <= packet.port <= int(high or low)


def _is_mark(packet: Packet, value: str) -> bool | None:
    wanted, _, mask = value.partition("/")
    try:
        return packet.mark & int(mask or "0xffffffff", 0) == int(wanted, 0)
    except ValueError:
        return None


def _negated(condition: Condition) -> Condition:
    def is_not(packet: Packet) -> bool | None:
        found = condition(packet)
        return None if found is None else not found

    return is_not
