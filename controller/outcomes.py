"""What a store's refusal means to a user: every `StoreError` becomes one `KvnetError`, in one place.

Conflicts are not here: what a lost race means is for the use case to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backends.store import Broken, Conflict, Refused, StoreError, TooLarge, Unavailable, Unknown
from kvnet.errors import (
    Invalid,
    KvnetError,
    OutcomeUnknown,
    StoreBroken,
    StoreForbidden,
    StoreUnavailable,
    TooMuchContention,
)


def told(error: StoreError) -> KvnetError:
    match error:
        case Unavailable():
            return StoreUnavailable(
                f"the store does not answer: {error}",
                fix="nothing was changed, running workloads are not affected; repeat when 'kvnet status' is well",
            )
        case Unknown():
            return OutcomeUnknown(
                f"the store's answer was lost: {error}",
                fix="look whether it is there, or repeat the request with the same id",
            )
        case Conflict():
            return TooMuchContention(
                f"others were faster every time ({', '.join(error.keys)})", fix="repeat the request"
            )
        case TooLarge():
            return Invalid(f"more than one store transaction can hold: {error}", fix="shorten labels and options")
        case Refused():
            return StoreForbidden(
                f"the store does not allow it: {error}",
                fix="give the controller's credentials write access to its root",
            )
        case Broken():
            return StoreBroken(f"the store cannot serve: {error}", fix="look at the store: is it full or read-only?")
    return StoreBroken(f"the store refused: {error}")


@contextmanager
def store_errors_told() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise told(error) from error
