"""The rules for single values: what a name, a MAC address, an MTU, a device may be, and how a bad one is told.

Pure, and the bottom of everything: `kvnet.model` builds its nouns on these, parsing and the command line ask the same
ones before, so that a value is never accepted in one place and refused in another. A rule here looks at one value; what
depends on a second one (a gateway lies in its subnet) belongs to the noun, what depends on the world to the use case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from kvnet.addresses import lies_in
from kvnet.concealing import has_token, without_tokens
from kvnet.errors import Invalid

# Names go into DNS labels, file names, nft comments and shells: nothing that any of those could read as syntax.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
IDENTIFIER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?\Z")
NETWORK_ID = re.compile(r"[0-9a-f]{12}\Z")
# As Linux has it, without what nft and shells read as syntax; and not a name of kvnet's own.
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}\Z")
INTERFACE_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,11}\Z")
MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")

MAX_SHOWN = 80  # of a value that an error message quotes
MAX_LABELS = 64
MAX_LABEL_KEY = 128
MAX_LABEL_VALUE = 1024
MAX_VERBATIM_ENTRIES = 256
MAX_VERBATIM_BYTES = 32_768  # as stored; the journal keeps it twice more, and a transaction has 300 KB
MAX_ALIASES = 32
MAX_PORTS = 256  # single ports that one endpoint publishes
GATEWAY_PRIORITY = 500  # from -this to this
MTU_MIN = 576
MTU_MIN_IPV6 = 1280  # RFC 8200 section 5
MTU_MAX = 65535
VNI_MAX = (1 << 24) - 1  # RFC 7348 section 5

# No kernel routes these between interfaces, or they mean something else than an interface.
UNUSABLE: Mapping[int, tuple[tuple[IPv4Network | IPv6Network, str], ...]] = {
    4: (
        (IPv4Network("0.0.0.0/8"), "this network"),
        (IPv4Network("127.0.0.0/8"), "loopback"),
        (IPv4Network("169.254.0.0/16"), "link-local"),
        (IPv4Network("224.0.0.0/4"), "multicast"),
        (IPv4Network("255.255.255.255/32"), "broadcast"),
    ),
    6: (
        (IPv6Network("::/96"), "loopback, unspecified and IPv4-compatible"),
        (IPv6Network("::ffff:0:0/96"), "IPv4-mapped"),
        (IPv6Network("fe80::/10"), "link-local"),
        (IPv6Network("ff00::/8"), "multicast"),
    ),
}


def require_name(value: str, pointer: str) -> None:
    if has_token(value):
        raise Invalid.field(pointer, "a token stands where a name belongs", "names are for all to see: rotate it")
    if not NAME.match(value):
        raise Invalid.field(
            pointer,
            f"{shown(value)} is not a name",
            "1 to 63 letters, digits, '.', '_' or '-', first and last a letter or digit",
        )


def require_device(value: str, pointer: str) -> None:
    """A name of a link of the host's that kvnet may put into rules: not one of kvnet's own."""
    if not DEVICE.match(value) or value.startswith("kv") or value in ("lo", "all", "default"):
        raise Invalid.field(
            pointer,
            f"{shown(value)} cannot be the name of a link here",
            "1 to 15 letters, digits, '.', '_' or '-', first a letter; not beginning with 'kv'",
        )


def require_unicast(cidr: IPv4Network | IPv6Network, pointer: str) -> None:
    """No part of it may be something else than addresses of interfaces."""
    for special, what in UNUSABLE[cidr.version]:
        if cidr.overlaps(special):
            inside = "is" if lies_in(cidr, special) else "contains"
            raise Invalid.field(pointer, f"{cidr} {inside} {what} ({special})", "choose a unicast range")


def require_mac(value: str) -> None:
    if not MAC.match(value):
        raise Invalid.field("/mac", f"{shown(value)} is not a MAC address", "like 02:42:ac:11:00:02")
    if int(value[:2], 16) & 1 or value == "00:00:00:00:00:00":
        raise Invalid.field("/mac", f"{value} is a group or null MAC address", "the first byte must be even")


def require_mtu(mtu: int | None, *, has_ipv6: bool) -> None:
    low = MTU_MIN_IPV6 if has_ipv6 else MTU_MIN
    if mtu is not None and not low <= mtu <= MTU_MAX:
        raise Invalid.field("/mtu", f"{mtu} is not an MTU for this network", f"{low} to {MTU_MAX}")


def require_labels(labels: Mapping[str, str], pointer: str) -> None:
    if len(labels) > MAX_LABELS:
        raise Invalid.field(pointer, f"{len(labels)} entries; at most {MAX_LABELS}")
    for key, value in labels.items():
        if not key or len(key) > MAX_LABEL_KEY or not key.isprintable():
            raise Invalid.field(pointer, f"{shown(key)} is not a key", f"1 to {MAX_LABEL_KEY} printable characters")
        if len(value) > MAX_LABEL_VALUE or not value.isprintable():
            raise Invalid.field(
                f"{pointer}/{pointer_part(key)}",
                f"the value of {shown(key)} is too long or unprintable",
                f"at most {MAX_LABEL_VALUE} printable characters",
            )


def fitting_labels(labels: Mapping[str, str], room: int) -> dict[str, str]:
    """Those that may be labels of ours, at most `room`, in the order of their keys."""
    fitting = ((key, labels[key]) for key in sorted(labels) if _is_label(key, labels[key]))
    return {key: value for (key, value), _ in zip(fitting, range(room), strict=False)}


def _is_label(key: str, value: str) -> bool:
    is_short = 0 < len(key) <= MAX_LABEL_KEY and len(value) <= MAX_LABEL_VALUE
    return is_short and key.isprintable() and value.isprintable()


def require_verbatim(texts: Mapping[str, Mapping[str, str]], pointer: str) -> None:
    """Somebody else's words, kept as they are: whatever is in them, but not any amount of them."""
    for name, entries in texts.items():
        if len(entries) > MAX_VERBATIM_ENTRIES:
            raise Invalid.field(f"{pointer}/{name}", f"{len(entries)} entries; at most {MAX_VERBATIM_ENTRIES}")
    try:
        size = sum(len(json.dumps(dict(entries), ensure_ascii=False).encode()) for entries in texts.values())
    except UnicodeEncodeError:
        raise Invalid.field(pointer, "a text in it is not Unicode", "leave it out") from None
    if size > MAX_VERBATIM_BYTES:
        names = ", ".join(texts)
        raise Invalid.field(pointer, f"{names} are {size} bytes together; at most {MAX_VERBATIM_BYTES}", "shorten them")


def pointer_part(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def shown(value: str) -> str:
    """The value for a message: never long, never with control characters, never a token."""
    value = without_tokens(value)
    return repr(value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 3] + "...")
