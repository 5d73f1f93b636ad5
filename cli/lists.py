"""`ls`: the options that every list takes, and what is printed for them; once, or with every change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from cli import csvform, output
from cli.listing import Column, Listing, chosen
from cli.safe import safe
from cli.session import current

if TYPE_CHECKING:
    from kvnet.client import Client

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

OUTPUTS = ("table", "wide", "json", "yaml", "name", "csv")


@dataclass(frozen=True, slots=True)
class ListOptions:
    output: str = "table"
    filters: tuple[tuple[str, str], ...] = ()
    sort_by: str | None = None
    quiet: bool = False
    no_trunc: bool = False
    columns: tuple[str, ...] = ()
    no_headers: bool = False
    watch: bool = False

    def sole(self, key: str) -> str:
        """The value of a filter given once, for the server to apply; "" otherwise."""
        values = [value for name, value in self.filters if name == key]
        return values[0] if len(values) == 1 else ""


def list_options(listing: Listing[Any]) -> Callable[[Command], Command]:
    """The options that every list takes; the command gets them as `options: ListOptions`."""

    def decorate(body: Command) -> Command:
        @wraps(body)
        def command(*args: Any, filters: tuple[str, ...], **options: Any) -> Any:
            chosen_form = current().choose(options.pop("output"), OUTPUTS)
            names = ("sort_by", "quiet", "no_trunc", "columns", "no_headers", "watch")
            given = {name: options.pop(name) for name in names}
            pairs = tuple(_filter(text, listing) for text in filters)
            return body(*args, options=ListOptions(chosen_form, pairs, **given), **options)

        for option in _options(listing):
            command = option(command)
        return command  # type: ignore[return-value]

    return decorate


def _options(listing: Listing[Any]) -> Sequence[Callable[[Any], Any]]:
    from cli.choices import ColumnsType, FilterType, OrderType

    return (
        click.option("--watch", "-w", is_flag=True, help="Go on: show every change until Ctrl-C."),
        click.option("--no-trunc", is_flag=True, help="Do not cut off long cells."),
        click.option("--no-headers", is_flag=True, help="No line with the names of the columns."),
        click.option("-q", "--quiet", is_flag=True, help="Only the ids."),
        click.option("--columns", type=ColumnsType(listing), default=(), help="Only these columns, in this order."),
        click.option("--sort-by", type=OrderType(listing), help="Sort by a column; with - in front the other way."),
        click.option(
            "-f",
            "--filter",
            "filters",
            multiple=True,
            type=FilterType(listing),
            help=f"Only these: {', '.join(listing.filters)}.",
        ),
        click.option("-o", "--output", type=click.Choice(OUTPUTS), help="How to print it. [table]"),
    )


def _filter(text: str, listing: Listing[Any]) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or key not in listing.filters:
        known = ", ".join(listing.filters)
        raise click.BadParameter(
            f"{text!r} is not a filter; it is KEY=VALUE with KEY one of {known}", param_hint="--filter"
        )
    return key, value


async def show(
    client: Client, fetch: Callable[[], Awaitable[Sequence[T]]], listing: Listing[T], options: ListOptions
) -> None:
    """What is there; with --watch again and again, as it changes."""
    sheet = Sheet(listing, options)
    if options.watch:
        from cli.watching import watch

        await watch(client, fetch, sheet)
    else:
        click.echo(sheet.text(sheet.rows(await fetch()), time.time()), nl=False)


@dataclass(frozen=True, slots=True)
class Sheet(Generic[T]):
    """A list as it is to be printed."""

    listing: Listing[T]
    options: ListOptions

    def rows(self, found: Sequence[T]) -> list[T]:
        """Those that are asked for, in order."""
        return chosen(found, self.listing, self.options.filters, self.options.sort_by, time.time())

    def text(self, rows: Sequence[T], now: float) -> str:
        options = self.options
        if options.quiet or options.output == "name":
            return "".join(f"{safe(self.label(row))}\n" for row in rows)
        if options.output in ("json", "yaml"):
            return output.as_text(list(rows), options.output)
        if options.output == "csv":
            titles, records = self.records(rows)
            return csvform.document(titles, records, headers=not options.no_headers)
        columns = self.columns(rows)
        lines = output.table_lines(rows, columns, now, whole=options.no_trunc, headers=not options.no_headers)
        return "".join(f"{line}\n" for line in lines)

    def label(self, row: T) -> str:
        return self.listing.identity(row) if self.options.quiet else self.listing.name(row)

    def columns(self, rows: Sequence[T]) -> list[Column[T]]:
        if self.options.columns:
            return [self.listing.column(name) for name in self.options.columns]
        return output.visible(rows, self.listing.columns, wide=self.options.output == "wide")

    def records(self, rows: Sequence[T]) -> tuple[list[str], list[list[object]]]:
        """For CSV: all columns, or those that are named; whole, with moments instead of ages."""
        named = self.options.columns
        columns = [self.listing.column(name) for name in named] if named else self.listing.columns
        parts = [part for column in columns for part in column.raw()]
        return [title for title, _ in parts], [[value(row) for _, value in parts] for row in rows]
