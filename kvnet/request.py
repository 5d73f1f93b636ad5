"""Which request the code that runs just now works for: so that log lines, calls to the controller and spans can say it.

A context variable follows a request through tasks and threads without every signature having to carry it. Who takes a
request in enters `asked_by`; everybody else only reads. Also whether anybody still waits for it, which is asked once,
before its first change: a process that was frozen for minutes must not begin then what its callers have given up, asked
for elsewhere, and perhaps undone since. What has begun is brought to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar

from kvnet.codec import Stamp

_NOBODY = Stamp("")
_current: ContextVar[Stamp] = ContextVar("kvnet_request", default=_NOBODY)
_unbegun: ContextVar[_Unbegun | None] = ContextVar("kvnet_unbegun", default=None)


def current() -> Stamp:
    """Of the request that is being served; its id is "" where nobody asked, as in the upkeep."""
    return _current.get()


def first_change() -> Callable[[], bool] | None:
    """Whether who asked has gone, for the one who is about to make the request's first change; None for all others."""
    unbegun = _unbegun.get()
    return unbegun.begin() if unbegun is not None else None


def asked_by(
    request_id: str, trace: str = "", has_gone: Callable[[], bool] | None = None
) -> AbstractContextManager[None]:
    """`has_gone`: whether nobody waits for an answer any more; None where that cannot be known."""
    return _Asked(Stamp(request_id, trace), _Unbegun(has_gone))


class _Asked:
    """A class, for a generator takes three times as long, and every request passes here."""

    __slots__ = ("_stamp", "_token", "_unbegun", "_unbegun_token")

    def __init__(self, stamp: Stamp, unbegun: _Unbegun) -> None:
        self._stamp = stamp
        self._unbegun = unbegun

    def __enter__(self) -> None:
        self._token = _current.set(self._stamp)
        self._unbegun_token = _unbegun.set(self._unbegun)

    def __exit__(self, *_: object) -> None:
        _unbegun.reset(self._unbegun_token)
        _current.reset(self._token)
        self._unbegun.begin()  # tasks that outlive the request have its context for ever


class _Unbegun:
    __slots__ = ("_has_gone",)

    def __init__(self, has_gone: Callable[[], bool] | None) -> None:
        self._has_gone = has_gone

    def begin(self) -> Callable[[], bool] | None:
        has_gone, self._has_gone = self._has_gone, None
        return has_gone
