"""Reads `nft -j list table`: chains, and rules as conditions on a packet. What is not understood stays so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from datapath.trace.filters import Action, Chain, Choice, Condition, Rule, Step
from datapath.trace.seen import Crossing

VERDICTS = {
    "accept": Action.ACCEPT,
    "drop": Action.DROP,
    "reject": Action.DROP,
    "return": Action.RETURN,
    "continue": Action.NOTHING,
    "jump": Action.JUMP,
    "goto": Action.GOTO,
}
# Statements that do nothing to a packet's fate; of an `xt` match the comment.
HARMLESS = {"counter", "log", "mangle", "notrack", "ct timeout", "ct helper", "ct count", "set", "map", "quota"}
ETHER_TYPES = {4: "ip", 6: "ip6"}
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "icmpv6": 58, "esp": 50, "sctp": 132}
Sets = Mapping[str, Sequence[Any]]


def chains_of(listing: Mapping[str, Any], texts: Mapping[tuple[str, int], str]) -> list[Chain]:
    """`texts`: of rules, by chain and handle, as nft spells them."""
    objects = [item for item in listing.get("nftables", ()) if isinstance(item, dict)]
    sets: dict[str, Sequence[Any]] = {}
    rules: dict[str, list[Rule]] = {}
    for item in objects:
        for kind in ("set", "map"):
            if kind in item:
                sets[item[kind]["name"]] = item[kind].get("elem", ())
    for item in objects:
        if "rule" in item:
            rule = item["rule"]
            text = texts.get((rule["chain"], rule["handle"]), "")
            rules.setdefault(rule["chain"], []).append(_rule(rule, text, sets))
    return [_chain(item["chain"], rules.get(item["chain"]["name"], ())) for item in objects if "chain" in item]


def rule_texts(listing: str) -> dict[tuple[str, int], str]:
    """Of `nft -a list table`: the rules' own spelling, by chain and handle."""
    found: dict[tuple[str, int], str] = {}
    chain = ""
    for line in listing.splitlines():
        heading = re.match(r"\s*chain (\S+) \{", line)
        rule = re.match(r"\s*(.*) # handle (\d+)$", line)
        if heading:
            chain = heading[1]
        elif rule:
            found[chain, int(rule[2])] = re.sub(r"counter packets \d+ bytes \d+", "counter", rule[1])
    return found


def _chain(found: Mapping[str, Any], rules: Sequence[Rule]) -> Chain:
    devices = found.get("dev", ())
    return Chain(
        found["family"],
        found["table"],
        found["name"],
        hook=found.get("hook", ""),
        priority=int(found.get("prio", 0)),
        is_dropping=found.get("policy") == "drop",
        rules=tuple(rules),
        devices=(devices,) if isinstance(devices, str) else tuple(devices),
    )


def _rule(rule: Mapping[str, Any], text: str, sets: Sets) -> Rule:
    conditions: list[Condition] = []
    step, choice = Step(Action.NOTHING), None
    for expression in rule.get("expr", ()):
        name, value = _named(expression)
        if name == "match" and isinstance(value, dict):
            conditions.append(_match(value, sets))
        elif name == "vmap" and isinstance(value, dict):
            choice = _choice(value, sets)
        elif name in VERDICTS:
            step = Step(VERDICTS[name], value.get("target", "") if isinstance(value, dict) else "")
        elif name == "xt" and isinstance(value, dict) and value.get("type") == "target":
            step = Step(Action.DROP if value.get("name") == "REJECT" else Action.UNKNOWN)
        elif not (name in HARMLESS or (name == "xt" and isinstance(value, dict) and value.get("name") == "comment")):
            conditions.append(_unknown)
    return Rule(text or f"rule {rule.get('handle')}", tuple(conditions), step, choice)


def _named(expression: Any) -> tuple[str, Any]:
    return next(iter(expression.items()), ("", None)) if isinstance(expression, dict) else ("", None)


def _unknown(_: Crossing) -> None:
    return None


def _match(match: Mapping[str, Any], sets: Sets) -> Condition:
    left, right, operator = match.get("left"), match.get("right"), str(match.get("op", "=="))

    def holds(packet: Crossing) -> bool | None:
        value = _field(left, packet)
        if value is None:
            return None
        if value is NOT_THERE:
            return False
        found = _is_in(value, right, sets, is_bits=operator == "in")
        return found if found is None or operator != "!=" else not found

    return holds if operator in ("==", "in", "!=") else _unknown


def _choice(vmap: Mapping[str, Any], sets: Sets) -> Choice:
    key, data = vmap.get("key"), vmap.get("data")

    def choose(packet: Crossing) -> Step | None:
        value = _field(key, packet)
        if value is None:
            return None
        for wanted, verdict in _pairs(data, sets):
            found = None if value is NOT_THERE else _is_in(value, wanted, sets, is_bits=False)
            if found:
                name, target = next(iter(verdict.items()))
                return Step(VERDICTS[name], target.get("target", "") if isinstance(target, dict) else "")
        return Step(Action.NOTHING)

    return choose


def _pairs(data: Any, sets: Sets) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    elements = (
        sets.get(data[1:], ()) if isinstance(data, str) else data.get("set", ()) if isinstance(data, dict) else ()
    )
    for pair in elements:
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict):
            yield pair[0], pair[1]


NOT_THERE = object()  # the packet has no such field, so nothing about it holds


def _field(left: Any, packet: Crossing) -> Any:
    """The packet's value of what a rule asks for; None where that is not understood."""
    if not isinstance(left, dict):
        return None
    name, inner = next(iter(left.items()))
    if name == "meta":
        return _meta(inner.get("key"), packet)
    if name == "payload":
        return _payload(inner.get("protocol"), inner.get("field"), packet)
    if name == "ct":
        known = {"state": packet.state, "status": "none", "mark": 0}
        return known.get(inner.get("key"))
    if name == "&" and isinstance(inner, list) and isinstance(inner[1], int):
        value = _field(inner[0], packet)
        return value & inner[1] if isinstance(value, int) else None
    if name == "concat":
        parts = [_field(part, packet) for part in inner]
        if any(part is None for part in parts):
            return None
        return NOT_THERE if any(part is NOT_THERE for part in parts) else tuple(parts)
    return None


def _meta(key: Any, packet: Crossing) -> Any:
    version = 6 if ":" in packet.destination else 4
    return {
        "iifname": packet.device_in or NOT_THERE,
        "oifname": packet.device_out or NOT_THERE,
        "iif": packet.device_in or NOT_THERE,
        "oif": packet.device_out or NOT_THERE,
        "ibrname": None,
        "l4proto": NOT_THERE if packet.protocol == "arp" else _protocol(packet),
        "protocol": _ether_type(packet),
        "nfproto": NOT_THERE if packet.protocol == "arp" else f"ipv{version}",
        "mark": packet.mark,
        "pkttype": "host",
    }.get(str(key))


def _payload(protocol: Any, field: Any, packet: Crossing) -> Any:
    version = 6 if ":" in packet.destination else 4
    if protocol == "ether":
        macs = {"saddr": packet.source_mac, "daddr": packet.destination_mac}
        return _ether_type(packet) if field == "type" else macs.get(field) or None
    if protocol == "arp" and packet.protocol == "arp":
        return "request" if field == "operation" else None
    if protocol in ("ip", "ip6"):
        if protocol != _ether_type(packet):
            return NOT_THERE
        known = {"saddr": packet.source, "daddr": packet.destination}
        return _protocol(packet) if field in ("protocol", "nexthdr") else known.get(field)
    if protocol in ("icmp", "icmpv6"):
        if packet.protocol != "icmp" or (protocol == "icmpv6") != (version == 6):
            return NOT_THERE
        return ("echo-request" if packet.state == "new" else "echo-reply") if field == "type" else None
    if protocol in ("tcp", "udp", "th"):
        if protocol == "th" and packet.protocol not in ("tcp", "udp"):
            return NOT_THERE
        if protocol != "th" and packet.protocol != protocol:
            return NOT_THERE
        return packet.port or None if field == "dport" else None
    return NOT_THERE if protocol in ("arp", "vlan") else None


def _ether_type(packet: Crossing) -> str:
    return "arp" if packet.protocol == "arp" else ETHER_TYPES[6 if ":" in packet.destination else 4]


def _protocol(packet: Crossing) -> str:
    return "ipv6-icmp" if packet.protocol == "icmp" and ":" in packet.destination else packet.protocol


def _is_in(value: Any, right: Any, sets: Sets, *, is_bits: bool) -> bool | None:
    """Whether the packet's value is what is on the right: a value, a block, a range, or one of a set."""
    if isinstance(right, str) and right.startswith("@"):
        return _any(value, sets.get(right[1:], ()), sets)
    if isinstance(right, list):
        return _any(value, right, sets)
    if isinstance(right, dict):
        return _in_structure(value, right, sets)
    if isinstance(value, tuple):
        return None
    return _is_equal(value, right)


def _any(value: Any, candidates: Sequence[Any], sets: Sets) -> bool | None:
    result: bool | None = False
    for one in candidates:
        inner = one.get("elem", {}).get("val") if isinstance(one, dict) and "elem" in one else one
        inner = inner[0] if isinstance(inner, list) and len(inner) == 2 and isinstance(inner[1], dict) else inner
        found = _is_in(value, inner, sets, is_bits=False)
        if found:
            return True
        result = None if found is None else result
    return result


def _in_structure(value: Any, right: Mapping[str, Any], sets: Sets) -> bool | None:
    name, inner = next(iter(right.items()))
    if name == "set":
        return _any(value, inner, sets)
    if name == "prefix":
        block = ip_network((inner["addr"], inner["len"]), strict=False)
        address = ip_address(value)
        return address.version == block.version and address in block
    if name == "range":
        return _in_range(value, inner)
    if name == "concat" and isinstance(value, tuple) and len(value) == len(inner):
        parts = [_is_in(part, wanted, sets, is_bits=False) for part, wanted in zip(value, inner, strict=True)]
        return False if False in parts else None if None in parts else True
    return None


def _in_range(value: Any, edges: Sequence[Any]) -> bool | None:
    first, last = edges
    if isinstance(value, int) and isinstance(first, int) and isinstance(last, int):
        return first <= value <= last
    if isinstance(value, str) and isinstance(first, str) and isinstance(last, str):
        try:
            one, low, high = ip_address(value), ip_address(first), ip_address(last)
        except ValueError:
            return None
        return one.version == low.version and int(low) <= int(one) <= int(high)
    return None


def _is_equal(value: Any, right: Any) -> bool | None:
    if isinstance(value, str) and isinstance(right, str):
        if right.endswith("*"):
            return value.startswith(right[:-1])
        return value == right or (value in NUMBERS and NUMBERS.get(right) == NUMBERS[value])
    if isinstance(value, int) and isinstance(right, int):
        return value == right
    if isinstance(value, str) and isinstance(right, int):
        return NUMBERS.get(value) == right if value in NUMBERS else None
    return None
