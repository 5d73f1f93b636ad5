"""Reads `nft -j list ruleset` into `worker.doctor.ruleset`. Pure; what is not understood is an unknown condition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from worker.doctor.ruleset import Chain, Condition, Packet, Rule, Table, is_device, lies_within, unknown

FAMILIES = {"ip": {4}, "ip6": {6}, "inet": {4, 6}, "netdev": {4, 6}}
WITHOUT_MEANING = frozenset({"counter", "log", "comment", "mangle", "flow", "last", "quota_reset"})
VERDICTS = ("accept", "drop", "reject", "return", "jump", "goto")
Value = Callable[[Packet], Any]
_NOTHING = object()


def read(ruleset: Mapping[str, Any], without: Collection[str] = ()) -> list[Table]:
    """`without`: "family table" of tables that are read in another way."""
    tables: dict[tuple[str, str], Table] = {}
    sets: dict[tuple[str, str, str], list[Any]] = {}
    entries = [(kind, body) for one in ruleset.get("nftables", ()) for kind, body in one.items()]
    for kind, body in entries:
        if kind == "table" and body["family"] in FAMILIES and f"{body['family']} {body['name']}" not in without:
            name = f"{body['family']} {body['name']}"
            tables[body["family"], body["name"]] = Table(name, frozenset(FAMILIES[body["family"]]))
        elif kind in ("set", "map"):
            sets[body["family"], body["table"], body["name"]] = body.get("elem", [])
    for kind, body in entries:
        table = tables.get((body.get("family", ""), body.get("table", "")))
        if table is None:
            continue
        if kind == "chain":
            table.chains[body["name"]] = _chain(table.name, body)
        elif kind == "rule" and body["chain"] in table.chains:
            known = {
                name: elements for (f, t, name), elements in sets.items() if (f, t) == (body["family"], body["table"])
            }
            table.chains[body["chain"]].rules.append(_rule(body["expr"], known))
    return list(tables.values())


def _chain(table: str, body: Mapping[str, Any]) -> Chain:
    priority = body.get("prio", 0)
    return Chain(
        f"{table} {body['name']}",
        body.get("hook", ""),
        priority if isinstance(priority, int) else 0,
        body.get("policy", "accept"),
        body.get("type", "filter"),
    )


def _rule(expressions: list[Mapping[str, Any]], sets: Mapping[str, list[Any]]) -> Rule:
    conditions: list[Condition] = []
    action, target, choose = "", "", None
    for expression in expressions:
        (kind, body), *_ = expression.items()
        if kind == "match":
            conditions.append(_match(body, sets))
        elif kind in VERDICTS:
            action, target = kind, body["target"] if kind in ("jump", "goto") else ""
        elif kind == "vmap":
            choose = _choice(body, sets)
        elif kind not in WITHOUT_MEANING:
            conditions.append(unknown)
    return Rule(tuple(conditions), action, target, _text(expressions), choose)


def _match(body: Mapping[str, Any], sets: Mapping[str, list[Any]]) -> Condition:
    value = _value(body["left"])
    op, right = body.get("op", "=="), body["right"]
    if value is None:
        return unknown
    get = value

    def is_met(packet: Packet) -> bool | None:
        found = get(packet)
        if found is _NOTHING:
            return False
        if op in ("<", ">", "<=", ">="):
            return _compared(op, found, right)
        same = _matches(found, right, sets)
        if same is None or op in ("==", "in"):
            return same
        return not same if op == "!=" else None

    return is_met


def _compared(op: str, found: Any, right: Any) -> bool | None:
    if not isinstance(found, int) or not isinstance(right, int):
        return None
    return {"<": found < right, ">": found > right, "<=": found <= right, ">=": found >= right}[op]


def _matches(found: Any, right: Any, sets: Mapping[str, list[Any]]) -> bool | None:
    if found is None:
        return None
    if isinstance(right, dict):
        if "set" in right:
            return _any(_matches(found, one, sets) for one in right["set"])
        if "range" in right:
            return _in_range(found, right["range"])
        if "prefix" in right:
            return lies_within(str(found), f"{right['prefix']['addr']}/{right['prefix']['len']}")
        if "elem" in right:
            return _matches(found, right["elem"]["val"], sets)
        return None
    if isinstance(right, list):
        return _any(_matches(found, one, sets) for one in right)
    if isinstance(right, str) and right.startswith("@"):
        elements = sets.get(right[1:])
        return None if elements is None else _any(_matches(found, one, sets) for one in elements)
    if isinstance(found, str) and isinstance(right, str):
        return found == right or (right.endswith("*") and is_device(right, found))
    return bool(found == right)


def _in_range(found: Any, bounds: list[Any]) -> bool | None:
    if isinstance(found, int) and all(isinstance(bound, int) for bound in bounds):
        return bool(bounds[0] <= found <= bounds[1])
    return None


def _any(results: Any) -> bool | None:
    found: bool | None = False
    for result in results:
        if result:
            return True
        if result is None:
            found = None
    return found


def _value(left: Any) -> Value | None:
    """What of a packet is compared; None where that is not known."""
    if not isinstance(left, dict):
        return None
    (kind, body), *_ = left.items()
    if kind == "meta":
        return _META.get(body["key"])
    if kind == "ct":
        return _OF_CONNECTION.get(body["key"])
    if kind == "&" and body[0] == {"meta": {"key": "mark"}} and isinstance(body[1], int):
        mask = body[1]
        return lambda p: p.mark & mask
    if kind == "payload":
        return _payload(body.get("protocol", ""), body.get("field", ""))
    return None


_OF_CONNECTION: dict[str, Value] = {"state": lambda p: "new", "status": lambda p: _NOTHING, "mark": lambda p: 0}
_META: dict[str, Value] = {
    "iifname": lambda p: p.coming or _NOTHING,
    "oifname": lambda p: p.leaving or _NOTHING,
    "iif": lambda p: p.coming or _NOTHING,
    "oif": lambda p: p.leaving or _NOTHING,
    "l4proto": lambda p: p.protocol,
    "nfproto": lambda p: "ipv4" if p.family == 4 else "ipv6",
    "protocol": lambda p: "ip" if p.family == 4 else "ip6",
    "mark": lambda p: p.mark,
}


def _payload(protocol: str, name: str) -> Value | None:
    if protocol in ("udp", "tcp", "th"):
        if name == "dport":
            return lambda p: p.port if protocol in ("th", p.protocol) else _NOTHING
        return lambda p: None if protocol in ("th", p.protocol) else _NOTHING
    if protocol in ("icmp", "icmpv6", "arp"):
        return lambda p: None if p.protocol == protocol else _NOTHING
    family = {"ip": 4, "ip6": 6}.get(protocol)
    if family is None:
        return None
    get: dict[str, Value] = {
        "saddr": lambda p: p.source or None,
        "daddr": lambda p: p.target or None,
        "protocol": lambda p: p.protocol,
        "nexthdr": lambda p: p.protocol,
    }
    inner = get.get(name, unknown)
    return lambda p: inner(p) if p.family == family else _NOTHING


def _choice(body: Mapping[str, Any], sets: Mapping[str, list[Any]]) -> Callable[[Packet], tuple[str, str] | None]:
    value, data = _value(body["key"]), body["data"]
    pairs = data.get("set", []) if isinstance(data, dict) else sets.get(str(data)[1:], [])

    def choose(packet: Packet) -> tuple[str, str] | None:
        found = value(packet) if value is not None else None
        for key, verdict in pairs:
            if found is not _NOTHING and _matches(found, key, sets):
                (kind, target), *_ = verdict.items()
                return kind, target["target"] if kind in ("jump", "goto") else ""
        return None

    return choose


def _text(expressions: list[Mapping[str, Any]]) -> str:
    """Roughly as nft would write it."""
    words = []
    for expression in expressions:
        (kind, body), *_ = expression.items()
        if kind == "match":
            op = "" if body["op"] in ("==", "in") else f"{body['op']} "
            words.append(f"{_shown(body['left'])} {op}{_shown(body['right'])}")
        elif kind in ("jump", "goto"):
            words.append(f"{kind} {body['target']}")
        elif kind == "xt":
            words.append(str(body.get("name", "")) if isinstance(body, dict) else "")
        elif kind in VERDICTS:
            words.append(kind)
    return " ".join(word for word in words if word)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        (kind, body), *_ = value.items()
        if kind == "payload":
            return f"{body.get('protocol', '')} {body.get('field', '')}".strip()
        if kind in ("meta", "ct"):
            return f"{'' if kind == 'meta' else 'ct '}{body['key']}"
        if kind == "prefix":
            return f"{body['addr']}/{body['len']}"
        if kind == "range":
            return "-".join(map(_shown, body))
        if kind == "set":
            return "{ " + ", ".join(map(_shown, body)) + " }"
        return str(kind)
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    return str(value)
