"""Aligned text without boxes: reads well, and `awk`, `cut` and `grep` can take it apart.

Pure: cells in, lines out. Cells must be safe for a terminal already (`cli.safe`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = "   "
NOTHING = "-"


def render(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """The title line and one line per row; columns in `right` (by position) are aligned to the right."""
    shown = [titles, *([cell or NOTHING for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in shown) for i in range(len(titles))]
    return [_line(row, widths, right) for row in shown]


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    cells = []
    for i, (cell, wanted) in enumerate(zip(row, widths, strict=True)):
        padding = " " * (wanted - width(cell))
        cells.append(padding + cell if i in right else cell + padding)
    return GAP.join(cells).rstrip()


def width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
