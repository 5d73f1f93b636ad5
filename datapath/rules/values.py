"""What rules compare with, as their readers find it: words and numbers become spans and names that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from datapath.rules.ruleset import ADDRESSES, ARP, DEVICES, MACS, Condition, Field, Key, Name, Span, Wanted

LARGEST = 1 << 128
# One name for each, by all that it is called.
PROTOCOLS = {
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "50": "esp",
    "58": "ipv6-icmp",
    "132": "sctp",
    "icmpv6": "ipv6-icmp",
    "icmp6": "ipv6-icmp",
}
VERSIONS = {"ip": 4, "ip6": 6, "ipv4": 4, "ipv6": 6, "arp": ARP}
NO_VERSION = -1
# What a text of another shape than is expected raises when it is read.
SHAPES = (TypeError, ValueError, KeyError, AttributeError, IndexError)


def named(thing: Any) -> tuple[str, Any]:
    """nft's JSON says what a thing is by the only name in it.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(thing, dict) or not thing:
        raise ValueError("not an object of nft's")
    return next(iter(thing.items()))


def asked(field: Field, *wanted: Wanted, mask: int | None = None, is_not: bool = False) -> Condition:
    """Whether one value is one of these."""
    return Condition((Key(field, mask),), tuple((one,) for one in wanted), is_not)


def one(field: Field, value: Any) -> Wanted:
    """A single value; None where it is not understood.

    Raises:
        ValueError: it is no address, where one is asked for.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if field in ADDRESSES:
        return block(value) if isinstance(value, str) else None
    if field is Field.PROTOCOL:
        return Name(PROTOCOLS.get(str(value).lower(), str(value).lower()))
    if field is Field.VERSION:
        version = VERSIONS.get(value, NO_VERSION) if isinstance(value, str) else None
        return None if version is None else Span(version, version)
    if isinstance(value, int):
        return Span(value, value)
    return Name(value.lower()) if field in MACS else Name(value)


def device(text: str, star: str) -> Wanted:
    """`star`: what stands for "all that begin so", which is not the same everywhere."""
    return Name(text[:-1], is_start=True) if text.endswith(star) else Name(text)


def block(text: str) -> Span:
    """Of addresses.

    Raises:
        ValueError: it is none.
    """
    network = ip_network(text, strict=False)
    return Span(int(network[0]), int(network[-1]))


def span(field: Field, edges: Sequence[Any]) -> Wanted:
    """From one value to another.

    Raises:
        ValueError: these are no addresses, where such are asked for; or not two.
    """
    low, high = (one(field, edge) for edge in edges)
    return Span(low.low, high.high) if isinstance(low, Span) and isinstance(high, Span) else None


def compared(operator: str, wanted: Wanted) -> Wanted:
    """ "<", ">", "<=" or ">=" as a span."""
    if not isinstance(wanted, Span):
        return None
    return {
        "<": Span(0, wanted.low - 1),
        "<=": Span(0, wanted.high),
        ">": Span(wanted.high + 1, LARGEST),
        ">=": Span(wanted.low, LARGEST),
    }.get(operator)


def in_words_of_nft(field: Field, value: Any) -> Wanted:
    """A value as `nft -j` prints it: alone, a prefix, or a range.

    Raises:
        SHAPES: it is of another shape.
    """
    if isinstance(value, dict):
        kind, inner = named(value)
        if kind == "prefix":
            return block(f"{inner['addr']}/{inner['len']}") if field in ADDRESSES else None
        return span(field, inner) if kind == "range" else None
    return device(value, "*") if field in DEVICES and isinstance(value, str) else one(field, value)
