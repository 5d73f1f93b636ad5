"""What a store's refusal means to a user: every `StoreError` becomes one `KvnetError`, in one place.

Conflicts are not here: what a lost race means is for the use case to decide. Once an answer was lost in a use case, no
refusal of it says any more that nothing was changed: what was sent then may be done, or be done yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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

# Of the use case that the code runs for; None: nobody wants to know.
_lost: ContextVar[list[Unknown] | None] = ContextVar("kvnet_lost_answers", default=None)


def note_lost(error: Unknown) -> None:
    """The answer to a commit was lost."""
    lost = _lost.get()
    if lost is not None:
        lost.append(error)


def still_unknown(error: KvnetError) -> KvnetError:
    """Why a use case ends in which an answer was lost before. Looking again told nothing better, or came too late."""
    if isinstance(error, OutcomeUnknown):
        return error
    return OutcomeUnknown(
        f"the store's answer was lost, and then: {error.detail}",
        fix="look whether it is there, or repeat the request with the same id",
        context={"then": error.code},
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
    """Around a whole use case."""
    lost: list[Unknown] = []
    token = _lost.set(lost)
    try:
        yield
    except StoreError as error:
        raise (still_unknown(told(error)) if lost else told(error)) from error
    except KvnetError as error:
        if lost and not isinstance(error, OutcomeUnknown):
            raise still_unknown(error) from error
        raise
    finally:
        _lost.reset(token)
