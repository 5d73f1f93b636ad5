"""What is true of a whole cluster and not of one network or host: plain data, under `meta/` and `replicas/`.

Which of them stands under which key, and how they are told apart, `kvnet.sentinel` knows. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """The sentinel under `meta/cluster`: absent or changed means that nobody sweeps anything."""

    id: str
    created_at: float
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """Under `meta/level`: everybody writes at most this schema from then on. Absent: that of the sentinel."""

    level: int
    raised_at: float
    by: str


@dataclass(frozen=True, slots=True)
class Replica:
    """A controller, bound to its session. `schema`: the newest that it reads and writes; `version`: of kvnet."""

    id: str
    name: str
    since: float
    schema: int
    version: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """Under `meta/accepted`: an operator took the store as it is, though it is older than what was seen of it.

    `before`: the revision that was seen (0: not known), `now` the one it had when it was accepted.
    """

    id: str
    cluster: str
    accepted_at: float
    actor: str
    before: int = 0
    now: int = 0


@dataclass(frozen=True, slots=True)
class Restoring:
    """Under `meta/restoring`: a restore of the backup with this digest is under way, or was cut short.

    `keeps_secrets`: the store's credentials are this cluster's, and the backup has none.
    """

    backup: str
    cluster: str
    restoring_since: float
    keeps_secrets: bool = False
