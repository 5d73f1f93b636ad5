"""Aligned text without boxes: reads well, and `awk`, `cut` and `grep` can take it apart.

Pure: cells in, lines out. Cells must be safe for a terminal already (`cli.safe`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

GAP = "   "
NOTHING = "-"


Paint = Callable[[int, int, str], str]


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max((width(cell or NOTHING) for cell in column), default=0) for column in zip(*rows, strict=True)]


def render(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    paint: Paint | None = None,
) -> list[str]:
    """The title line and one line per row; columns in `right` (by position) are aligned to the right.

    `paint` gets the row's and the column's position and the padded cell, and may put colour around it.
    """
    widths = widths_of([titles, *rows])
    return [line(titles, widths, right), *lines(rows, widths, right=right, paint=paint)]


def lines(
    rows: Sequence[Sequence[str]], widths: Sequence[int], *, right: Collection[int] = (), paint: Paint | None = None
) -> list[str]:
    """Rows in columns whose widths are settled."""
    return [
        line(row, widths, right, None if paint is None else partial(paint, position))
        for position, row in enumerate(rows)
    ]


def line(
    row: Sequence[str],
    widths: Sequence[int],
    right: Collection[int] = (),
    paint: Callable[[int, str], str] | None = None,
) -> str:
    cells = []
    last = len(row) - 1
    for i, (cell, wanted) in enumerate(zip(row, widths, strict=True)):
        shown = cell or NOTHING
        padding = " " * max(0, wanted - width(shown))
        padded = padding + shown if i in right else shown + padding * (i < last)
        cells.append(padded if paint is None else paint(i, padded))
    return GAP.join(cells).rstrip()


def width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
