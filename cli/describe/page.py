"""A page about one thing: facts, conditions, what belongs to it, what happened to it, what is in the way of its end.

Prints the parts that have something to say, in the order they are given. As JSON or YAML the page is one object.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from cli import colour, output
from cli.events import subject
from cli.failures import Failures
from cli.listing import Column
from cli.safe import safe
from cli.session import current
from cli.words import age, seconds_since
from kvnet.errors import Conflicting, KvnetError

T = TypeVar("T")

EVENTS = 10
INDENT = "  "

CONDITIONS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("CONDITION", lambda c: c["type"]),
    Column("STATUS", lambda c: c["status"], tone=lambda c: _tone(c)),
    Column("REASON", lambda c: c["reason"]),
    Column("HOST", lambda c: c["host"] or "", if_any=True),
    Column("SINCE", lambda c: c["since"] or "", is_age=True),
    Column("DETAIL", lambda c: c["detail"], if_any=True),
)


def _tone(condition: Mapping[str, Any]) -> str:
    """That a problem is there is nothing good."""
    if condition["type"] == "problem":
        return colour.BAD
    return colour.tone_of(condition["status"])


CHANGES: tuple[Column[Mapping[str, Any]], ...] = (
    Column("AGE", lambda e: e["at"], is_age=True),
    Column("REVISION", lambda e: str(e["revision"]), right=True),
    Column("WHAT", lambda e: e["kind"]),
    Column("OF", lambda e: subject(e)),
    Column("BY", lambda e: e["actor"]),
    Column("REQUEST", lambda e: e["request_id"]),
)


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    lines: Sequence[str]


@dataclass(slots=True)
class Page:
    """`data`: the same for programs."""

    title: str
    facts: Sequence[tuple[str, object]]
    data: Mapping[str, Any]
    sections: list[Section] = field(default_factory=list)

    def table(self, title: str, rows: Sequence[T], columns: Sequence[Column[T]], *, wide: bool = False) -> None:
        """Nothing, if there are no rows."""
        if rows:
            shown = output.visible(rows, columns, wide=wide)
            self.sections.append(Section(title, output.table_lines(rows, shown, time.time(), whole=True)))

    def text(self, title: str, *lines: str) -> None:
        if any(lines):
            self.sections.append(Section(title, [safe(line) for line in lines if line]))

    def conditions(self, status: Mapping[str, Any]) -> None:
        self.table("Conditions", status["conditions"], CONDITIONS)

    def changes(self, journal: Mapping[str, Any]) -> None:
        """What happened, newest first, and how far the journal goes."""
        items = journal["items"]
        if items:
            self.table("What happened", items, CHANGES)
        else:
            until = f" since revision {journal['kept_from']}; what is older is not kept" if journal["kept_from"] else ""
            self.text("What happened", f"nothing{until}")

    def print(self) -> None:
        is_bold = colour.wanted(sys.stdout)
        click.echo(colour.bold(safe(self.title), is_wanted=is_bold))
        output.show_facts((f"{INDENT}{name}", value) for name, value in self.facts)
        for section in self.sections:
            click.echo()
            click.echo(colour.bold(section.title, is_wanted=is_bold))
            for line in section.lines:
                click.echo(INDENT + line)


async def blocked(plan: Awaitable[object]) -> str:
    """Why it cannot be removed; "" if it can. `plan`: the removal, rehearsed."""
    try:
        await plan
    except Conflicting as error:
        return f"{error.detail}\nFix: {error.fix}" if error.fix else error.detail
    return ""


async def together(*asked: Awaitable[Any]) -> list[Any]:
    """All answers, or the first failure as it is: a task group would wrap it."""
    return list(await asyncio.gather(*asked))


async def listed(found: AsyncIterator[T]) -> list[T]:
    return [one async for one in found]


def since(moment: str | None) -> str:
    """The moment and how long ago it is."""
    seconds = seconds_since(moment, time.time())
    return f"{moment} ({age(seconds)} ago)" if moment and seconds is not None else moment or ""


def whether(value: bool) -> str:
    return "yes" if value else "no"


async def show(names: Iterable[str], describe: Callable[[str], Awaitable[Page]]) -> None:
    """Pages about several, an empty line between them; as data one array."""
    session = current()
    failures, pages = Failures(session), []
    for name in names:
        try:
            pages.append(await describe(name))
        except KvnetError as error:
            failures.add(error)
    if output.as_data(session):
        output.show_data([page.data for page in pages], session.output)
    else:
        for position, page in enumerate(pages):
            click.echo("\n" * (position > 0), nl=False)
            page.print()
    failures.exit_if_any()
