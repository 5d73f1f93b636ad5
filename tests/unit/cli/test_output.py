"""How lists are printed: columns that come and go, cut cells, colour only where it is wanted."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import colour, listing
from cli.listing import Column, Listing, chosen
from cli.output import show_facts, show_table

Row = dict[str, str]
COLUMNS: tuple[Column[Row], ...] = (
    Column("NAME", lambda r: r["name"]),
    Column("NOTE", lambda r: r["note"], long=True),
    Column("TROUBLE", lambda r: r.get("trouble", ""), if_any=True),
    Column("ID", lambda r: r["id"], wide=True),
)
LISTING: Listing[Row] = Listing(
    COLUMNS,
    name=lambda r: r["name"],
    identity=lambda r: r["id"],
    filters={"name": listing.containing(lambda r: r["name"]), "id": listing.starting(lambda r: r["id"])},
)


def row(name: str, note: str = "", **more: str) -> Row:
    return {"name": name, "note": note, "id": f"id-{name}", **more}


def titles(capsys: pytest.CaptureFixture[str], rows: list[Row], *, wide: bool = False) -> list[str]:
    show_table(rows, COLUMNS, 0.0, wide=wide, whole=False)
    return capsys.readouterr().out.splitlines()[0].split()


def test_a_column_for_troubles_is_there_when_there_are_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert titles(capsys, [row("a")]) == ["NAME", "NOTE"]
    assert titles(capsys, [row("a"), row("b", trouble="x")]) == ["NAME", "NOTE", "TROUBLE"]
    assert titles(capsys, [row("a")], wide=True) == ["NAME", "NOTE", "ID"]
    assert titles(capsys, []) == ["NAME", "NOTE"]


def test_only_long_cells_are_cut_and_only_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 60

    show_table([row(long, long)], COLUMNS, 0.0, wide=False, whole=False)
    cut = capsys.readouterr().out.splitlines()[1].split()
    show_table([row(long, long)], COLUMNS, 0.0, wide=False, whole=True)
    whole = capsys.readouterr().out.splitlines()[1].split()

    assert cut == [long, "x" * 39 + "…"]
    assert whole == [long, long]


def test_a_cell_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([row("\x1b[2J", "\x9b1A")], COLUMNS, 0.0, wide=True, whole=False)
    show_facts([("Name", "\x1b]0;x\x07"), ("Nothing", "")])

    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "is_coloured"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"CLICOLOR": "0"}, False),
        (StringIO(), {"TERM": "xterm"}, False),
        (StringIO(), {"TERM": "xterm", "CLICOLOR_FORCE": "0"}, False),
        (StringIO(), {"TERM": "xterm", "CLICOLOR_FORCE": "1"}, True),
    ],
)
def test_colour_needs_a_terminal_that_wants_it_or_an_order(
    stream: StringIO, environment: dict[str, str], is_coloured: bool
) -> None:
    assert colour.wanted(stream, environment) is is_coloured


@given(st.lists(st.builds(row, st.text(), st.text())), st.lists(st.tuples(st.sampled_from(["name", "id"]), st.text())))
def test_what_is_listed_passes_one_filter_of_every_key(rows: list[Row], filters: list[tuple[str, str]]) -> None:
    kept = chosen(rows, LISTING, filters, None, 0.0)

    def passes(one: Row) -> bool:
        parts = [value for key, value in filters if key == "name"]
        starts = [value for key, value in filters if key == "id"]
        by_name = not parts or any(part in one["name"] for part in parts)
        return by_name and (not starts or any(one["id"].startswith(start) for start in starts))

    assert kept == [one for one in rows if passes(one)]
