"""Values of command line options that are more than a word: KEY=VALUE, NAME=ADDRESS, durations."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeVar

import click

Value = TypeVar("Value", str, str | None)

UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class PairType(click.ParamType[tuple[str, str]]):
    """KEY=VALUE; without "=" the value is empty, as Docker reads labels, unless a value is needed."""

    name = "pair"

    def __init__(self, metavar: str, *, needs_value: bool = False, mistaken: Collection[str] = ()) -> None:
        """`mistaken`: what people write here when they mean `--output`."""
        self._metavar = metavar
        self._needs_value = needs_value
        self._mistaken = mistaken

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, separator, rest = str(value).partition("=")
        if not key or (self._needs_value and not (separator and rest)):
            self.fail(f"{value!r} is not {self._metavar}", param, ctx)
        if not separator and key in self._mistaken:
            self.fail(f"{key!r} is not an option of a driver; for the format write --output {key}", param, ctx)
        return key, rest

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self._metavar


class ChangeType(click.ParamType[tuple[str, str | None]]):
    """KEY[=VALUE] sets, KEY- takes away: that is (KEY, None)."""

    name = "change"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:
        if isinstance(value, tuple):
            return value
        key, separator, rest = str(value).partition("=")
        is_removal = not separator and key.endswith("-")
        key = key.removesuffix("-") if is_removal else key
        if not key:
            self.fail(f"{value!r} is neither KEY=VALUE nor KEY-", param, ctx)
        return key, None if is_removal else rest

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "KEY=VALUE|KEY-"


class DurationType(click.ParamType[float]):
    """Seconds, or a number with a unit: 90, 90s, 15m, 24h, 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        number = text.rstrip("smhd")
        unit = UNIT_SECONDS.get(text[len(number) :])
        if unit is None or not number.replace(".", "", 1).isdecimal():
            self.fail(f"{text!r} is not a duration: 90, 90s, 15m, 24h or 7d", param, ctx)
        return float(number) * unit


LABEL = PairType("KEY[=VALUE]")
OPTION = PairType("KEY=VALUE", mistaken=("table", "wide", "json", "yaml", "name"))
CHANGE = ChangeType()
NAMED_ADDRESS = PairType("NAME=ADDRESS", needs_value=True)
DURATION = DurationType()


def mapping(pairs: Iterable[tuple[str, Value]], option: str) -> dict[str, Value]:
    """Raises: a usage error if a key is given twice: one of the two would be lost."""
    found: dict[str, Value] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise click.BadParameter(f"{key!r} is given twice", param_hint=option)
    return found
