"""Which request the code that runs just now works for: so that log lines, calls to the controller and spans can say it.

A context variable follows a request through tasks and threads without every signature having to carry it. Who takes a
request in enters `asked_by`; everybody else only reads. Decides nothing and is never needed for a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kvnet.codec import Stamp

_NOBODY = Stamp("")
_current: ContextVar[Stamp] = ContextVar("kvnet_request", default=_NOBODY)


def current() -> Stamp:
    """Of the request that is being served; its id is "" where nobody asked, as in the upkeep."""
    return _current.get()


@contextmanager
def asked_by(request_id: str, trace: str = "") -> Iterator[None]:
    token = _current.set(Stamp(request_id, trace))
    try:
        yield
    finally:
        _current.reset(token)
