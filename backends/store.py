"""The store contract: what every adapter promises, and what each outcome means to the caller.

A store is a consistent map of `/`-paths to bytes. Readers may be told old state, never wrong state; writers are told
the truth or `Unknown`. `tests/store` checks these promises against every adapter on real servers. Nothing here does I/O
and nothing may depend on one adapter's habits.

Keys are relative to the root that the adapter was opened with; it adds and removes the root.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

Revision = int

# The floor that all adapters enforce, so that what works on one works on all (docs/stores.md).
MAX_OPERATIONS = 60  # checks and writes together; Consul allows 64
MAX_VALUE_BYTES = 256 * 1024
MAX_TRANSACTION_BYTES = 300 * 1024  # keys and values; Consul counts the base64 body
MIN_TTL_S = 10.0  # Consul's shortest session
MAX_KEY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value. `version` is the revision of the transaction that wrote it; never reused, also after a delete."""

    key: str
    value: bytes
    version: Revision


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries under a prefix, sorted by key. A watch with `after=revision` continues without a gap."""

    entries: tuple[Entry, ...]
    revision: Revision


@dataclass(frozen=True, slots=True)
class Change:
    """A key's new state: `entry` is None when the key is gone."""

    key: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a watch delivers: changes in the order of their revisions, and the revision up to which all is told.

    `changes` may be empty: then it only says that nothing happened up to `revision`.
    """

    changes: tuple[Change, ...]
    revision: Revision


@dataclass(frozen=True, slots=True)
class Absent:
    """The key must not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The key must exist with exactly this version."""

    key: str
    version: Revision


@dataclass(frozen=True, slots=True)
class Present:
    """The key must exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Put:
    """`session`: an id from `Session.id`; the key vanishes with that session."""

    key: str
    value: bytes
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Deleting a key that does not exist is no error."""

    key: str


Check = Absent | Unchanged | Present
Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Room:
    """How many operations a commit may have: checks and writes together, and of either."""

    together: int = MAX_OPERATIONS
    of_a_kind: int = MAX_OPERATIONS

    def holds(self, checks: int, writes: int) -> bool:
        return checks + writes <= self.together and max(checks, writes) <= self.of_a_kind


FLOOR = Room()


class StoreError(Exception):
    """Base of what a store may raise. Nothing else is raised (but ValueError on misuse)."""


class Conflict(StoreError):
    """A check failed: somebody else was first. Nothing was written. Read again, decide again."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(f"changed meanwhile: {', '.join(keys)}")
        self.keys = tuple(keys)


class Unavailable(StoreError):
    """The store does not answer. Nothing was written; safe to repeat."""


class Unknown(StoreError):
    """The answer was lost: it may or may not be written. Read before repeating."""


class Refused(StoreError):
    """The credentials do not allow it. Repeating will not help."""


class TooLarge(StoreError):
    """Over the floor (operations, value, transaction, key). Nothing was sent."""


class Compacted(StoreError):
    """A watch asked for history that is gone. List again and continue from there."""


class SessionLost(StoreError):
    """The session that a `Put` names, or that was to be resumed, is gone. Nothing was written."""


class Broken(StoreError):
    """The store answers but cannot serve: read-only, full, damaged, not ours. Nothing was written."""


class Session(Protocol):
    """A proof of life that refreshes itself until closed or lost.

    Lost means: its keys are gone or about to go. It is also declared by the holder's own clock, while disconnected, no
    later than the store may expire it; who held something under it must stop acting as the owner then.
    """

    @property
    def id(self) -> str:
        """Opaque; what `Put.session` and `Store.session(resume=...)` take."""
        ...

    @property
    def is_lost(self) -> bool: ...

    async def until_lost(self) -> None:
        """Return when the session is lost (never after `close`)."""
        ...

    async def close(self) -> None:
        """End it now: its keys vanish. Does not raise; if the store is away they vanish with the TTL."""
        ...

    async def release(self) -> None:
        """Stop refreshing without ending it: its keys stay until the TTL runs out or somebody resumes it."""
        ...


class Store(Protocol):
    """A consistent key-value store. All methods may raise `Unavailable` and `Refused`; every wait inside is bounded."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str) -> Snapshot:
        """Every entry whose key starts with `prefix`, as of one revision. One round trip, never one per key."""
        ...

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        """Apply all writes if all checks hold, else nothing. Each key appears at most once among the writes.

        Returns the revision, which is the version of every key put. A check may be about a key that is also written.

        Raises:
            Conflict: a check failed; `.keys` names all that did (sorted). Read again, decide again.
            SessionLost: a put names a session that is gone.
            TooLarge: over the floor; checked before anything is sent.
            Unavailable: not written. Safe to repeat.
            Unknown: may or may not be written. Read before repeating.
            Broken: not written, and repeating will not help until an operator acts.
        """
        ...

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        """Tell every change under `prefix` with a revision above `after`; never ends by itself.

        Level-triggered: intermediate states may be merged and batches repeated, the final state of a key is never
        missed. The first batch comes at once (empty if there is nothing), so that a caller knows that it is connected.

        Raises:
            Compacted: `after` is too old, or ahead of the store (it went back in time). List again.
            Unavailable: the connection is gone (after the adapter's own bounded attempts). Watch again from the last
                batch's revision.
        """
        ...

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        """A new session, or the one with the id `resume` taken over (by the same holder after a reconnect).

        Either counts as a refresh: the TTL starts again.

        Raises:
            SessionLost: `resume` names one that is gone.
            ValueError: `ttl_s` is below the floor.
        """
        ...

    async def close(self) -> None:
        """Release connections and threads. Sessions that were not closed run out."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def room_of(store: object) -> Room:
    """What a commit of this store may hold: what the floor allows, unless it says more.

    For who packs the transactions of many into one, each of which keeps to the floor.
    """
    room: Room = getattr(store, "room", FLOOR)
    return room


def require_floor(checks: Sequence[Check], writes: Sequence[Write], room: Room = FLOOR) -> int:
    """What every adapter calls first in `commit`. Returns the size in bytes.

    Raises:
        TooLarge: over the portable floor.
        ValueError: a key twice among the writes, or not a key.
    """
    if not room.holds(len(checks), len(writes)):
        raise TooLarge(
            f"{len(checks) + len(writes)} operations ({len(checks)} checks); "
            f"at most {room.together}, and {room.of_a_kind} checks or writes"
        )
    written = [write.key for write in writes]
    if len(set(written)) < len(written):
        twice = next(key for key in written if written.count(key) > 1)
        raise ValueError(f"{twice} is written twice in one transaction")
    total = _require_keys([check.key for check in checks] + written)
    for write in writes:
        if isinstance(write, Put):
            if len(write.value) > MAX_VALUE_BYTES:
                raise TooLarge(f"{write.key}: {len(write.value)} bytes; at most {MAX_VALUE_BYTES}")
            total += len(write.value)
    if total > MAX_TRANSACTION_BYTES:
        raise TooLarge(f"{total} bytes in one transaction; at most {MAX_TRANSACTION_BYTES}")
    return total


def _require_keys(keys: Sequence[str]) -> int:
    """The size of all keys in bytes. Looks at all of them at once, and at each only where that is not conclusive."""
    joined = " ".join(["", *keys, ""])
    is_plain = joined.isascii() and joined.isprintable() and max(map(len, keys), default=0) <= MAX_KEY_BYTES
    if is_plain and not ("//" in joined or " /" in joined or "/ " in joined or "  " in joined):
        return len(joined) - len(keys) - 1
    return sum(len(require_key(key)) for key in keys)


def require_key(key: str) -> bytes:
    """The key as bytes. Keys have no empty parts, no control characters, no leading or trailing slash."""
    data = key.encode()
    if not key or "//" in key or key[0] == "/" or key[-1] == "/" or not key.isprintable():
        raise ValueError(f"{key!r} is not a key")
    if len(data) > MAX_KEY_BYTES:
        raise TooLarge(f"a key of {len(data)} bytes; at most {MAX_KEY_BYTES}")
    return data
