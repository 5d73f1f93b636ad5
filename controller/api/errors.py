"""What can be wrong with a request as HTTP, before any use case sees it.

Kept apart from `kvnet.errors`: only this room raises them. Each has its page under /problems/<code>.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvnet import errors as known
from kvnet.errors import Invalid, KvnetError


def every_problem(base: type[KvnetError] = KvnetError) -> Iterator[type[KvnetError]]:
    """All that this API may answer with; each has its page."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith((f"{known.__name__}.", __name__)):
            yield kind
        yield from every_problem(kind)


class MalformedRequest(KvnetError):
    """The bytes cannot be read as what they claim to be."""

    code = "malformed"
    status = 400
    title = "The request cannot be read"


class NoSuchPath(KvnetError):
    """The API has no such path; compare `not-found`: the path is right, the thing it names is not there."""

    code = "no-such-path"
    status = 404
    title = "There is no such path"


class MethodNotAllowed(KvnetError):
    code = "method-not-allowed"
    status = 405
    title = "The method is not possible here"


class PayloadTooLarge(KvnetError):
    code = "too-large"
    status = 413
    title = "The request is too large"


class CrossOrigin(KvnetError):
    """A web page of another origin made a browser send this. The API is for programs, and for its own pages."""

    code = "cross-origin"
    status = 403
    title = "Another site's page may not do this"


class UnsupportedMediaType(KvnetError):
    """The body must be JSON and say so; a form posted by a web page in somebody's browser is not."""

    code = "unsupported-media-type"
    status = 415
    title = "The body is not of a type that is read here"


class IdempotencyKeyReused(Invalid):
    """The Idempotency-Key stood for another request before."""

    code = "idempotency-key-reused"
    title = "The Idempotency-Key was used for something else"


class Internal(KvnetError):
    """A bug. The controller's log has the cause under the request id in `instance`."""

    code = "internal"
    title = "The controller failed"
