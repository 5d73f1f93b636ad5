"""How one kind of thing is listed: its columns, its filters, its order. Pure; the present is an argument.

A noun describes its list once (`Listing`); options, filters and all forms of output follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cli.safe import safe
from cli.table import shortened
from cli.words import age, natural, seconds_since

T = TypeVar("T")
Filter = Callable[[T, str], bool]

LONGEST_CELL = 40
DESCENDING = "-"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table.

    Attributes:
        cell: its text; for an age column the moment, as RFC 3339.
        key: what to sort by, if not the text.
        wide: only with `-o wide`, `-o csv` and when it is named.
        long: cut off at 40 characters unless --no-trunc.
        if_any: shown only when a row has something there.
        tone: the colour of a row's cell; "" for none.
        parts: what stands in a CSV instead of the cell, one column each: title and value.
        moment: the title that an age column has where its moment is shown.
    """

    title: str
    cell: Callable[[T], str]
    key: Callable[[T], Any] | None = None
    wide: bool = False
    right: bool = False
    is_age: bool = False
    long: bool = False
    if_any: bool = False
    tone: Callable[[T], str] | None = None
    parts: tuple[tuple[str, Callable[[T], object]], ...] = ()
    moment: str = "CREATED"

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

    def raw(self) -> tuple[tuple[str, Callable[[T], object]], ...]:
        """What a program gets: titles and values, nothing cut off, moments instead of ages."""
        return self.parts or ((self.moment if self.is_age else self.title, self.cell),)


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """How one kind of thing is listed. `identity` is what -q prints, `name` what `-o name` prints.

    `kinds`: the kinds of events after which the list may be another one.
    """

    columns: tuple[Column[T], ...]
    name: Callable[[T], str]
    identity: Callable[[T], str]
    filters: Mapping[str, Filter[T]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()

    def column(self, name: str) -> Column[T]:
        """By its sort name or its title, in any case."""
        wanted = name.strip().lower()
        return next(c for c in self.columns if wanted in (c.sort_name, c.title.lower()))

    @property
    def sort_names(self) -> list[str]:
        return [column.sort_name for column in self.columns]


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


def chosen(
    rows: Iterable[T], listing: Listing[T], filters: Sequence[tuple[str, str]], sort_by: str | None, now: float
) -> list[T]:
    """The rows to print, in order. Filters of one key are alternatives; labels and different keys must all hold."""
    kept = [row for row in rows if _passes(row, listing, filters)]
    if sort_by:
        column = listing.column(sort_by.removeprefix(DESCENDING))
        kept.sort(key=lambda row: column.sort_key(row, now), reverse=sort_by.startswith(DESCENDING))
    return kept


def _passes(row: T, listing: Listing[T], filters: Sequence[tuple[str, str]]) -> bool:
    results: dict[str, list[bool]] = {}
    for key, value in filters:
        results.setdefault(key, []).append(listing.filters[key](row, value))
    return all((all if key == "label" else any)(outcomes) for key, outcomes in results.items())
