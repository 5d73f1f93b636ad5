"""What somebody may put in the place of a stored value: damage, lies, and what is built to break whoever reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

MOST_BYTES = 256 * 1024
DEEP = b"[" * 100_000
DAMAGE: Mapping[str, bytes] = {
    "nothing": b"",
    "not text": b"\xff\xfe\x00\x80",
    "null": b"null",
    "a list": b"[]",
    "no fields": b"{}",
    "only a schema": b'{"v":1}',
    "a newer schema": b'{"v":99}',
    "a schema that is text": b'{"v":"1"}',
    "a schema that is huge": b'{"v":1' + b"0" * 4000 + b"}",
    "a schema with more digits than are read": b'{"v":1' + b"0" * 10_000 + b"}",
    "deep lists": DEEP,
    "deep objects": b'{"v":1,"id":' + b'{"a":' * 50_000,
    "UTF-16": '{"v":1}'.encode("utf-16"),
    "a long text": b'{"v":1,"id":"' + b"a" * (MOST_BYTES - 100) + b'"}',
    "many fields": json.dumps({"v": 1, **{f"f{n}": n for n in range(15_000)}}).encode(),
}
# Raw JSON, for Python's own writer refuses some of it.
PIECES = (
    *("null", "true", "false", "0", "-1", "1.5", "-0.0", "1e308", "1e400", "NaN", "Infinity", "-Infinity"),
    *(str(2**31), str(2**63), str(2**64), "9" * 400, "9" * 5000, '""', '"x"', '"../x"', '"a/b"', '"\\u0000"'),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\u202e"', '"%s%n"', '"' + "y" * 70_000 + '"', "[]", "{}", "[[]]", '{"a":1}'),
    *("[null]", '["x"]', '[{"cidr":"10.0.0.0/8"}]', '"0.0.0.0"', '"255.255.255.255"', '"fe80::1%$(id)"', '"::"'),
    *('"10.0.0.0/0"', '"10.0.0.1/24"', '"::/0"', '{"\\ud800":1}', "[" * 60 + "]" * 60, "[" * 900 + "]" * 900),
)


def damaged(value: bytes) -> Iterator[tuple[str, bytes]]:
    """The same for every key, and what was there, cut off."""
    yield from DAMAGE.items()
    yield "cut off", value[: len(value) // 2]
    yield "with more behind it", value + b"x"
    yield "twice", value + value


def lies(value: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """What was there, with something else in one of its fields, at whatever depth."""
    try:
        plain = json.loads(value)
    except ValueError:
        return
    places = list(_places(plain, ()))
    for _ in range(count if places else 0):
        place, piece = rng.choice(places), rng.choice(PIECES)
        yield f"{'/'.join(map(str, place))} = {piece[:40]}", _with(plain, place, piece)


def every_lie(value: bytes) -> Iterator[tuple[str, bytes]]:
    plain = json.loads(value)
    for place in _places(plain, ()):
        for piece in PIECES:
            yield f"{'/'.join(map(str, place))} = {piece[:40]}", _with(plain, place, piece)


def _places(plain: Any, here: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inner:
        yield (*here, key)
        yield from _places(value, (*here, key))


def _with(plain: Any, place: tuple[Any, ...], piece: str) -> bytes:
    gap = "\N{BLACK SQUARE}gap"
    copy = json.loads(json.dumps(plain))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = gap
    return json.dumps(copy, separators=(",", ":"), ensure_ascii=False).replace(f'"{gap}"', piece, 1).encode()
