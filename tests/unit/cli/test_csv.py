"""Rows as CSV: what a reader of RFC 4180 gets back is what was there, and no spreadsheet is told what to do."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from cli import csvform

printable = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(' ,"'))


@given(st.lists(st.lists(printable, min_size=2, max_size=4), min_size=1))
def test_what_is_written_is_read_back(rows: list[list[str]]) -> None:
    text = csvform.document(["A", "B"], rows, headers=False)

    read = list(csv.reader(io.StringIO(text, newline="")))

    assert [[cell.removeprefix("'") for cell in row] for row in read] == [
        [cell.removeprefix("'") for cell in row] for row in rows
    ]


@given(st.text())
def test_no_cell_is_a_formula_or_speaks_to_a_terminal(cell: str) -> None:
    written = csvform.field(cell)
    bare = written.removeprefix('"')

    assert not bare.startswith(csvform.FORMULA)
    assert written.isprintable() or not written


def test_records_end_as_the_standard_says_and_nothing_is_empty() -> None:
    assert csvform.document(["A", "B"], [["=1+1", None], ["x,y", 3]], headers=True) == ('A,B\r\n\'=1+1,\r\n"x,y",3\r\n')
