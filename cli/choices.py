"""What `--filter`, `--sort-by` and `--columns` take: names of a list's columns and filters, with completion."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from cli.listing import DESCENDING, Listing


class OrderType(click.ParamType[str]):
    """COLUMN, or -COLUMN for the other way round."""

    name = "column"

    def __init__(self, listing: Listing[Any]) -> None:
        self._names = listing.sort_names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text.removeprefix(DESCENDING) not in self._names:
            self.fail(_unknown(text, self._names), param, ctx)
        return text

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[-]{{{'|'.join(self._names)}}}"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        sign = DESCENDING if incomplete.startswith(DESCENDING) else ""
        return _items((sign + name for name in self._names), incomplete)


class ColumnsType(click.ParamType[tuple[str, ...]]):
    """COLUMN,COLUMN..."""

    name = "columns"

    def __init__(self, listing: Listing[Any]) -> None:
        self._listing = listing

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in str(value).split(",") if part.strip())
        for name in names:
            try:
                self._listing.column(name)
            except StopIteration:
                self.fail(_unknown(name, self._listing.sort_names), param, ctx)
        return names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "COLUMN,..."

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, _ = incomplete.rpartition(",")
        return _items((f"{before}{comma}{name}" for name in self._listing.sort_names), incomplete)


class FilterType(click.ParamType[str]):
    """KEY=VALUE; judged where it is used, completed here."""

    name = "filter"

    def __init__(self, listing: Listing[Any]) -> None:
        self._listing = listing

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "KEY=VALUE"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from cli import suggest

        key, separator, _ = incomplete.partition("=")
        if not separator:
            return _items((f"{name}=" for name in self._listing.filters), incomplete)
        return _items((f"{key}={value}" for value in suggest.filter_values(ctx, key)), incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name.lstrip(DESCENDING).lower(), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is not a column; there are {', '.join(known)}.{hint}"
