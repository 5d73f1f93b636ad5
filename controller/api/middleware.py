"""What every request passes through, as one plain ASGI layer: who asks, how long it took, how much it may send.

Gives each request an id (taken from the client when it is a sane one) and a `Caller`, limits the body, answers HEAD by
GET, counts and times, logs one line, and turns an unexpected failure into a 500 problem. Costs microseconds: endpoint
creation is measured through it. Never reads a body itself and never buffers an answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.doorman import ADMITTED
from controller.api.errors import CrossOrigin, PayloadTooLarge
from controller.api.measure import HttpMetrics
from controller.api.outlet import has_gone_of
from controller.api.problems import REQUEST_ID, internal, problem_response
from controller.requests import Caller
from controller.security.authentication import NOBODY, Authenticator, not_good, too_many_failures
from controller.security.endings import Endings
from controller.security.limits import Failures, Rates
from controller.security.permissions import is_open
from controller.security.principal import PRINCIPAL, Principal
from kvnet.concealing import has_token
from kvnet.errors import Invalid, KvnetError, Unauthenticated
from kvnet.request import asked_by, current
from kvnet.spans import UNTOLD, Span, Tracer

MAX_BODY_BYTES = 1024 * 1024
MAX_OPEN_BODY_BYTES = 32 * 1024  # of what anybody may send: a credential, a request for a certificate
CALLER = "kvnet.caller"
NOTE_FAILURE = "kvnet.note_failure"  # for what is open to all and judges credentials itself
IS_HEAD = "kvnet.is_head"
SERVER_ERROR = 500
GONE = 499  # counted for a client that left in the middle of its body; nobody is told
QUIET = frozenset({401, 429, GONE})
MAX_TRACE = 64
MAX_PATH_TOLD = 200

_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}\Z")
_SANE_ACTOR = re.compile(rb"[A-Za-z0-9][A-Za-z0-9 ._:/=+@-]{0,127}\Z")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({b"same-origin", b"none"})

log = logging.getLogger("kvnet.api")


class RequestContext:
    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        authenticator: Authenticator,
        endings: Endings,
        failures: Failures,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        tracer: Tracer = UNTOLD,
    ) -> None:
        self._tracer = tracer
        self._authenticator = authenticator
        self._endings = endings
        self._rates = Rates()
        self._failures = failures
        self._app = app
        self._metrics = metrics
        self._new_id = new_id
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", IS_HEAD: True}
        asked = _Headers(scope)
        request_id = asked.request_id or self._new_id()
        scope[REQUEST_ID] = request_id
        with (
            self._tracer.span(scope["method"], asked.trace, request_id=request_id) as span,
            asked_by(request_id, span.trace or asked.trace, has_gone_of(scope)),
        ):
            await self._answer(scope, receive, send, asked, request_id, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, asked: _Headers, request_id: str, span: Span
    ) -> None:
        started_at = self._clock()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            try:
                principal = await self._admitted(scope, asked)
            except KvnetError as refusal:
                await problem_response(refusal, request_id)(scope, receive, send_with_id)
                return
            scope[PRINCIPAL] = principal
            scope[CALLER] = _caller(principal, asked, request_id)
            limited = self._limited(receive, principal) if scope["method"] in _WITH_BODY else receive
            await self._app(scope, limited, send_with_id)
        except ClientDisconnect:
            status = status or GONE
        except Exception as error:
            facts = {"request_id": request_id, "method": scope["method"], "path": scope["path"][:MAX_PATH_TOLD]}
            log.exception("request-failed", extra={"facts": facts})
            if status:
                raise ConnectionAbortedError("the answer broke off; the client must see that") from error
            await problem_response(internal(request_id), request_id)(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "")
            took_s = self._clock() - started_at
            self._metrics.observe(scope["method"], route, status, took_s)
            span.call(f"{scope['method']} {route}")
            span.note(status=status)
            self._told(scope, asked, request_id, route, status, took_s)

    async def _admitted(self, scope: Scope, asked: _Headers) -> Principal:
        """Who asks; before anything is routed or read.

        Raises:
            KvnetError: this request goes no further.
        """
        refusal = asked.refusal()
        if refusal is not None:
            raise refusal
        now = self._clock()
        is_for_all = is_open(scope["path"])
        asked.require_length(MAX_OPEN_BODY_BYTES if is_for_all else MAX_BODY_BYTES)
        if is_for_all:
            scope[NOTE_FAILURE] = partial(self._failures.note, asked.source, now)
            return NOBODY
        try:
            found = scope.get(ADMITTED) or await self._authenticator.identify(
                scope, asked.authorization, has_cookie=asked.cookie_counts
            )
        except Unauthenticated as error:
            if asked.authorization and self._failures.note(asked.source, now):
                raise too_many_failures() from error
            raise
        self._rates.require(found, now)
        return found

    def _limited(self, receive: Receive, principal: Principal) -> Receive:
        """Counts what really arrives: a chunked body has no Content-Length. Who lets a body wait is looked at again."""
        total, most = 0, MAX_OPEN_BODY_BYTES if principal is NOBODY else MAX_BODY_BYTES

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > most:
                raise HTTPException(413)
            if message["type"] == "http.request" and self._endings.is_over(principal):
                raise not_good()
            return message

        return counted

    def _told(self, scope: Scope, asked: _Headers, request_id: str, route: str, status: int, took_s: float) -> None:
        """What changes something, or fails here, at info; what only looks at debug: there is much of it."""
        is_quiet = (asked.is_safe and status < SERVER_ERROR) or status in QUIET
        level = logging.DEBUG if is_quiet else logging.INFO
        if not log.isEnabledFor(level):
            return
        facts = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route or None,
            "path": scope["path"][:MAX_PATH_TOLD],
            "status": status,
            "duration_ms": round(took_s * 1000, 2),
            "actor": asked.actor or None,
            "source": asked.source,
        }
        log.log(level, "request", extra={"facts": facts})


class _Headers:
    """The few request headers that matter to this layer, found in one pass."""

    __slots__ = (
        "actor",
        "actor_is_sane",
        "authorization",
        "has_cookie",
        "host",
        "is_own_page",
        "is_safe",
        "length",
        "origin",
        "request_id",
        "site",
        "source",
        "trace",
    )

    def __init__(self, scope: Scope) -> None:
        self.request_id = self.actor = self.trace = ""
        self.origin = self.host = self.site = self.authorization = b""
        self.has_cookie = self.is_own_page = False
        self.is_safe = scope["method"] in _SAFE
        self.actor_is_sane = True
        self.length = 0
        client = scope.get("client")
        self.source: str = client[0] if client else "unix"
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                self.request_id = value.decode() if _SANE_ID.match(value) and not _may_be_token(value) else ""
            elif name == b"x-kvnet-actor":
                self.actor_is_sane = _SANE_ACTOR.match(value) is not None and not _may_be_token(value)
                self.actor = value.decode() if self.actor_is_sane else ""
            elif name == b"traceparent":
                self.trace = value.decode("latin-1")[:MAX_TRACE]
            elif name == b"content-length":
                self.length = int(value) if value.isdigit() else 0
            elif name == b"authorization":
                self.authorization = value
            elif name == b"cookie":
                self.has_cookie = True
            elif name == b"x-kvnet-csrf":
                self.is_own_page = value == b"1"
            elif name == b"host":
                self.host = value
            elif name == b"origin":
                self.origin = value
            elif name == b"sec-fetch-site":
                self.site = value

    def refusal(self) -> KvnetError | None:
        if not self.is_safe and self._is_of_another_origin():
            return CrossOrigin(
                "a web page of another origin may not change anything here",
                fix="use this controller's own pages, the command line, or a program",
            )
        if not self.actor_is_sane:
            return Invalid.field(
                "/header/X-Kvnet-Actor",
                "X-Kvnet-Actor is not a name that can go into the journal",
                "1 to 128 letters, digits, spaces or any of . _ : / = + @ -",
            )
        return None

    def require_length(self, most: int) -> None:
        """Raises: PayloadTooLarge."""
        if self.length > most:
            raise PayloadTooLarge(f"a body of {self.length} bytes; at most {most}", fix="send fewer items at once")

    @property
    def cookie_counts(self) -> bool:
        """A browser sends it with whatever any page asks for; only this controller's own pages may use it."""
        return self.has_cookie and not self._is_of_another_origin() and (self.is_safe or self.is_own_page)

    def _is_of_another_origin(self) -> bool:
        """Browsers say so themselves; older ones by an Origin that is not the Host that was asked."""
        if self.site:
            return self.site not in _OWN_SITES
        return bool(self.origin) and self.origin.partition(b"://")[2] != self.host


def _caller(principal: Principal, asked: _Headers, request_id: str) -> Caller:
    """Who is proven has one name; what else it says of itself is only noted."""
    if principal.is_proven:
        return Caller(principal.name, request_id, asked.source, current().trace, asked.actor, principal)
    return Caller(
        asked.actor or f"anonymous@{asked.source}", request_id, asked.source, current().trace, principal=principal
    )


def _may_be_token(value: bytes) -> bool:
    """What a client calls itself and its request is for all to see."""
    return has_token(value.decode("latin-1"))


def note_failure(scope: Scope) -> None:
    """A credential in a body was wrong.

    Raises:
        TooManyFailures: so were many before, from there.
    """
    if scope[NOTE_FAILURE]():
        raise too_many_failures()
