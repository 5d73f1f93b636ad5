"""Quantities in the words of the command line: ages, shares, addresses in use. Pure; the present is an argument."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvnet.wire import Condition, Status

MINUTE, HOUR, DAY = 60, 3600, 86400
SHOWN_NAMES = 3
COUNTABLE_BITS = 32  # larger blocks are shown as a power of two: nobody reads 18446744073709551615


def seconds_since(moment: str | None, now: float) -> float | None:
    """`moment` is RFC 3339. None if there is none or it cannot be read."""
    if not moment:
        return None
    try:
        return now - datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def age(seconds: float | None) -> str:
    """Two figures at most, like 45s, 12m, 5h, 3d."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE:
        return f"{whole}s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE}m"
    if whole < 2 * DAY:
        return f"{whole // HOUR}h"
    return f"{whole // DAY}d"


def amount(number: int) -> str:
    """A count; of huge blocks (which lack what is their own, or used) the nearest power of two."""
    return str(number) if number < 1 << COUNTABLE_BITS else f"2^{round(math.log2(number))}"


def share(used: int, size: int) -> str:
    """Used of size: "3/253 (1%)". Only nothing is shown as 0 %, and only all as 100 %."""
    if size <= 0:
        return f"{used}/{size}"
    percent = used * 100 / size
    if 0 < percent < 1:
        shown = "<1"
    elif 99 < percent < 100:
        shown = ">99"
    else:
        shown = f"{percent:.0f}"
    return f"{used}/{amount(size)} ({shown}%)"


def use_of(subnets: Sequence[Mapping[str, object]]) -> tuple[int, int]:
    """(used, size) of a network's IPv4 subnets; of its IPv6 subnets if it has no other: a sum would hide the scarce."""
    scarce = [s for s in subnets if ":" not in str(s["cidr"])] or subnets
    return _total(scarce, "used"), _total(scarce, "size")


def _total(subnets: Sequence[Mapping[str, object]], member: str) -> int:
    return sum(value for s in subnets if isinstance(value := s[member], int))


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    return ",".join(names[:SHOWN_NAMES]) + (f",+{more}" if more > 0 else "")


def problems(status: Status) -> list[Condition]:
    """What hosts report, of a network, an endpoint or a host."""
    return [one for one in status["conditions"] if one["type"] == "problem"]


def pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" if value else key for key, value in sorted(labels.items()))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key: numbers inside texts by their value, so that h2 comes before h10 and 10.1.0.9 before 10.1.0.10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
