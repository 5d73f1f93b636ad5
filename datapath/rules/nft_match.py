"""What a rule of nftables asks of a packet, out of nft's JSON. Pure.

nft leaves out what goes without saying: who asks for `tcp dport` means TCP alone, and who asks for `ip saddr` IPv4.
Here it is a condition like the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datapath.rules.ruleset import ARP, UNKNOWN, Candidate, Condition, Field, Key, Name, Span
from datapath.rules.values import NO_VERSION, SHAPES, asked, compared, in_words_of_nft, named

META = {
    "iifname": Field.DEVICE_IN,
    "oifname": Field.DEVICE_OUT,
    "iif": Field.DEVICE_IN,
    "oif": Field.DEVICE_OUT,
    "l4proto": Field.PROTOCOL,
    "protocol": Field.VERSION,
    "nfproto": Field.VERSION,
    "mark": Field.MARK,
    "pkttype": Field.PACKET_TYPE,
}
CONNECTION = {"state": Field.STATE, "status": Field.STATUS, "mark": Field.CONNECTION_MARK}
ETHER = {"saddr": Field.SOURCE_MAC, "daddr": Field.DESTINATION_MAC, "type": Field.VERSION}
IP = {
    "saddr": Field.SOURCE,
    "daddr": Field.DESTINATION,
    "protocol": Field.PROTOCOL,
    "nexthdr": Field.PROTOCOL,
}
VERSION = {"ip": 4, "ip6": 6, "arp": ARP, "vlan": NO_VERSION}
OF_IP = asked(Field.VERSION, Span(4, 6))
CARRIED = {
    "tcp": ("tcp",),
    "udp": ("udp",),
    "th": ("tcp", "udp", "sctp"),
    "icmp": ("icmp",),
    "icmpv6": ("ipv6-icmp",),
}
Keys = tuple[Key, ...]


class Sets:
    """Those of one table, each read once for what its rules compare it with."""

    def __init__(self, elements: Mapping[str, Sequence[Any]]) -> None:
        self._elements = elements
        self._read: dict[tuple[str, Keys], tuple[Candidate, ...]] = {}

    def candidates(self, name: str, keys: Keys) -> tuple[Candidate, ...]:
        if name not in self._elements:
            return ((None,) * len(keys),)
        if (name, keys) not in self._read:
            self._read[name, keys] = tuple(_candidate(element, keys) for element in self._elements[name])
        return self._read[name, keys]

    def pairs(self, name: str) -> Sequence[Any]:
        return self._elements[name]


def conditions_of(match: Mapping[str, Any], sets: Sets) -> Sequence[Condition]:
    """
    Raises:
        SHAPES: it is not what nft prints.
    """
    operator, right = match.get("op", "=="), match["right"]
    found = _keys(match["left"])
    if found is None:
        return (UNKNOWN,)
    before, keys = found
    if not keys:
        return (*before, UNKNOWN)
    if operator in ("==", "in", "!="):
        return (*before, Condition(keys, _candidates(right, keys, sets), operator == "!="))
    (key,) = keys
    wanted = compared(operator, in_words_of_nft(key.field, right))
    return (*before, Condition(keys, ((wanted,),)) if wanted is not None else UNKNOWN)


def choice(vmap: Mapping[str, Any], sets: Sets) -> tuple[Sequence[Condition], Keys, list[tuple[Candidate, Any]]]:
    """What has to hold for it to be looked up, by which keys, and (candidate, verdict).

    Raises:
        SHAPES: it is not what nft prints.
    """
    before, keys = _keys(vmap["key"]) or ((), ())
    data = vmap["data"]
    elements = sets.pairs(data[1:]) if isinstance(data, str) else data["set"]
    pairs = [pair for pair in elements if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)]
    return before, keys, [(_candidate(wanted, keys), verdict) for wanted, verdict in pairs]


def _candidates(right: Any, keys: Keys, sets: Sets) -> tuple[Candidate, ...]:
    if isinstance(right, str) and right.startswith("@"):
        return sets.candidates(right[1:], keys)
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, list):
        return tuple(_candidate(element, keys) for element in right)
    return (_candidate(right, keys),)


def _candidate(element: Any, keys: Keys) -> Candidate:
    """Of a set, a map (whose second half is left out), or alone."""
    try:
        if isinstance(element, list) and len(element) == 2 and isinstance(element[1], dict):
            element = element[0]
        if isinstance(element, dict) and "elem" in element:
            element = element["elem"]["val"]
        parts = element["concat"] if isinstance(element, dict) and "concat" in element else [element]
        return tuple(in_words_of_nft(key.field, part) for key, part in zip(keys, parts, strict=True))
    except SHAPES:
        return (None,) * len(keys)


def _keys(left: Any) -> tuple[tuple[Condition, ...], Keys] | None:
    """What has to hold, and what is compared then: no keys where that is not understood. None: nothing of it is."""
    kind, body = named(left)
    if kind == "concat":
        parts = [_keys(part) for part in body]
        if None in parts or not all(part[1] for part in parts if part is not None):
            return None
        known = [part for part in parts if part is not None]
        return tuple(c for before, _ in known for c in before), tuple(key for _, keys in known for key in keys)
    if kind == "&":
        found = _keys(body[0])
        if found is None or len(found[1]) != 1 or not isinstance(body[1], int):
            return None
        return found[0], (Key(found[1][0].field, body[1]),)
    if kind == "payload":
        return tuple(_before(body.get("protocol"))), _of(_PAYLOAD.get(body.get("protocol"), {}), body.get("field"))
    if kind in _KNOWN and body["key"] in _KNOWN[kind]:
        return (OF_IP,) if body["key"] in ("l4proto", "nfproto") else (), _of(_KNOWN[kind], body["key"])
    return None


def _before(protocol: Any) -> Iterator[Condition]:
    if protocol in VERSION:
        yield asked(Field.VERSION, Span(VERSION[protocol], VERSION[protocol]))
    if protocol in CARRIED:
        yield asked(Field.PROTOCOL, *map(Name, CARRIED[protocol]))


_PORT = {"dport": Field.PORT}
_TYPE = {"type": Field.ICMP_TYPE}
_PAYLOAD: Mapping[Any, Mapping[str, Field]] = {
    "ether": ETHER,
    "ip": IP,
    "ip6": IP,
    "tcp": _PORT,
    "udp": _PORT,
    "th": _PORT,
    "icmp": _TYPE,
    "icmpv6": _TYPE,
    "arp": {"operation": Field.OPERATION},
}
_KNOWN = {"meta": META, "ct": CONNECTION}


def _of(fields: Mapping[str, Field], name: Any) -> Keys:
    return (Key(fields[name]),) if name in fields else ()
