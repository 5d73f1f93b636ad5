"""The SQL of the SQLite store: few statements, each with one row in its answer.

Python's sqlite3 gives the interpreter lock away around every step, and beside a busy event loop each return costs up to
a whole switch interval: 2,000 rows fetched one by one took 3 s where one aggregated row took 12 ms. So answers come
folded into one row and writes go many to a statement. Blocking; pure apart from the connection it is given.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from backends.sqlite_file import AFTER_ALL_KEYS, COMPACTED_KEY, FIRST_KEY, REVISION_KEY, SESSIONS
from backends.store import Change, Compacted, Entry, Revision, Snapshot

PAGE_ROWS = 5_000
FIRST_CHARACTER = "\x01"  # no key has one before it
MIN_ROWS_A_STATEMENT = 4
MAX_ROWS_A_STATEMENT = 1024

Row = tuple[str, bytes | None, Revision, str | None]

_FOLDED = (
    "group_concat(key, char(10)), group_concat(revision), group_concat(coalesce(length(value), -1)),"
    " group_concat(hex(value), '')"
)
_MARKS = (
    f"(SELECT revision FROM entries WHERE key = '{REVISION_KEY}'),"
    f" (SELECT revision FROM entries WHERE key = '{COMPACTED_KEY}')"
)
_GET = "SELECT value, revision FROM entries WHERE key = ? AND value IS NOT NULL"
_PAGE = (
    f"SELECT {_MARKS}, {_FOLDED} FROM (SELECT key, value, revision FROM entries"
    " WHERE key >= ? AND key < ? AND value IS NOT NULL ORDER BY key LIMIT ?)"
)
_LOG = (
    f"SELECT {_MARKS}, {_FOLDED} FROM (SELECT key, value, revision FROM entries"
    " WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision)"
)
_VERSIONS = (
    "SELECT group_concat(entries.revision || ' ' || entries.key, char(10))"
    " FROM json_each(?) AS wanted CROSS JOIN entries ON entries.key = wanted.value WHERE entries.value IS NOT NULL"
)
_OF_SESSION = "SELECT group_concat(key, char(10)) FROM entries WHERE session = ?"
_PURGE = f"DELETE FROM entries WHERE value IS NULL AND (revision <= ? OR key < '{FIRST_KEY}')"


@dataclass(frozen=True, slots=True)
class LogPart:
    """The latest change of every key that changed after the asked revision, in the order of revisions."""

    changes: tuple[tuple[Revision, Change], ...]
    revision: Revision


def read_entry(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(_GET, (key,)).fetchone()
    return Entry(key, row[0], row[1]) if row else None


def read_prefix(connection: sqlite3.Connection, prefix: str) -> Snapshot:
    """Every entry under the prefix, as of one moment."""
    first, end = _range(prefix)
    found: list[Entry] = []
    connection.execute("BEGIN")
    try:
        while True:
            revision, _, *folded = connection.execute(_PAGE, (first, end, PAGE_ROWS)).fetchone()
            page = [Entry(key, value, version) for key, value, version in _unfold(*folded) if value is not None]
            found += page
            if len(page) < PAGE_ROWS:
                return Snapshot(tuple(found), revision)
            # A second lower bound would not be looked up but compared, with every key from the first one of all.
            first = page[-1].key + FIRST_CHARACTER
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def read_log(connection: sqlite3.Connection, prefix: str, after: Revision) -> LogPart:
    """
    Raises:
        Compacted: that far back, or ahead of us.
    """
    revision, compacted, *folded = connection.execute(_LOG, (after, *_range(prefix))).fetchone()
    if after < compacted or after > revision:
        raise Compacted(f"revision {after}; there is {compacted} to {revision}")
    changes = [
        (version, Change(key, None if value is None else Entry(key, value, version)))
        for key, value, version in _unfold(*folded)
    ]
    return LogPart(tuple(changes), revision)


def read_marks(connection: sqlite3.Connection) -> tuple[Revision, Revision]:
    """The store's revision, and the one up to which deletions were purged."""
    revision, compacted = connection.execute(f"SELECT {_MARKS}").fetchone()
    return revision, compacted


def read_versions(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Revision]:
    """The versions of those of the keys that exist."""
    folded = connection.execute(_VERSIONS, (json.dumps(list(keys)),)).fetchone()[0]
    if folded is None:
        return {}
    pairs = (line.split(" ", 1) for line in folded.split("\n"))
    return {key: int(revision) for revision, key in pairs}


def read_keys_of_session(connection: sqlite3.Connection, session: str) -> list[str]:
    folded = connection.execute(_OF_SESSION, (session,)).fetchone()[0]
    return folded.split("\n") if folded else []


def read_data_version(connection: sqlite3.Connection) -> int:
    """Another number whenever another connection has committed."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def write_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Put all rows; each key once. The last one is repeated to fill up a statement that is already prepared."""
    for start in range(0, len(rows), MAX_ROWS_A_STATEMENT):
        part = rows[start : start + MAX_ROWS_A_STATEMENT]
        size = max(MIN_ROWS_A_STATEMENT, 1 << (len(part) - 1).bit_length())
        values = [column for row in part for column in row]
        values += part[-1] * (size - len(part))
        connection.execute(_put_statement(size), values)


def purge(connection: sqlite3.Connection, horizon: Revision) -> None:
    """Forget deletions up to and with that revision."""
    connection.execute(_PURGE, (horizon,))
    write_rows(connection, [(COMPACTED_KEY, b"", horizon, None)])


def session_key(session: str) -> str:
    return f"{SESSIONS}{session}"


@cache
def _put_statement(rows: int) -> str:
    values = ",".join(["(?,?,?,?)"] * rows)
    return (
        f"INSERT INTO entries (key, value, revision, session) VALUES {values} ON CONFLICT (key) DO UPDATE"
        " SET value = excluded.value, revision = excluded.revision, session = excluded.session"
    )


def _range(prefix: str) -> tuple[str, str]:
    return max(prefix, FIRST_KEY) if not prefix.startswith("\x01") else prefix, prefix + AFTER_ALL_KEYS


def _unfold(keys: str | None, revisions: str, lengths: str, values: str) -> list[tuple[str, bytes | None, Revision]]:
    if keys is None:
        return []
    data = bytes.fromhex(values)
    rows: list[tuple[str, bytes | None, Revision]] = []
    start = 0
    for key, revision, length in zip(keys.split("\n"), revisions.split(","), lengths.split(","), strict=True):
        size = int(length)
        if size < 0:
            rows.append((key, None, int(revision)))
        else:
            rows.append((key, data[start : start + size], int(revision)))
            start += size
    return rows
