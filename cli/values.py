"""Values of command line options that are more than a word: KEY=VALUE, NAME=ADDRESS, published ports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from kvnet.wire import PortBody


class PairType(click.ParamType[tuple[str, str]]):
    """KEY=VALUE; without "=" the value is empty, as Docker reads labels, unless a value is needed."""

    name = "pair"

    def __init__(self, metavar: str, *, needs_value: bool = False) -> None:
        self._metavar = metavar
        self._needs_value = needs_value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, separator, rest = str(value).partition("=")
        if not key or (self._needs_value and not (separator and rest)):
            self.fail(f"{value!r} is not {self._metavar}", param, ctx)
        return key, rest

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self._metavar


LABEL = PairType("KEY[=VALUE]")
OPTION = PairType("KEY=VALUE")
NAMED_ADDRESS = PairType("NAME=ADDRESS", needs_value=True)


class PublishType(click.ParamType[PortBody]):
    """[ADDRESS:]HOST_PORT:PORT[/tcp|udp], or PORT[/tcp|udp] alone: the host's port is then chosen."""

    name = "publish"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PortBody:
        text, _, protocol = str(value).partition("/")
        outside, _, port = text.rpartition(":")
        address, _, host_port = outside.rpartition(":")
        body: PortBody = {"port": self._number(port, value, param, ctx), "protocol": protocol or "tcp"}
        if host_port:
            body["host_port"] = self._number(host_port, value, param, ctx)
        if address:
            body["host_address"] = address.strip("[]")
        return body

    def _number(self, text: str, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            self.fail(f"{value!r} is not [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp]", param, ctx)
        return int(text)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[[ADDRESS:]HOST_PORT:]PORT[/PROTO]"


PUBLISH = PublishType()


def mapping(pairs: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """Raises: a usage error if a key is given twice: one of the two would be lost."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise click.BadParameter(f"{key!r} is given twice", param_hint=option)
    return found
