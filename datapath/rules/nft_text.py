"""Rules of nftables as text: as nft spells them, where that is at hand, else roughly so. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from datapath.rules.values import SHAPES, named

PLAIN = ("accept", "drop", "reject", "return", "continue", "masquerade", "queue", "limit")


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


def devices(listing: str, chain: str) -> tuple[str, ...]:
    """Of a base chain on devices: nft 1.0.6 leaves them out of its JSON."""
    after = listing.partition(f"chain {chain} {{")[2].partition("}")[0]
    return tuple(re.findall(r"\"([^\"]+)\"", after.partition("priority")[0]))


def shown(expressions: Sequence[Any]) -> str:
    """Out of JSON, roughly as nft would write it."""
    try:
        return " ".join(word for expression in expressions for word in [_words(expression)] if word)
    except SHAPES:
        return "a rule that is not understood"


def _words(expression: Any) -> str:
    kind, body = named(expression)
    if kind == "match":
        operator = body.get("op", "==")
        between = "" if operator in ("==", "in") else f"{operator} "
        return f"{_value(body['left'])} {between}{_value(body['right'])}"
    if kind in ("jump", "goto"):
        return f"{kind} {body['target']}"
    if kind == "vmap":
        return f"{_value(body['key'])} vmap {_value(body['data'])}"
    if kind == "xt":
        return str(body.get("name", "")) if isinstance(body, dict) else ""
    return kind if kind in PLAIN else ""


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if not isinstance(value, dict):
        return str(value)
    kind, body = named(value)
    match kind:
        case "payload":
            return f"{body.get('protocol', '')} {body.get('field', '')}".strip()
        case "meta" | "ct":
            return f"{'' if kind == 'meta' else 'ct '}{body['key']}"
        case "prefix":
            return f"{body['addr']}/{body['len']}"
        case "range":
            return "-".join(map(_value, body))
        case "set":
            return "{ " + ", ".join(map(_value, body)) + " }"
        case "concat":
            return " . ".join(map(_value, body))
        case "&":
            return " & ".join(map(_value, body))
    return str(kind)
