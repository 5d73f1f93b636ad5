"""One form for every log line of kvnet, whoever writes it: for people `TIME level event key=value ...`, for programs a
JSON object per line with the same members.

`ts`, `level` and `event` are always there; `component`, `host`, `network`, `endpoint`, `request_id`, `revision`,
`duration_ms` and `code` are called so everywhere. Secrets do not get through: what looks like one is covered here,
however it came into a line. Pure.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TextIO

LEVELS = ("debug", "info", "warning", "error")
COVERED = "***"
FIRST = ("ts", "level", "event")  # what every line begins with, and no fact is called

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+,")
_SECRET_NAME = re.compile(r"(?:pass(?:word|wd)?|secret|token|authorization|api_?key)\Z", re.IGNORECASE)
# `scheme://user:password@host`, `?token=...` and the like, and an Authorization header's value.
_SECRET = re.compile(
    r"(?<=://)(?P<user>[^\s:/@]*):[^\s/@]+(?=@)"
    r"|(?P<name>\b(?:password|passwd|token|secret|api_?key)[=:])[^\s&\"',;]+"
    r"|(?P<scheme>\b(?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{6,}",
    re.IGNORECASE,
)
_HINTS = ("://", "=", ":", "earer ", "asic ")
_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=str).encode


class Format(StrEnum):
    HUMAN = "human"
    JSON = "json"


FORMATS = ("auto", "human", "json")


def format_for(asked: str, stream: TextIO) -> Format:
    """`auto`: lines for people where a person reads along, JSON where a program keeps them."""
    if asked != "auto":
        return Format(asked)
    try:
        return Format.HUMAN if stream.isatty() else Format.JSON
    except (AttributeError, ValueError):
        return Format.JSON


def line(form: Format, at: float, level: str, event: str, facts: Mapping[str, Any]) -> str:
    """Without its newline; never has one inside."""
    seconds, millis = divmod(round(at * 1000), 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{millis:03d}Z"
    safe = {name: _covered(name, value) for name, value in facts.items() if value is not None and name not in FIRST}
    if form is Format.JSON:
        return _as_json({"ts": stamp, "level": level, "event": without_secrets(event), **safe})
    parts = [stamp, level, _shown(without_secrets(event)), *(f"{name}={_shown(value)}" for name, value in safe.items())]
    return " ".join(parts)


def without_secrets(text: str) -> str:
    if not any(hint in text for hint in _HINTS):
        return text
    return _SECRET.sub(_cover, text)


def _cover(found: re.Match[str]) -> str:
    if found["user"] is not None:
        return f"{found['user']}:{COVERED}"
    return f"{found['name'] or found['scheme']}{COVERED}"


def _covered(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return value
    if _SECRET_NAME.search(name):
        return COVERED
    if isinstance(value, Mapping):
        return {str(key): _covered(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_covered("", inner) for inner in value]
    return without_secrets(str(value))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(str(inner) for inner in value)
    elif isinstance(value, dict):
        value = _as_json(value)
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=True)
