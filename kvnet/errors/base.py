"""What every error is: a code, a status, what happened and why, and what to do next.

Here are the base, and the cases that can happen to any request about anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request. `pointer` is a JSON pointer (RFC 6901) into its body."""

    pointer: str
    detail: str


class KvnetError(Exception):
    """Base of all errors a user can meet.

    Attributes:
        code: stable, kebab-case; part of the API.
        status: the HTTP status it is reported with.
        detail: what happened and why, one or two sentences.
        fix: what to do next ("" where nothing can be done).
        errors: per field, for bad input.
        context: more machine-readable facts (plain JSON), shown as members of the problem.
        request_id: of the request that failed, where it came over the wire.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str,
        *,
        fix: str = "",
        errors: Sequence[FieldError] = (),
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix
        self.errors = tuple(errors)
        self.context: Mapping[str, Any] = dict(context or {})
        self.request_id = ""


class Invalid(KvnetError):
    """The request itself is wrong; nothing was looked up, nothing was changed."""

    code = "invalid"
    status = 422
    title = "The request is not valid"

    @classmethod
    def field(cls, pointer: str, detail: str, fix: str = "") -> Self:
        return cls(detail, fix=fix, errors=(FieldError(pointer, detail),))


class NotFound(KvnetError):
    code = "not-found"
    status = 404
    title = "There is no such thing"


class NotSupported(KvnetError):
    """Known to kvnet, but not built (yet). Said at the edge, before anything changes."""

    code = "not-supported"
    status = 422
    title = "Not supported"


class Conflicting(KvnetError):
    """Base of the 409s: the request is fine, the state of the world is against it."""

    code = "conflict"
    status = 409
    title = "It conflicts with what is there"


class PreconditionFailed(KvnetError):
    """If-Match did not match: somebody changed it since. `context["version"]` is the current version."""

    code = "precondition-failed"
    status = 412
    title = "It changed since you looked"


class TooMuchContention(Conflicting):
    """Lost the race more often than the bound allows. Safe to repeat."""

    code = "contention"
    status = 503
    title = "Too many writers at once"


class Abandoned(KvnetError):
    """Whoever asked has gone before it began, so it was not begun: nothing has changed."""

    code = "abandoned"
    status = 499
    title = "Nobody waits for it"


class Gone(KvnetError):
    """A cursor or event position is older than what is kept: start again from a fresh list."""

    code = "gone"
    status = 410
    title = "Too old"


class UnexpectedAnswer(KvnetError):
    """The controller answered without something that this command needs: it is of another version, or has a bug."""

    code = "unexpected-answer"
    status = 502
    title = "The controller answered something unexpected"
