"""A list that is printed again: each change once, whatever the order in which it is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.listing import Column, Listing
from cli.lists import ListOptions, Sheet
from cli.watching import Appended

Row = dict[str, str]
LISTING: Listing[Row] = Listing(
    columns=(
        Column("NAME", lambda r: r["name"]),
        Column("STATE", lambda r: r["state"]),
        Column("AGE", lambda r: r["at"], is_age=True),
    ),
    name=lambda r: r["name"],
    identity=lambda r: r["name"],
)


def row(name: str, state: str) -> Row:
    return {"name": name, "state": state, "at": "2026-01-01T00:00:00Z"}


def sheet(output: str, **more: bool) -> Sheet[Row]:
    return Sheet(LISTING, ListOptions(output=output, **more))  # type: ignore[arg-type]


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["up", "down"]))))
def test_who_applies_every_change_has_what_is_there(moments: list[dict[str, str]]) -> None:
    said: list[str] = []
    view = Appended(sheet("json"), said.append)

    for moment in moments:
        view.show([row(name, state) for name, state in moment.items()], 0.0)

    known: dict[str, str] = {}
    for line in "".join(said).splitlines():
        told = json.loads(line)
        name, state = told["object"]["name"], told["object"]["state"]
        if told["change"] == "removed":
            del known[name]
        else:
            assert (name in known) == (told["change"] == "changed")
            known[name] = state
    assert known == (moments[-1] if moments else {})


def test_the_passing_of_time_is_no_change() -> None:
    said: list[str] = []
    view = Appended(sheet("table"), said.append)

    view.show([row("a", "up")], 1.8e9)
    view.show([row("a", "up")], 1.9e9)
    view.show([row("a", "down")], 1.9e9)

    lines = "".join(said).splitlines()
    assert [line.split()[0] for line in lines] == ["CHANGE", "added", "changed"]


@pytest.mark.parametrize(("output", "quiet"), [("name", False), ("table", True)])
def test_names_alone_are_of_what_is_new_or_another(output: str, quiet: bool) -> None:
    said: list[str] = []
    view = Appended(sheet(output, quiet=quiet), said.append)

    view.show([row("a", "up"), row("b", "up")], 0.0)
    view.show([row("b", "down")], 0.0)

    assert "".join(said).split() == ["a", "b", "b"]
