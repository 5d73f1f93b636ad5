"""How lists and objects are printed: table, wide, JSON, YAML or names; filtered and sorted the same way everywhere.

A noun describes its list once (`Listing`); the options, the filters and the four forms follow from that.
JSON and YAML are escaped to ASCII, table cells through `cli.safe`: what others named cannot speak to the terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, TypeVar

import click

from cli.safe import safe
from cli.session import Session, current
from cli.table import render, shortened
from cli.words import age, natural, seconds_since

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])
Filter = Callable[[T, str], bool]

OUTPUTS = ("table", "wide", "json", "yaml", "name")
LONGEST_CELL = 40


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table.

    Attributes:
        cell: its text; for an age column the moment, as RFC 3339.
        key: what to sort by, if not the text.
        wide: only with `-o wide`.
        long: cut off at 40 characters unless --no-trunc.
        if_any: shown only when a row has something there.
    """

    title: str
    cell: Callable[[T], str]
    key: Callable[[T], Any] | None = None
    wide: bool = False
    right: bool = False
    is_age: bool = False
    long: bool = False
    if_any: bool = False

    def text(self, row: T, now: float, *, whole: bool) -> str:
        cell = age(seconds_since(self.cell(row), now)) if self.is_age else safe(self.cell(row))
        return shortened(cell, LONGEST_CELL) if self.long and not whole else cell

    def sort_key(self, row: T, now: float) -> Any:
        if self.is_age:
            seconds = seconds_since(self.cell(row), now)
            return float("inf") if seconds is None else seconds
        return self.key(row) if self.key else natural(self.cell(row))

    @property
    def sort_name(self) -> str:
        return self.title.split("/")[0].split(" ")[0].lower()


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """How one kind of thing is listed. `identity` is what -q prints, `name` what `-o name` prints."""

    columns: tuple[Column[T], ...]
    name: Callable[[T], str]
    identity: Callable[[T], str]
    filters: Mapping[str, Filter[T]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListOptions:
    output: str
    filters: tuple[tuple[str, str], ...]
    sort_by: str | None
    quiet: bool
    no_trunc: bool

    def sole(self, key: str) -> str:
        """The value of a filter given once, for the server to apply; "" otherwise."""
        values = [value for name, value in self.filters if name == key]
        return values[0] if len(values) == 1 else ""


def list_options(listing: Listing[T]) -> Callable[[Command], Command]:
    """The options that every list takes; the command gets them as `options: ListOptions`."""
    names = [column.sort_name for column in listing.columns]

    def decorate(body: Command) -> Command:
        @wraps(body)
        def command(*args: Any, filters: tuple[str, ...], **options: Any) -> Any:
            chosen = {name: options.pop(name) for name in ("output", "sort_by", "quiet", "no_trunc")}
            current().output = chosen["output"]
            pairs = tuple(_filter(text, listing.filters) for text in filters)
            return body(*args, options=ListOptions(filters=pairs, **chosen), **options)

        known = ", ".join(listing.filters)
        for option in (
            click.option("--no-trunc", is_flag=True, help="Do not cut off long cells."),
            click.option("-q", "--quiet", is_flag=True, help="Only the ids."),
            click.option("--sort-by", type=click.Choice(names), help="Sort by a column."),
            click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Only these: {known}."),
            click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", help="How to print it."),
        ):
            command = option(command)
        return command  # type: ignore[return-value]

    return decorate


def _filter(text: str, known: Mapping[str, Any]) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or key not in known:
        raise click.BadParameter(
            f"{text!r} is not a filter; it is KEY=VALUE with KEY one of {', '.join(known)}", param_hint="--filter"
        )
    return key, value


def containing(get: Callable[[T], str]) -> Filter[T]:
    return lambda row, value: value in get(row)


def starting(get: Callable[[T], str]) -> Filter[T]:
    return lambda row, value: get(row).startswith(value)


def one_of(get: Callable[[T], Iterable[str | None]]) -> Filter[T]:
    return lambda row, value: value in get(row)


def labelled(get: Callable[[T], Mapping[str, str]]) -> Filter[T]:
    """`label=KEY` or `label=KEY=VALUE`."""

    def matches(row: T, wanted: str) -> bool:
        key, separator, value = wanted.partition("=")
        labels = get(row)
        return key in labels and (not separator or labels[key] == value)

    return matches


def chosen(rows: Iterable[T], listing: Listing[T], options: ListOptions, now: float) -> list[T]:
    """The rows to print. Filters of one key are alternatives, but labels and different keys must all hold."""
    kept = [row for row in rows if _passes(row, listing, options.filters)]
    if options.sort_by:
        column = next(c for c in listing.columns if c.sort_name == options.sort_by)
        kept.sort(key=lambda row: column.sort_key(row, now))
    return kept


def _passes(row: T, listing: Listing[T], filters: Sequence[tuple[str, str]]) -> bool:
    results: dict[str, list[bool]] = {}
    for key, value in filters:
        results.setdefault(key, []).append(listing.filters[key](row, value))
    return all((all if key == "label" else any)(outcomes) for key, outcomes in results.items())


def show_list(rows: Iterable[T], listing: Listing[T], options: ListOptions) -> None:
    now = time.time()
    kept = chosen(rows, listing, options, now)
    if options.output in ("json", "yaml"):
        show_data(kept, options.output)
    elif options.quiet or options.output == "name":
        get = listing.identity if options.quiet else listing.name
        for row in kept:
            click.echo(safe(get(row)))
    else:
        show_table(kept, listing.columns, now, wide=options.output == "wide", whole=options.no_trunc)


def show_table(rows: Sequence[T], columns: Sequence[Column[T]], now: float, *, wide: bool, whole: bool) -> None:
    kept = [c for c in columns if (wide or not c.wide) and (not c.if_any or any(c.cell(row) for row in rows))]
    cells = [[column.text(row, now, whole=whole) for column in kept] for row in rows]
    right = [i for i, column in enumerate(kept) if column.right]
    titles, *lines = render([column.title for column in kept], cells, right=right)
    click.echo(heading(titles))
    for line in lines:
        click.echo(line)


def show_data(data: object, output: str) -> None:
    """As YAML if that is asked for, else as JSON."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=False), nl=False)
    else:
        click.echo(json.dumps(data, indent=2))


def show_facts(facts: Iterable[tuple[str, object]]) -> None:
    """One line per fact, the names aligned."""
    shown = [(name, "-" if value in (None, "") else safe(value)) for name, value in facts]
    longest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name + ':':<{longest + 1}}  {value}")


def heading(text: str) -> str:
    return click.style(text, bold=True) if _colours() else text


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_data(session: Session) -> bool:
    return session.output in ("json", "yaml")
