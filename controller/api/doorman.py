"""Turns away at the door, before a request becomes one: whoever bears no credential where one is asked for.

What comes by the thousand a second must cost next to nothing, or real work starves: no task, no middleware, no route,
one answer from a mould. Only says no to what the middleware would say no to, with the same words; whatever is less than
certain goes inside and is judged there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from controller.api.measure import HttpMetrics
from controller.security.authentication import Authenticator, not_good, too_many_failures
from controller.security.limits import Failures
from controller.security.permissions import is_open
from kvnet.errors import KvnetError
from kvnet.problems import to_problem

ADMITTED = "kvnet.admitted"  # in the scope: who the doorman saw, so that nobody looks twice
_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}\Z")
_MARK = "\0id\0"
_REASONS = {401: b"Unauthorized", 429: b"Too Many Requests"}


class Mould:
    """A problem as bytes, but for the request's id. `more`: its further headers."""

    def __init__(self, error: KvnetError, more: bytes) -> None:
        self.status = error.status
        before, after = json.dumps(to_problem(error, instance=_MARK), ensure_ascii=False).split(json.dumps(_MARK)[1:-1])
        self._before, self._after = before.encode(), after.encode()
        self._length = len(self._before) + len(self._after)
        self._head = b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\n%b" % (
            error.status,
            _REASONS[error.status],
            more,
        )

    def cast(self, request_id: bytes, headers: bytes, *, has_body: bool) -> bytes:
        head = b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            self._head,
            headers,
            request_id,
            self._length + len(request_id),
        )
        return b"%b%b%b%b" % (head, self._before, request_id, self._after) if has_body else head


class Doorman:
    def __init__(
        self,
        authenticator: Authenticator,
        failures: Failures,
        metrics: HttpMetrics,
        new_id: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._authenticator = authenticator
        self._failures = failures
        self._metrics = metrics
        self._new_id = new_id
        self._clock = clock
        self._unknown = Mould(not_good(), b'www-authenticate: Bearer realm="kvnet"\r\n')
        self._too_many = Mould(too_many_failures(), b"retry-after: 2\r\n")

    def turn_away(self, scope: dict[str, Any], headers: bytes) -> bytes | None:
        """The answer to who is not let in; None: inside they know more. `headers`: those of every answer."""
        if is_open(scope["path"]):
            return None
        authorization = request_id = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"cookie":
                return None
            elif name == b"x-request-id" and _SANE_ID.match(value):
                request_id = value
        found = self._authenticator.glance(scope, authorization)
        if found is not False:
            if found is not None:
                scope[ADMITTED] = found
            return None
        mould = self._unknown
        if authorization and self._failures.note(_source(scope), self._clock()):
            mould = self._too_many
        method = scope["method"]
        self._metrics.observe(method, "", mould.status, 0.0)
        return mould.cast(request_id or self._new_id().encode(), headers, has_body=method != "HEAD")


def _source(scope: dict[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unix"
