"""What etcd, Consul and ZooKeeper can do by themselves, and what `followed.FollowedStore` makes the whole contract of.

A medium is one client of one server cluster: it connects, authenticates, fails over between endpoints, and translates.
It has no watches of its own; it can be followed, from one place, through everything that is committed under the root.
Never interprets a value, never repeats a write that may have been done, and bounds every wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.store import Change, Check, Entry, Revision, Snapshot, Write

# The adapters' own keys, beside those of the contract under the same root. Nobody else sees them.
PRIVATE = ".kvnet/"
# What an adapter may add to the 60 operations of a transaction: Consul's limit is 64.
PRIVATE_OPERATIONS = 4

# The bounds of waiting, the same everywhere.
REQUEST_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
# A server that was silent for so long is taken for gone, whatever TCP thinks of the connection.
SILENCE_S = 12.0


@dataclass(frozen=True, slots=True)
class Step:
    """What was committed after the step before, up to `revision`; `changes` may be empty.

    `unread`: keys that changed too, whose state was not fetched because `is_wanted` said no. Every told key is in one
    of the two: a watch that resumes later asks for them.
    """

    revision: Revision
    changes: tuple[Change, ...]
    unread: tuple[str, ...] = ()


class Medium(Protocol):
    """Keys are relative to the root. All methods may raise `Unavailable`, `Refused` and `Broken`."""

    async def revision(self) -> Revision:
        """The newest revision that is committed: at least that of every commit acknowledged to anybody before."""
        ...

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """The entries of up to 64 keys, each as new as every commit acknowledged to anybody before the call."""
        ...

    async def scan(self, prefix: str) -> Snapshot:
        """As `Store.list`: all as of one revision, in a few round trips at most. Private keys only if asked for."""
        ...

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write], *, is_told: bool = True) -> Revision:
        """As `Store.commit`, for at most `MAX_OPERATIONS + PRIVATE_OPERATIONS - 1` operations, private keys too.

        `is_told=False`: followers need not hear of it, and the revision need not be above that of other commits; only
        the versions of the keys must still be new. For what is rewritten all the time (leases).

        Raises:
            Conflict, SessionLost, Unavailable, Unknown, Refused, Broken, TooLarge: as `Store.commit`.
        """
        ...

    def follow(self, after: Revision | None, is_wanted: Callable[[str], bool]) -> AsyncIterator[Step]:
        """Every told commit after `after` (None: from now on), in order; revisions grow from step to step.

        The first step comes at once: its revision says from where on everything is told. Private keys are not told.
        Keys for which `is_wanted` is false may be in `Step.unread` instead of the changes, where their state costs a
        read; the step itself always comes: it is also the sign of progress. States in between may be merged. A change's
        entry is never newer than its step.

        Raises:
            Compacted: `after` is further back than what is kept, or ahead of the store. Scan, then follow from None.
            Unavailable: the connection is gone or silent (at most 15 s later). Follow again from the last step.
        """
        ...

    async def close(self) -> None:
        """Release connections and threads; calls under way end with `Unavailable` or `Unknown`."""
        ...


class Sessions(Protocol):
    """How sessions are kept on a medium: natively (etcd) or as entries that want to be refreshed (stored_sessions)."""

    async def grant(self, ttl_s: float) -> str:
        """The id of a new session."""
        ...

    async def refresh(self, session_id: str, ttl_s: float) -> None:
        """
        Raises:
            SessionLost: it is gone.
        """
        ...

    async def revoke(self, session_id: str) -> None:
        """End it: its keys vanish, and followers are told. No error if it is gone."""
        ...

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        """As `Medium.commit`, knowing what `Put.session` means."""
        ...

    def seen(self, entry: Entry) -> Entry:
        """An entry as the contract shows it: its value without what sessions add to it."""
        ...

    async def run(self) -> None:
        """Whatever must be done all the time for other holders' sessions, until cancelled."""
        ...
