"""What stands under `meta/`: the cluster's identity, an operator's word that it may be older, a restore under way, and
whether everybody has to say who asks.

Told apart by their fields, because whoever watches `meta/` gets values of all of them. Never guesses at a newer schema:
that has an error of its own, so that nobody takes it for damage.
"""

from __future__ import annotations

import json

from kvnet import codec
from kvnet.errors import StoreTooNew
from kvnet.model import Accepted, Cluster, Restoring
from kvnet.security import Authentication

Meta = Cluster | Accepted | Restoring | Authentication
_MARKS: dict[str, type[Accepted] | type[Restoring] | type[Authentication]] = {
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
        raise StoreTooNew(
            f"the store was written with schema {schema}, and this kvnet knows up to {codec.SCHEMA}",
            fix="upgrade this kvnet; nothing was written",
        )
    return codec.decode(Cluster, data)


def _schema(data: bytes) -> int:
    """The higher of the format's and the cluster's; 0 if it cannot be told."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return 0
    found = [plain.get(name) for name in ("v", "schema")] if isinstance(plain, dict) else []
    return max((number for number in found if type(number) is int), default=0)
