"""`--watch`: a list that is printed again when something happened, driven by the controller's event stream.

On a terminal the list is drawn anew in its place; elsewhere the rows that changed are appended, so that what reads them
sees each change once. A controller that restarts is waited for, up to ten minutes; what happened meanwhile is seen when
the stream is open again, because the list is fetched then. Never polls.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import click

from cli import csvform, output
from cli.hearing import bell, is_passing
from cli.listing import Column
from cli.lists import Sheet
from cli.safe import safe
from cli.table import lines, widths_of
from kvnet.errors import KvnetError

if TYPE_CHECKING:
    from kvnet.client import Client

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

PAUSE_S = 0.2  # between two looks: a storm of events makes five of them a second, not thousands
AGES_S = 1.0  # how often a terminal sees ages go on
CLEAR, HOME, END_OF_LINE, BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
ADDED, CHANGED, REMOVED = "added", "changed", "removed"


class View(Protocol[T_contra]):
    """What shows the rows. `tick_s`: how often it wants to be shown them again though nothing happened.

    `trouble`: why they may be old; "" if they are not.
    """

    tick_s: float | None

    def show(self, rows: Sequence[T_contra], now: float, trouble: str = "") -> None: ...


async def watch(client: Client, fetch: Callable[[], Awaitable[Sequence[T]]], sheet: Sheet[T]) -> None:
    """Until Ctrl-C.

    Raises:
        KvnetError: the controller refuses it, or was away for longer than PATIENCE_S.
    """
    is_screen = sys.stdout.isatty()
    view: View[T] = Screen(sheet) if is_screen else Appended(sheet)
    rows: Sequence[T] = []
    async with bell(client, sheet.listing.kinds, quiet=is_screen) as ringing:
        while True:
            if await ringing.rings(view.tick_s):
                rows = sheet.rows(await _fetched(fetch, rows))
            view.show(rows, time.time(), ringing.trouble)
            await asyncio.sleep(PAUSE_S)


async def _fetched(fetch: Callable[[], Awaitable[Sequence[T]]], known: Sequence[T]) -> Sequence[T]:
    """What is there now; what was known while nobody answers, for the bell rings when somebody does again."""
    try:
        return await fetch()
    except KvnetError as error:
        if not is_passing(error):
            raise
        return known


class Screen(Generic[T]):
    """A terminal: the list in its place, as much of it as there is room for, below what is amiss with it."""

    tick_s: float | None = AGES_S

    def __init__(self, sheet: Sheet[T]) -> None:
        self._sheet = sheet
        self._is_clear = False

    def show(self, rows: Sequence[T], now: float, trouble: str = "") -> None:
        shown = [*([trouble] if trouble else []), *self._sheet.text(rows, now).splitlines()]
        room = max(2, shutil.get_terminal_size().lines - 1)
        if len(shown) > room:
            shown = [*shown[: room - 1], f"... {len(shown) - room + 1} lines more"]
        drawn = "".join(f"{line}{END_OF_LINE}\n" for line in shown)
        click.echo(("" if self._is_clear else CLEAR) + HOME + drawn + BELOW, nl=False, color=True)
        self._is_clear = True


class Appended(Generic[T]):
    """A pipe or a file: every row once, and again when it is another one; a first column says which."""

    tick_s: float | None = None

    def __init__(self, sheet: Sheet[T], say: Callable[[str], object] | None = None) -> None:
        self._sheet = sheet
        self._say = say or partial(click.echo, nl=False)
        self._known: dict[str, tuple[object, T]] = {}
        self._widths: list[int] | None = None
        self._columns = self._chosen()

    def show(self, rows: Sequence[T], now: float, trouble: str = "") -> None:
        news = list(self._news(rows))
        text = self._text(news, now)
        if text:
            self._say(text)

    def _chosen(self) -> list[Column[T]]:
        """The same for as long as it goes on, also those that are only there when they say something."""
        options, listing = self._sheet.options, self._sheet.listing
        if options.columns:
            return [listing.column(name) for name in options.columns]
        return [c for c in listing.columns if options.output == "wide" or not c.wide]

    def _news(self, rows: Sequence[T]) -> Iterator[tuple[str, T]]:
        seen = {self._sheet.listing.identity(row): row for row in rows}
        for identity in [one for one in self._known if one not in seen]:
            yield REMOVED, self._known.pop(identity)[1]
        for identity, row in seen.items():
            facts = self._facts(row)
            before = self._known.get(identity)
            self._known[identity] = (facts, row)
            if before is None:
                yield ADDED, row
            elif before[0] != facts:
                yield CHANGED, row

    def _facts(self, row: T) -> object:
        """What makes it another row: everything that is shown, but for the passing of time."""
        if self._sheet.options.output in ("json", "yaml", "csv"):
            return row if self._sheet.options.output != "csv" else self._sheet.records([row])[1]
        return [c.cell(row) for c in self._columns]

    def _text(self, news: Sequence[tuple[str, T]], now: float) -> str:
        options = self._sheet.options
        if options.quiet or options.output == "name":
            return "".join(f"{safe(self._sheet.label(row))}\n" for change, row in news if change != REMOVED)
        if options.output == "json":
            return "".join(json.dumps({"change": change, "object": row}) + "\n" for change, row in news)
        if options.output == "yaml":
            return "".join("---\n" + output.as_text({"change": c, "object": row}, "yaml") for c, row in news)
        if options.output == "csv":
            return self._csv(news)
        return self._table(news, now)

    def _csv(self, news: Sequence[tuple[str, T]]) -> str:
        titles, records = self._sheet.records([row for _, row in news])
        rows = [[change, *record] for (change, _), record in zip(news, records, strict=True)]
        return csvform.document(["CHANGE", *titles], rows, headers=self._is_first())

    def _table(self, news: Sequence[tuple[str, T]], now: float) -> str:
        whole = self._sheet.options.no_trunc
        cells = [[change, *(c.text(row, now, whole=whole) for c in self._columns)] for change, row in news]
        titles = ["CHANGE", *(c.title for c in self._columns)]
        headers = self._is_first()
        if self._widths is None:
            self._widths = widths_of([titles, ["changed", *([""] * len(self._columns))], *cells])
        right = [i + 1 for i, c in enumerate(self._columns) if c.right]
        shown = lines([titles, *cells] if headers else cells, self._widths, right=right)
        return "".join(f"{line}\n" for line in shown)

    def _is_first(self) -> bool:
        """Whether the titles are to be told; once at most."""
        if self._widths is not None or self._sheet.options.no_headers:
            return False
        if self._sheet.options.output == "csv":
            self._widths = []
        return True
