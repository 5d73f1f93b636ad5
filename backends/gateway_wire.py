"""How the store contract is spelled on the wire between `backends.gateway` and `controller.api.store`.

JSON with values in base64, one place for both directions of both sides. Pure, and light: a worker imports it. Unknown
members are ignored, so that the two sides may differ in age; a malformed message is a ValueError that names the member.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.store import (
    Absent,
    Batch,
    Broken,
    Change,
    Check,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Present,
    Put,
    Refused,
    Revision,
    SessionLost,
    Snapshot,
    StoreError,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)

Json = dict[str, Any]
MAX_NUMBER = 2**63
MOST_WATCHES = 2_000  # of a connection
MAX_SECONDS = 1e9

# The code of each outcome and the HTTP status it travels with; the client goes by the code alone.
OUTCOMES: Mapping[type[StoreError], tuple[str, int]] = {
    Conflict: ("store-conflict", 409),
    SessionLost: ("store-session-lost", 410),
    Compacted: ("store-compacted", 410),
    TooLarge: ("store-too-large", 413),
    Refused: ("store-refused", 403),
    Unavailable: ("store-unavailable", 503),
    Broken: ("store-broken", 503),
    Unknown: ("outcome-unknown", 504),
}
_BY_CODE = {code: kind for kind, (code, _) in OUTCOMES.items()}

_CHECKS: Mapping[str, type[Absent | Present]] = {"absent": Absent, "present": Present}


def error_to_json(error: StoreError) -> Json:
    """An RFC 9457 problem."""
    code, status = OUTCOMES.get(type(error), OUTCOMES[Unknown])
    problem: Json = {
        "type": f"/problems/{code}",
        "title": "The store said no",
        "status": status,
        "detail": str(error),
        "code": code,
    }
    if isinstance(error, Conflict):
        problem["keys"] = list(error.keys)
    return problem


def error_from_json(problem: object) -> StoreError | None:
    """None when it is not one of ours: a proxy's answer, another service."""
    if not isinstance(problem, dict):
        return None
    kind = _BY_CODE.get(str(problem.get("code")))
    if kind is None:
        return None
    if kind is Conflict:
        keys = problem.get("keys")
        return Conflict([str(key) for key in keys] if isinstance(keys, list) else [])
    return kind(str(problem.get("detail", "")))


def transaction_to_json(checks: Sequence[Check], writes: Sequence[Write]) -> Json:
    return {
        "checks": [_check_to_json(check) for check in checks],
        "writes": [_write_to_json(write) for write in writes],
    }


def transaction_from_json(plain: object) -> tuple[list[Check], list[Write]]:
    """
    Raises:
        ValueError: malformed.
    """
    return (
        [_check_from_json(check) for check in _list(plain, "checks")],
        [_write_from_json(write) for write in _list(plain, "writes")],
    )


def entry_to_json(entry: Entry) -> Json:
    return {"key": entry.key, "version": entry.version, "value": b64encode(entry.value).decode()}


def entry_from_json(plain: object) -> Entry:
    return Entry(text(plain, "key"), _value(plain), number(plain, "version"))


def snapshot_to_json(snapshot: Snapshot) -> Json:
    return {"revision": snapshot.revision, "entries": [entry_to_json(entry) for entry in snapshot.entries]}


def snapshot_from_json(plain: object) -> Snapshot:
    return Snapshot(tuple([entry_from_json(entry) for entry in _list(plain, "entries")]), number(plain, "revision"))


@dataclass(frozen=True, slots=True)
class Watched:
    """`id`: by which the lines of one watch are told from those of others; None where it is alone on its connection."""

    id: int | None
    prefix: str
    after: Revision


def watched_to_json(asked: Sequence[Watched]) -> Json:
    """What a connection is to carry. A single one is asked for so that a controller of before understands it."""
    if len(asked) == 1 and asked[0].id is None:
        return {"prefix": asked[0].prefix, "after": asked[0].after}
    return {"watches": [{"id": one.id, "prefix": one.prefix, "after": one.after} for one in asked]}


def watched_from_json(plain: object) -> list[Watched]:
    """
    Raises:
        ValueError: malformed, none or too many, or two with one id.
    """
    if isinstance(plain, dict) and "watches" in plain:
        asked = [
            Watched(number(one, "id"), text(one, "prefix"), number(one, "after")) for one in _list(plain, "watches")
        ]
        if not 0 < len(asked) <= MOST_WATCHES or len({one.id for one in asked}) < len(asked):
            raise ValueError(f"'watches' is to have 1 to {MOST_WATCHES}, each with an id of its own")
        return asked
    return [Watched(None, text(plain, "prefix"), number(plain, "after"))]


SIGN_OF_LIFE: Json = {"alive": True}  # of all watches of a connection


def is_sign_of_life(plain: object) -> bool:
    return isinstance(plain, dict) and plain.get("alive") is True


def batch_to_json(batch: Batch) -> Json:
    return {"revision": batch.revision, "changes": [change_to_json(change) for change in batch.changes]}


def change_to_json(change: Change) -> Json:
    """A deleted key has no version and no value."""
    return {"key": change.key} if change.entry is None else entry_to_json(change.entry)


def batch_from_json(plain: object) -> Batch:
    changes = [
        Change(text(change, "key"), entry_from_json(change) if "version" in change else None)
        for change in _list(plain, "changes")
    ]
    return Batch(tuple(changes), number(plain, "revision"))


def text(plain: object, name: str) -> str:
    value = _member(plain, name)
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is to be a string")
    value.encode()  # half of a surrogate pair is JSON, and no text
    return value


def number(plain: object, name: str) -> int:
    value = _member(plain, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name!r} is to be an integer")
    if not -MAX_NUMBER <= value < MAX_NUMBER:
        raise ValueError(f"{name!r} is out of range")
    return value


def seconds(plain: object, name: str) -> float:
    value = _member(plain, name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name!r} is to be a number of seconds")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{name!r} is out of range")
    return float(value)


def optional_text(plain: object, name: str) -> str | None:
    return text(plain, name) if isinstance(plain, dict) and plain.get(name) is not None else None


def _check_to_json(check: Check) -> Json:
    if isinstance(check, Unchanged):
        return {"check": "unchanged", "key": check.key, "version": check.version}
    return {"check": "absent" if isinstance(check, Absent) else "present", "key": check.key}


def _check_from_json(plain: object) -> Check:
    kind = text(plain, "check")
    if kind == "unchanged":
        return Unchanged(text(plain, "key"), number(plain, "version"))
    if kind not in _CHECKS:
        raise ValueError(f"there is no check {kind!r}")
    return _CHECKS[kind](text(plain, "key"))


def _write_to_json(write: Write) -> Json:
    if isinstance(write, Delete):
        return {"write": "delete", "key": write.key}
    plain: Json = {"write": "put", "key": write.key, "value": b64encode(write.value).decode()}
    if write.session is not None:
        plain["session"] = write.session
    return plain


def _write_from_json(plain: object) -> Write:
    kind = text(plain, "write")
    if kind == "delete":
        return Delete(text(plain, "key"))
    if kind != "put":
        raise ValueError(f"there is no write {kind!r}")
    return Put(text(plain, "key"), _value(plain), optional_text(plain, "session"))


def _value(plain: object) -> bytes:
    return b64decode(text(plain, "value"), validate=True)


def _list(plain: object, name: str) -> list[Any]:
    value = _member(plain, name)
    if not isinstance(value, list):
        raise ValueError(f"{name!r} is to be a list")
    return value


def _member(plain: object, name: str) -> object:
    if not isinstance(plain, dict):
        raise ValueError(f"an object with {name!r} was expected")
    if name not in plain:
        raise ValueError(f"{name!r} is missing")
    return plain[name]
