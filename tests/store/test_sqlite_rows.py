"""What the SQLite store's reads cost, and that a list of many pages is whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.sqlite_file import connect, prepare
from backends.sqlite_rows import PAGE_ROWS, read_entry, read_log, read_prefix, write_rows

STEPS = 10  # of SQLite's machine, between two calls of its progress handler


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connect(prepare(tmp_path / "store.db"))
    yield opened
    opened.close()


class Meter:
    """How much work the statements are, in the database's own steps."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.steps = 0
        connection.set_progress_handler(self._tick, STEPS)

    def _tick(self) -> int:
        self.steps += STEPS
        return 0


def _keys(connection: sqlite3.Connection, prefix: str, count: int, first_revision: int = 1) -> list[str]:
    keys = [f"{prefix}{number:06}" for number in range(count)]
    write_rows(connection, [(key, key.encode(), first_revision + n, None) for n, key in enumerate(keys)])
    return keys


def test_a_list_costs_what_it_lists_however_much_is_before_and_after_it(connection: sqlite3.Connection) -> None:
    _keys(connection, "m/", 20)
    meter = Meter(connection)
    read_prefix(connection, "m/")
    alone, meter.steps = meter.steps, 0

    _keys(connection, "a/", 3000)
    _keys(connection, "z/", 3000)
    meter.steps = 0
    read_prefix(connection, "m/")

    assert alone > 0
    assert meter.steps <= 1.5 * alone


def test_a_look_at_what_is_new_costs_what_is_new(connection: sqlite3.Connection) -> None:
    _keys(connection, "m/", 20)
    meter = Meter(connection)
    read_log(connection, "m/", 0)
    alone = meter.steps

    _keys(connection, "a/", 3000)
    _keys(connection, "n/", 3000, first_revision=1)
    _keys(connection, "m/", 20, first_revision=5000)
    connection.execute("UPDATE entries SET revision = 6000 WHERE key = '\x01revision'")
    meter.steps = 0
    read_log(connection, "m/", 4999)

    assert alone > 0
    assert meter.steps <= 1.5 * alone


@pytest.mark.parametrize("count", [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 2 * PAGE_ROWS + 7])
def test_a_list_of_several_pages_has_every_entry_once(connection: sqlite3.Connection, count: int) -> None:
    _keys(connection, "l/", 3)
    keys = _keys(connection, "m/", count)
    _keys(connection, "n/", 3)

    found = read_prefix(connection, "m/").entries

    assert [entry.key for entry in found] == keys
    assert all(entry.value == entry.key.encode() for entry in found)


def test_a_page_that_ends_with_a_key_does_not_swallow_those_that_begin_with_it(connection: sqlite3.Connection) -> None:
    keys = _keys(connection, "m/", PAGE_ROWS)
    longer = [f"{keys[-1]} ", f"{keys[-1]}!", f"{keys[-1]}/x"]
    write_rows(connection, [(key, b"v", 1, None) for key in longer])

    found = [entry.key for entry in read_prefix(connection, "m/").entries]

    assert found == [*keys, *longer]
    assert read_entry(connection, longer[0]) is not None
