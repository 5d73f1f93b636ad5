"""What stands under `meta/`: the cluster's identity, an operator's word that it may be older, a restore under way,
whether everybody has to say who asks, and at which schema everybody writes.

Told apart by their fields, because whoever watches `meta/` gets values of all of them. Never guesses at a newer schema:
that has an error of its own, so that nobody takes it for damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kvnet import codec, keys
from kvnet.errors import StoreTooNew
from kvnet.marks import Accepted, Cluster, Level, Restoring
from kvnet.security import Authentication

Meta = Cluster | Accepted | Restoring | Authentication | Level
_MARKS: dict[str, type[Accepted] | type[Restoring] | type[Authentication] | type[Level]] = {
    "raised_at": Level,
    "accepted_at": Accepted,
    "restoring_since": Restoring,
    "required_since": Authentication,
}


def decode(data: bytes) -> Meta:
    """
    Raises:
        StoreBroken: none of them, or damaged.
    """
    for mark, kind in _MARKS.items():
        if mark.encode() in data:
            return codec.decode(kind, data)
    return codec.decode(Cluster, data)


def cluster(data: bytes) -> Cluster:
    """The sentinel itself.

    Raises:
        StoreTooNew: written by a newer kvnet.
        StoreBroken: not a sentinel, or damaged.
    """
    schema = _schema(data)
    if schema > codec.SCHEMA:
        raise too_new(schema)
    return codec.decode(Cluster, data)


def require_level(data: bytes | None) -> None:
    """Of what stands under `meta/level`, if anything does.

    Raises:
        StoreTooNew: the cluster was raised to a schema that this kvnet does not know.
    """
    level = _schema(data) if data is not None else 0
    if level > codec.SCHEMA:
        raise too_new(level)


def level_of(entries: Mapping[str, Any]) -> int:
    """The schema at which this cluster writes, of what a mirror of `meta/` holds; 1 while nothing is known of it.

    Told by the bytes, so that one that this kvnet cannot read is known, too.
    """
    level = 1
    for key in (keys.CLUSTER, keys.LEVEL):
        entry = entries.get(key)
        if entry is not None:
            level = max(level, _schema(entry.value))
    return level


def too_new(schema: int) -> StoreTooNew:
    return StoreTooNew(
        f"the store was written with schema {schema}, and this kvnet knows up to {codec.SCHEMA}",
        fix="upgrade this kvnet; nothing was written",
    )


@lru_cache(maxsize=16)
def _schema(data: bytes) -> int:
    """The highest of the format's, the cluster's and the level's; 0 if it cannot be told."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return 0
    found = [plain.get(name) for name in ("v", "schema", "level")] if isinstance(plain, dict) else []
    return max((number for number in found if type(number) is int), default=0)
