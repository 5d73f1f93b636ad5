"""HTTP to a Consul cluster: which endpoint, who we are, how long to wait, and what a refusal means.

Every call ends within its bound, as an answer or as one of the store's errors. Never sends a write twice unless it
surely did not leave, and never lets the token into a message.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import aiohttp
import yarl

from backends.lease import Clock
from backends.medium import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S
from backends.store import Broken, Refused, Unavailable, Unknown
from backends.url import Endpoint, Secret, ServerUrl, Tls
from kvnet.errors import Invalid, StoreUntrusted

# Consul allows 200 connections from one address unless told otherwise (limits.http_max_conns_per_client).
MAX_CONNECTIONS = 128
# A read may be asked of each endpoint once, for so long in all.
READ_BOUND_S = 2 * REQUEST_TIMEOUT_S
# Said before anything was done: "No leader errors are always safe to retry since no state could have been changed".
NO_LEADER = ("No cluster leader", "node is not the leader")
UNKNOWN_TOKEN = "ACL not found"
PLAIN_TO_TLS = "HTTP request to an HTTPS server"


class NotServing(Unavailable):
    """The server is there, but cannot reach a leader, or is silent: Consul holds a request for 7 s to find one."""


class Untrusted(Unavailable):
    """TLS failed: nothing was sent. `fix` says what an operator can do."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(f"{detail}; {fix}")
        self.detail = detail
        self.fix = fix


class LoginRefused(Refused):
    """The token is not known."""


class Forbidden(Refused):
    """The token is known, and may not do this."""


class AnswerLost(aiohttp.ClientError):
    """The connection broke when the request may have left."""


# Consul would compress every answer, which costs both sides more than a local network does.
PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body[:500].decode(errors="replace").strip()


async def _never_twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats a PUT by itself when a kept connection breaks. A transaction must not be repeated."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise AnswerLost(str(error)) from error


class ConsulHttp:
    """The endpoints of one cluster, the one that works first."""

    def __init__(self, url: ServerUrl, *, clock: Clock = time.monotonic) -> None:
        """
        Raises:
            Invalid: the token's file cannot be read.
            StoreUntrusted: a certificate or key of ours cannot be used.
        """
        self._endpoints = url.endpoints
        self._scheme = "https" if url.tls else "http"
        self._secret = url.secret
        self._token = _token(url.secret)
        self._clock = clock
        self._first = 0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=_context(url.tls) if url.tls else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_never_twice,),
        )

    async def read(self, path: str, body: bytes | None = None) -> Reply:
        """200, 404 or 409, from whichever endpoint answers. With a body: a transaction that only reads.

        Raises:
            Unavailable, Refused, Broken
        """
        deadline = self._clock() + READ_BOUND_S
        failure = Unavailable("no endpoint was asked in time")
        for endpoint in self._in_turn():
            left = deadline - self._clock()
            if left <= 0:
                break
            try:
                return await self._ask(endpoint, path, body, min(left, REQUEST_TIMEOUT_S))
            except Unavailable as error:
                failure = _worse(failure, error)
        raise failure

    async def read_once(self, path: str, timeout_s: float) -> Reply:
        """As `read`, for a question that is answered late on purpose: the caller repeats it himself."""
        return await self._ask(next(self._in_turn()), path, None, timeout_s)

    async def write(self, path: str, body: bytes) -> Reply:
        """200, 409 or 413.

        Raises:
            Unknown: it may or may not have been done.
            Unavailable, Refused, Broken: it was not.
        """
        failure = Unavailable("no endpoint was asked")
        for endpoint in self._in_turn():
            try:
                return await self._ask(endpoint, path, body, REQUEST_TIMEOUT_S, is_write=True)
            except Unavailable as error:
                failure = _worse(failure, error)
        raise failure

    async def close(self) -> None:
        await self._session.close()

    def _in_turn(self) -> Iterator[Endpoint]:
        first = self._first
        for number in range(len(self._endpoints)):
            yield self._endpoints[(first + number) % len(self._endpoints)]

    async def _ask(
        self, endpoint: Endpoint, path: str, body: bytes | None, timeout_s: float, is_write: bool = False
    ) -> Reply:
        try:
            token = self._token
            reply = await self._send(endpoint, path, body, timeout_s, token, is_write)
            if reply.status == 403 and UNKNOWN_TOKEN in reply.text and self._has_another_token(token):
                reply = await self._send(endpoint, path, body, timeout_s, self._token, is_write)
            return _judged(endpoint, reply, is_write)
        except (Unavailable, Unknown):
            # The next call asks another endpoint first: what froze or died costs its time only once.
            if self._endpoints[self._first] == endpoint:
                self._first = (self._first + 1) % len(self._endpoints)
            raise

    async def _send(
        self, endpoint: Endpoint, path: str, body: bytes | None, timeout_s: float, token: str, is_write: bool
    ) -> Reply:
        try:
            async with self._session.request(
                "GET" if body is None else "PUT",
                yarl.URL(f"{self._scheme}://{endpoint}{path}", encoded=True),
                data=body,
                headers={**PLAIN, **({"X-Consul-Token": token} if token else {})},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            ) as response:
                return Reply(response.status, response.headers, await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _tls_failure(endpoint, error) or Unavailable(f"{endpoint} cannot be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:
            if untrusted := _tls_failure(endpoint, error):
                raise untrusted from error
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
            if is_write:
                raise Unknown(f"the answer of {endpoint} was lost: {reason}") from error
            kind = NotServing if isinstance(error, TimeoutError) else Unavailable
            raise kind(f"{endpoint}: {reason}") from error

    def _has_another_token(self, token: str) -> bool:
        """Read again: a token can be changed in its file while we run."""
        if token == self._token:
            self._token = _token(self._secret)
        return token != self._token


def _worse(one: Unavailable, other: Unavailable) -> Unavailable:
    """What says more of two endpoints' failures: that one cannot be trusted, or is there, rather than that none is."""
    for kind in (Untrusted, NotServing):
        if isinstance(one, kind):
            return one
    return other


def _token(secret: Secret) -> str:
    """
    Raises:
        LoginRefused: it cannot be one.
    """
    try:
        token = secret.read() if secret else ""
    except Invalid as error:
        raise LoginRefused(error.detail) from error
    if not token.isascii() or not token.isprintable():
        raise LoginRefused("the token has characters that no token has")
    return token


def _judged(endpoint: Endpoint, reply: Reply, is_write: bool) -> Reply:
    if reply.status in (200, 404, 409) or (reply.status == 413 and is_write):
        return reply
    if reply.status == 403:
        if UNKNOWN_TOKEN in reply.text:
            raise LoginRefused("Consul does not know the token (unknown, expired or revoked)")
        raise Forbidden(f"Consul does not allow it: {reply.text}")
    if reply.status == 429:  # refused before it was looked at
        raise Unavailable(f"{endpoint} has too many connections from here: {reply.text}")
    if reply.status == 400 and PLAIN_TO_TLS in reply.text:
        raise Untrusted(f"{endpoint} speaks TLS only", "say consuls:// instead of consul://")
    if reply.status >= 500:
        if any(words in reply.text for words in NO_LEADER):
            raise NotServing(f"{endpoint}: no cluster leader")
        if is_write:
            raise Unknown(f"{endpoint}: {reply.text}")
        raise NotServing(f"{endpoint}: {reply.text}")
    raise Broken(f"{endpoint} does not answer as Consul does: status {reply.status}, {reply.text[:100]!r}")


def _tls_failure(endpoint: Endpoint, error: BaseException) -> Untrusted | None:
    """A handshake may fail while connecting, or with the first answer: TLS 1.3 tells then that ours is not accepted."""
    cause = _ssl_cause(error)
    if cause is None:
        return None
    reason = getattr(cause, "reason", None) or str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Untrusted(
            f"the certificate of {endpoint} is not trusted: {cause.verify_message}",
            "name the authority that signed it with ?ca=FILE, and the server by a name in its certificate",
        )
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return Untrusted(f"{endpoint} does not speak TLS", "say consul:// instead of consuls://")
    if "ALERT" in reason:
        return Untrusted(
            f"{endpoint} does not accept our certificate, or wants one ({reason})",
            "show it one that its own authority signed: ?cert=FILE&key=FILE",
        )
    return Untrusted(f"TLS with {endpoint} failed: {reason}", "look at the server's TLS settings")


def _ssl_cause(error: BaseException | None) -> ssl.SSLError | None:
    for _ in range(8):
        if error is None:
            return None
        # aiohttp's own errors inherit from those of ssl, but do not say what these do.
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        if isinstance(inner, ssl.SSLError):
            return inner
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.cert:
            # A key that is locked with a password would be asked for at the terminal.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise StoreUntrusted(
            f"the certificates for Consul cannot be used: {error}",
            fix=f"look at {', '.join(file for file in (tls.ca, tls.cert, tls.key) if file)}: PEM, a key that fits",
        ) from error
    return context
