"""What kazoo's exceptions mean to whoever asked: whether it was written decides between `Unavailable` and `Unknown`."""

from __future__ import annotations

from kazoo.exceptions import (
    BadArgumentsError,
    InvalidACLError,
    KazooException,
    MarshallingError,
    NoAuthError,
    SessionMovedError,
    UnimplementedError,
)

from backends.store import Broken, Refused, StoreError, Unavailable, Unknown
from backends.zookeeper_wire import Request


def store_error(place: str, error: KazooException, request: Request) -> StoreError:
    reason = type(error).__name__.removesuffix("Error")
    if isinstance(error, NoAuthError):
        return Refused(f"{place} does not allow it")
    if isinstance(error, InvalidACLError):
        return Refused(f"{place} knows no identity of ours that could own a node")
    if isinstance(error, SessionMovedError):
        return Unavailable(f"{place}: the session moved to another server")
    if isinstance(error, (UnimplementedError, MarshallingError, BadArgumentsError)):
        return Broken(f"{place} cannot serve: {reason}")
    if request.is_write and request.was_sent:
        return Unknown(f"the connection to {place} broke before the answer ({reason})")
    return Unavailable(f"no connection to {place} ({reason})")
