"""The SQLite file itself: how it is opened, what is in it, and what its errors mean.

A file that is not ours, damaged, read-only or newer than this kvnet is refused at open with the reason and the way out;
it is never altered to fit. Blocking: called only from the store's own threads.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from backends.store import Broken, StoreError, Unavailable
from kvnet.errors import StoreBroken, StoreUnavailable

APPLICATION_ID = 0x6B766E74  # "kvnt"
SCHEMA = 1
BUSY_TIMEOUT_S = 5.0
STATEMENTS_KEPT = 128
# A fast look for damage at open; beyond this size it would delay the start.
CHECKED_BYTES = 16 * 1024 * 1024

# Keys of our own rows sort before every key a caller may use (those are printable) and cannot collide with one.
FIRST_KEY = " "
AFTER_ALL_KEYS = "\U0010ffff"
REVISION_KEY = "\x01revision"
COMPACTED_KEY = "\x01compacted"
SESSIONS = "\x01session/"

# A deleted key stays as a row without a value until it is purged: that is how a watch learns of it.
TABLES = f"""
CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB, revision INTEGER NOT NULL, session TEXT) WITHOUT ROWID;
CREATE INDEX entries_by_revision ON entries (revision);
CREATE INDEX entries_of_sessions ON entries (session) WHERE session IS NOT NULL;
CREATE INDEX deleted_entries ON entries (revision) WHERE value IS NULL;
INSERT INTO entries VALUES ('{REVISION_KEY}', x'', 0, NULL), ('{COMPACTED_KEY}', x'', 0, NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
"""


def prepare(path: str | Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Path:
    """Make sure that there is a kvnet store at `path`; a new one is readable by its owner only. Its absolute path.

    Raises:
        StoreBroken, StoreUnavailable: with what to do about it.
    """
    path = Path(path).absolute()
    _require_file(path)
    try:
        connection = connect(path, busy_timeout_s=busy_timeout_s)
        try:
            _require_ours(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _at_open(path, error) from error
    return path


def connect(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection for the one thread that uses it."""
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_s,
        isolation_level=None,
        cached_statements=STATEMENTS_KEPT,
        check_same_thread=False,
    )
    for pragma in ("synchronous = FULL", "wal_autocheckpoint = 4000", "cache_size = -16000", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Place:
    """The file and its log as first seen, to notice when something else, or nothing, stands under their names.

    SQLite itself goes on writing into a file that was removed, and what it acknowledges then is lost at the next start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._seen = self._look()

    def trouble(self) -> str:
        """ "" while all is as it was."""
        file, log, is_empty = self._look()
        if file != self._seen[0]:
            return f"{self._path} was moved, removed or replaced; restart to use what is there now"
        if log != self._seen[1]:
            return f"{self._log} was moved or removed; restart, and look with 'kvnet check' what is missing"
        if is_empty:
            return f"{self._path} was emptied by somebody else; restore a backup"
        return ""

    def _look(self) -> tuple[tuple[int, int], tuple[int, int], bool]:
        file, log = _stat(self._path), _stat(self._log)
        return (file.st_dev, file.st_ino), (log.st_dev, log.st_ino), file.st_size == 0


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        return os.stat_result((0,) * 10)


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """What an error on an open store means to the caller; nothing was written."""
    primary = _primary_code(error)
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unavailable(f"{path} is locked by another process")
    return Broken(f"{path}: {_reason(primary, error)}")


def is_unknown_outcome(error: sqlite3.Error) -> bool:
    """True when a COMMIT that failed so may still be on the disk."""
    return _primary_code(error) == sqlite3.SQLITE_IOERR


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _reason(primary: int, error: sqlite3.Error) -> str:
    reasons = {
        sqlite3.SQLITE_FULL: "the disk is full; free some space",
        sqlite3.SQLITE_READONLY: "it is read-only for this process",
        sqlite3.SQLITE_PERM: "this process may not use it",
        sqlite3.SQLITE_CANTOPEN: "it, or a file beside it, cannot be opened",
        sqlite3.SQLITE_CORRUPT: "it is damaged",
        sqlite3.SQLITE_NOTADB: "it is not a database",
        sqlite3.SQLITE_IOERR: "the disk reports an error",
    }
    return f"{reasons.get(primary, 'SQLite refuses')} ({error})"


def _require_file(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise StoreBroken(f"{folder} is not a directory", fix=f"create it: mkdir -p {folder}")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except IsADirectoryError:
        raise StoreBroken(f"{path} is a directory", fix="name a file in it") from None
    except PermissionError as error:
        what = path if path.exists() else folder
        raise StoreBroken(
            f"{what} is not writable for user {os.geteuid()}", fix="run as its owner, or choose another path"
        ) from error
    except OSError as error:
        raise StoreBroken(f"{path} cannot be opened: {error.strerror}", fix="choose another path") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreBroken(f"{path} is not a file", fix="choose another path")
    finally:
        os.close(descriptor)


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    is_new = _is_new(connection, path)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreBroken(
            f"{path}: SQLite cannot use a write-ahead log there (journal mode {mode!r})",
            fix="put it on a local file system; network file systems cannot share memory",
        )
    # Also for an old file: it tells now whether this process may write.
    connection.execute("BEGIN IMMEDIATE")
    try:
        if is_new and _is_new(connection, path):
            for statement in TABLES.strip().split(";\n"):
                connection.execute(statement)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")
    if path.stat().st_size <= CHECKED_BYTES:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _damaged(path, found)


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """
    Raises:
        StoreBroken: it is neither new nor ours; nothing in it was touched.
    """
    application, schema, objects = connection.execute(
        "SELECT * FROM pragma_application_id, pragma_user_version, (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    if application == 0 and objects == 0:
        return True
    if application & 0xFFFFFFFF != APPLICATION_ID:
        raise StoreBroken(
            f"{path} is a database of another program", fix="choose another path; kvnet never alters foreign files"
        )
    if schema > SCHEMA:
        raise StoreBroken(
            f"{path} was written by a newer kvnet (schema {schema}; this one knows {SCHEMA})", fix="upgrade this kvnet"
        )
    return False


def _at_open(path: Path, error: sqlite3.Error) -> StoreBroken | StoreUnavailable:
    primary = _primary_code(error)
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreUnavailable(f"{path} is locked by another process", fix=f"see who has it open: fuser {path}")
    if primary == sqlite3.SQLITE_NOTADB:
        return StoreBroken(f"{path} is not a SQLite database", fix="choose another path, or move the file away")
    if primary == sqlite3.SQLITE_CORRUPT:
        return _damaged(path, str(error))
    return StoreBroken(f"{path}: {_reason(primary, error)}", fix="see the reason; nothing was changed")


def _damaged(path: Path, what: str) -> StoreBroken:
    return StoreBroken(f"{path} is damaged: {what}", fix=f"restore a backup, or salvage: sqlite3 {path} .recover")
