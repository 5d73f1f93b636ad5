"""The user's `-o` and `--ipam-opt`: our own words, and Docker's names for the same.

Our words are the names of a network's fields. A word that is neither known nor dotted is a mistyped one and refused;
names with a dot are somebody's own and kept. Pure; what the values mean together is for the controller to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from kvnet.errors import Invalid
from kvnet.model import Driver
from kvnet.rules import MTU_MAX, MTU_MIN, shown

GATEWAY, GWBRIDGE = "gateway", "gwbridge"
EGRESS, REMOVAL = "egress", "removal"
EVERYWHERE, ONLY_KVNET = "everywhere", "kvnet"
MAX_NUMBER = 65535
# As Go's strconv.ParseBool, which is what Docker reads them with.
_TRUE, _FALSE = (
    frozenset({"1", "t", "T", "true", "TRUE", "True"}),
    frozenset({"0", "f", "F", "false", "FALSE", "False"}),
)


def _flag(word: str, text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise _wrong(word, text, "'true' or 'false'")


def _number(word: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_NUMBER:
        return int(text)
    raise _wrong(word, text, f"a number from 1 to {MAX_NUMBER}")


def _bytes(word: str, text: str) -> int:
    if text.isascii() and text.isdigit() and MTU_MIN <= int(text) <= MTU_MAX:
        return int(text)
    raise _wrong(word, text, f"a number of bytes from {MTU_MIN} to {MTU_MAX}")


def _text(word: str, text: str) -> str:
    if text:
        return text
    raise _wrong(word, text, "not empty")


def _one_of(*known: str) -> Callable[[str, str], str]:
    def parse(word: str, text: str) -> str:
        if text in known:
            return text
        raise _wrong(word, text, f"one of {', '.join(known)}")

    return parse


FIELDS: Mapping[str, Callable[[str, str], Any]] = {
    "driver": _one_of(*(driver.value for driver in Driver)),
    "mtu": _bytes,
    "flood": _flag,
    "force": _flag,
    "icc": _flag,
    "masquerade": _flag,
    "bridge_name": _text,
    "interface_prefix": _text,
    "host_binding": _text,
    "uplink": _text,
    "uplink_mode": _text,
    "shim": _flag,
    "block_prefix_length": _number,
    "block_prefix_length6": _number,
    "cross_segment": _text,
}
OWN: Mapping[str, Callable[[str, str], Any]] = {
    EGRESS: _one_of(GATEWAY, GWBRIDGE),
    REMOVAL: _one_of(EVERYWHERE, ONLY_KVNET),
}
IPAM: Mapping[str, Callable[[str, str], Any]] = {"pool": _text, "prefix_length": _number}
MACVLAN = frozenset({"parent", "macvlan_mode"})  # Docker's own words; the controller knows them
_OTHERWISE = {
    "internal": "use --internal",
    "ipv6": "use --ipv6",
    "subnet": "use --subnet",
    "gateway": "use --gateway",
    "labels": "use --label",
    "name": "the name is the last word of the command",
    "encrypted": "leave it out: kvnet does not encrypt; use WireGuard between hosts that need it",
    **dict.fromkeys(IPAM, "Docker asks for the subnet first, so use --ipam-opt for this"),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """`fields` as in the body of POST /v1/networks, `options` what stays an option."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    egress: str | None = None
    removal: str | None = None


def network_wishes(words: Mapping[str, str]) -> Wishes:
    """
    Raises:
        Invalid: a word that is not known, or a value that cannot be read.
    """
    is_transparent = words.get("driver") == Driver.TRANSPARENT
    fields: dict[str, Any] = {}
    options: dict[str, str] = {}
    own: dict[str, str] = {}
    for word, text in sorted(words.items()):
        if word in FIELDS:
            fields[word] = FIELDS[word](word, text)
        elif word in OWN:
            own[word] = OWN[word](word, text)
        elif "." in word or (is_transparent and word in MACVLAN):
            options[word] = text
        elif word in MACVLAN:
            raise Invalid(f"-o {word} is of transparent networks only", fix="add -o driver=transparent")
        else:
            raise _unknown("-o", word, [*FIELDS, *OWN, *MACVLAN])
    return Wishes(fields, options, own.get(EGRESS), own.get(REMOVAL))


def pool_wishes(words: Mapping[str, str]) -> dict[str, Any]:
    """What a hold is asked for beside its subnet.

    Raises:
        Invalid: as above.
    """
    found: dict[str, Any] = {}
    for word, text in sorted(words.items()):
        if word in IPAM:
            found[word] = IPAM[word](word, text)
        elif "." not in word:
            raise _unknown("--ipam-opt", word, list(IPAM))
    return found


def _wrong(word: str, text: str, fix: str) -> Invalid:
    return Invalid(f"{word}={shown(text)} cannot be read", fix=f"{word} is {fix}")


def _unknown(flag: str, word: str, known: list[str]) -> Invalid:
    if flag == "-o" and word in _OTHERWISE:
        return Invalid(f"{flag} {word} is not known", fix=_OTHERWISE[word])
    if flag == "--ipam-opt" and (word in FIELDS or word in OWN):
        return Invalid(f"{flag} {word} is not known", fix=f"use -o {word}=...")
    close = get_close_matches(word, known, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    fix = f"{guess}known are: {', '.join(sorted(known))}; names of your own need a dot"
    return Invalid(f"{flag} {shown(word)} is not known", fix=fix)
