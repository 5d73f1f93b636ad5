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
from functools import lru_cache
from math import isfinite
from typing import Any, TextIO

from kvnet.concealing import COVERED, has_token, without_tokens

LEVELS = ("debug", "info", "warning", "error")
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
_HINT = re.compile(r"[=:]|earer |asic ", re.IGNORECASE)
_SIMPLE = frozenset({str, int, float, bool})
_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=str).encode
_quoted = json.encoder.encode_basestring_ascii


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
    stamp = f"{_second(seconds)}.{millis:03d}Z"
    told = _told(facts)
    if form is Format.JSON:
        head = f'{{"ts":"{stamp}","level":"{level}","event":{_quoted(without_secrets(event))}'
        return "".join([head, *[f"{_member(name)}{_json(value)}" for name, value in told], "}"])
    return " ".join(
        [stamp, level, _shown(without_secrets(event)), *[f"{name}={_shown(value)}" for name, value in told]]
    )


def _told(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is told of them, without secrets. Most lines have none: that is seen sooner of all texts together."""
    told = [(name, value) for name, value in facts.items() if value is not None and name not in FIRST]
    if _SIMPLE.issuperset([type(value) for _, value in told]) and not any(_is_secret(name) for name, _ in told):
        texts = "\n".join([value for _, value in told if type(value) is str])
        if not _HINT.search(texts) and not has_token(texts):
            return told
    return [(name, _covered(name, value)) for name, value in told]


@lru_cache(maxsize=1024)
def _member(name: str) -> str:
    return f",{_quoted(name)}:"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _json(value: Any) -> str:
    """By hand what most facts are: a controller tells a line per change, thousands a second."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    return repr(value) if kind is int or (kind is float and isfinite(value)) else _as_json(value)


def without_secrets(text: str) -> str:
    text = without_tokens(text)
    return _SECRET.sub(_cover, text) if _HINT.search(text) else text


def _cover(found: re.Match[str]) -> str:
    if found["user"] is not None:
        return f"{found['user']}:{COVERED}"
    return f"{found['name'] or found['scheme']}{COVERED}"


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _covered(name: str, value: Any) -> Any:
    kind = type(value)
    if kind is int or kind is float or kind is bool:
        return value
    if _is_secret(name):
        return COVERED
    if kind is str:
        return without_secrets(value)
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
