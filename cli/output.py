"""How things are printed: tables, facts, JSON and YAML.

JSON and YAML are escaped to ASCII, table cells through `cli.safe`: what others named cannot speak to the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import click

from cli import colour
from cli.listing import Column
from cli.safe import safe
from cli.session import Session
from cli.table import NOTHING, Paint, render

T = TypeVar("T")


def visible(rows: Sequence[T], columns: Sequence[Column[T]], *, wide: bool) -> list[Column[T]]:
    """The columns to show of these rows."""
    return [c for c in columns if (wide or not c.wide) and (not c.if_any or any(c.cell(row) for row in rows))]


def table_lines(
    rows: Sequence[T], columns: Sequence[Column[T]], now: float, *, whole: bool, headers: bool = True
) -> list[str]:
    """Exactly these columns, coloured if stdout shows colours."""
    cells = [[column.text(row, now, whole=whole) for column in columns] for row in rows]
    right = [i for i, column in enumerate(columns) if column.right]
    paint = painter(rows, columns) if colour.wanted(sys.stdout) else None
    titles, *lines = render([column.title for column in columns], cells, right=right, paint=paint)
    return [heading(titles), *lines] if headers else lines


def painter(rows: Sequence[T], columns: Sequence[Column[T]]) -> Paint:
    def paint(row: int, position: int, text: str) -> str:
        tone = columns[position].tone
        if tone is None or text.strip() == NOTHING:
            return text
        return colour.painted(text, tone(rows[row]), is_wanted=True)

    return paint


def show_table(rows: Sequence[T], columns: Sequence[Column[T]], now: float, *, wide: bool, whole: bool) -> None:
    for line in table_lines(rows, visible(rows, columns, wide=wide), now, whole=whole):
        click.echo(line)


def show_data(data: object, output: str) -> None:
    """As YAML if that is asked for, else as JSON."""
    click.echo(as_text(data, output), nl=False)


def as_text(data: object, output: str) -> str:
    if output == "yaml":
        import yaml

        return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=False))
    return json.dumps(data, indent=2) + "\n"


def show_facts(facts: Iterable[tuple[str, object]]) -> None:
    """One line per fact, the names aligned."""
    shown = [(name, "-" if value in (None, "") else safe(value)) for name, value in facts]
    longest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name + ':':<{longest + 1}}  {value}")


def heading(text: str) -> str:
    return colour.bold(text, is_wanted=colour.wanted(sys.stdout))


def as_data(session: Session) -> bool:
    return session.output in ("json", "yaml")
