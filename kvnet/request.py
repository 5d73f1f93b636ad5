"""Which request the code that runs just now works for: so that log lines, calls to the controller and spans can say it.

A context variable follows a request through tasks and threads without every signature having to carry it. Who takes a
request in enters `asked_by`; everybody else only reads. Decides nothing and is never needed for a result.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar

from kvnet.codec import Stamp

_NOBODY = Stamp("")
_current: ContextVar[Stamp] = ContextVar("kvnet_request", default=_NOBODY)


def current() -> Stamp:
    """Of the request that is being served; its id is "" where nobody asked, as in the upkeep."""
    return _current.get()


def asked_by(request_id: str, trace: str = "") -> AbstractContextManager[None]:
    return _Asked(Stamp(request_id, trace))


class _Asked:
    """A class, for a generator takes three times as long, and every request passes here."""

    __slots__ = ("_stamp", "_token")

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp

    def __enter__(self) -> None:
        self._token = _current.set(self._stamp)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
