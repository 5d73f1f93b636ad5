"""Reads `iptables-save`: the filter, mangle and raw tables of both flavours as conditions on a packet. Pure.

What a match of an extension asks is understood for the common ones; any other leaves its rule in doubt.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from datapath.trace.filters import Action, Chain, Condition, Rule, Step
from datapath.trace.seen import Crossing

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
TARGETS = {"ACCEPT": Action.ACCEPT, "DROP": Action.DROP, "REJECT": Action.DROP, "RETURN": Action.RETURN}
HARMLESS = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "CHECKSUM", "SET"})
WITHOUT_MEANING = frozenset({"--comment", "--reject-with", "--log-prefix", "--log-level", "--set-xmark", "--set-mark"})
MATCHES = frozenset({"comment", "tcp", "udp", "mark", "conntrack", "state", "multiport"})


def chains_of(text: str, family: str, flavour: str) -> list[Chain]:
    """`flavour`: "nft" or "legacy", which becomes part of the table's name, so that people know where to look."""
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
            shown = table if flavour == "nft" else f"{table} (iptables-legacy)"
            for name, policy in policies.items():
                hook = HOOKS.get(name, "") if policy != "-" else ""
                own = tuple(rules.get(name, ()))
                found.append(Chain(family, shown, name, hook, PRIORITIES[table], policy == "DROP", own))
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
        if name in ("-j", "-g"):
            step = _step(name, value)
        elif name == "-m":
            if value not in MATCHES:
                conditions.append(_unknown)
        elif name not in WITHOUT_MEANING:
            conditions.append(_condition(name, value, is_not=is_not))
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
        while place < len(words) and not words[place].startswith("-") and words[place] != "!":
            values.append(words[place])
            place += 1
        yield word, " ".join(values), is_not
        is_not = False


def _step(name: str, target: str) -> Step:
    if target in TARGETS:
        return Step(TARGETS[target])
    if target in HARMLESS:
        return Step(Action.NOTHING)
    return Step(Action.GOTO if name == "-g" else Action.JUMP, target)


def _unknown(_: Crossing) -> None:
    return None


def _condition(name: str, value: str, *, is_not: bool) -> Condition:
    def holds(packet: Crossing) -> bool | None:
        found = _asked(name, value, packet)
        return found if found is None or not is_not else not found

    return holds


def _asked(name: str, value: str, packet: Crossing) -> bool | None:
    match name:
        case "-s" | "-d":
            address = ip_address(packet.source if name == "-s" else packet.destination)
            block = ip_network(value, strict=False)
            return address.version == block.version and address in block
        case "-i" | "-o":
            device = packet.device_in if name == "-i" else packet.device_out
            return device.startswith(value[:-1]) if value.endswith("+") else device == value
        case "-p":
            own = {"icmp", "ipv6-icmp", "icmp6"} if packet.protocol == "icmp" else {packet.protocol}
            return value == "all" or value in own
        case "--dport" | "--dports":
            return _port(value, packet.port)
        case "--mark":
            return _mark(value, packet.mark)
        case "--ctstate" | "--state":
            return packet.state.upper() in value.split(",")
    return None


def _port(value: str, port: int) -> bool | None:
    if not port:
        return None
    for part in value.split(","):
        first, _, last = part.partition(":")
        if not first.isdigit():
            return None
        if int(first) <= port <= int(last or first):
            return True
    return False


def _mark(value: str, mark: int) -> bool | None:
    wanted, _, mask = value.partition("/")
    try:
        return mark & int(mask or "0xffffffff", 0) == int(wanted, 0)
    except ValueError:
        return None
