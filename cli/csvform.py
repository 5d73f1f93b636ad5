"""Rows as CSV (RFC 4180), for spreadsheets and other programs. Pure.

A spreadsheet runs a cell that begins with one of = + - @ as a formula, and names and labels may come from anybody: such
a cell gets an apostrophe in front. Control characters are escaped as on a terminal. JSON is for who needs every byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.safe import safe

END = "\r\n"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NEEDS_QUOTES = ('"', ",", "\r", "\n")


def line(cells: Iterable[object]) -> str:
    """One record, with its end."""
    return ",".join(map(field, cells)) + END


def field(value: object) -> str:
    text = safe("" if value is None else value)
    if text.startswith(FORMULA):
        text = f"'{text}"
    if text != text.strip() or any(c in text for c in _NEEDS_QUOTES):
        return '"' + text.replace('"', '""') + '"'
    return text


def document(titles: Sequence[str], rows: Iterable[Sequence[object]], *, headers: bool) -> str:
    records = [line(titles)] if headers else []
    return "".join([*records, *map(line, rows)])
