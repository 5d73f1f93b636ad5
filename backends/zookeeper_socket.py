"""The connections that kazoo makes, and why they fail: TLS as we mean it, secrets read anew for every attempt.

kazoo by itself believes the system's authorities beside the one given, does not look at the host name unless asked,
waits a whole session for one address, also for one that takes the connection and says nothing, and swallows what TLS
said. Runs in kazoo's thread; never touches the loop.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler

from backends.medium import REQUEST_TIMEOUT_S
from backends.url import ServerUrl
from kvnet.errors import Invalid

# How long a server that took a connection may say nothing, until a session is there and logged in; twice as long when
# it is tried again, for a new session is a write, and may be slow. Slower than a request may be is of no use.
PATIENCE_S = 2.0
MAX_PATIENCE_S = REQUEST_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with one attempt. `is_trust`: over the certificates, the server's or ours."""

    place: str
    reason: str
    is_trust: bool = False


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types; a handler is how it is extended
    """`on_attempt(place, None)` is called before every attempt, with a `Trouble` after one that failed."""

    def __init__(
        self,
        url: ServerUrl,
        timeout_s: float,
        on_attempt: Callable[[str, Trouble | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.client: KazooClient | None = None
        self._url = url
        self._timeout_s = timeout_s
        self._on_attempt = on_attempt
        self._clock = clock
        self._socket: socket.socket | None = None
        self._patience: dict[str, float] = {}
        self._greeted = ""  # the place that took our connection, until kazoo serves it
        self._greeted_until = 0.0

    def sasl_options(self) -> dict[str, str] | None:
        if not self._url.user or self._url.auth != "sasl":
            return None
        return {"mechanism": "DIGEST-MD5", "username": self._url.user, "password": ""}

    def select(
        self, readers: Sequence[Any], writers: Sequence[Any], errors: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As select.select. What TLS has already decrypted wakes no poll, so it is asked for."""
        if len(readers) > 1:  # kazoo's requests beside the server's answers: the session is there, and logged in
            self._greeted = ""
            self._patience.clear()
        if not self._greeted:
            return self._select(readers, writers, timeout)
        left_s = max(0.0, self._greeted_until - self._clock())
        ready = self._select(readers, writers, left_s if timeout is None else min(timeout, left_s))
        if not any(ready) and self._clock() >= self._greeted_until:
            self._give_up(self._greeted)
        return ready

    def _select(
        self, readers: Sequence[Any], writers: Sequence[Any], timeout: float | None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        buffered = [one for one in readers if isinstance(one, ssl.SSLSocket) and one.pending()]
        poll = select.poll()
        for one in readers:
            poll.register(one, select.POLLIN)
        for one in writers:
            poll.register(one, select.POLLOUT)
        wait_ms = 0 if buffered else None if timeout is None else timeout * 1000
        ready = {descriptor for descriptor, _ in poll.poll(wait_ms)}
        readable = [one for one in readers if one in buffered or one.fileno() in ready]
        return readable, [one for one in writers if one.fileno() in ready], []

    def create_connection(self, address: tuple[str, int], hostname: str = "", **_: Any) -> socket.socket:
        place = f"{hostname or address[0]}:{address[1]}"
        self._on_attempt(f"{address[0]}:{address[1]}", None)
        try:
            self._log_in()
            connection = socket.create_connection(address, timeout=self._timeout_s)
        except Invalid as error:
            self._on_attempt(place, Trouble(place, error.detail))
            raise OSError(error.detail) from error
        except OSError as error:
            self._on_attempt(place, Trouble(place, error.strerror or str(error)))
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        patience_s = self._patience.get(place, PATIENCE_S)
        self._greeted, self._greeted_until = place, self._clock() + patience_s
        if self._url.tls is None:
            return connection
        connection.settimeout(patience_s)
        try:
            self._socket = self._wrapped(connection, hostname, place)
        except TimeoutError:
            connection.close()
            self._give_up(place)
            raise
        except OSError as error:
            connection.close()
            self._on_attempt(place, Trouble(place, tls_reason(error), isinstance(error, ssl.SSLError)))
            raise
        return self._socket

    def _give_up(self, place: str) -> None:
        """It took the connection, and says nothing; kazoo goes on to the next."""
        patience_s = self._patience.get(place, PATIENCE_S)
        self._patience[place] = min(2 * patience_s, MAX_PATIENCE_S)
        self._greeted = ""
        self._on_attempt(place, Trouble(place, f"it takes connections, but said nothing within {patience_s:g} s"))

    def _log_in(self) -> None:
        """Give kazoo the secret as it is now; it asks for it after the connection is made."""
        if self.client is None or not self._url.user:
            return
        password = self._url.secret.read()
        if self._url.auth == "sasl":
            self.client._connection.sasl_options["password"] = password
        else:
            self.client.auth_data = {("digest", f"{self._url.user}:{password}")}

    def _wrapped(self, connection: socket.socket, hostname: str, place: str) -> ssl.SSLSocket:
        context = tls_context(self._url)

        class Noting(ssl.SSLSocket):
            """A server that does not accept our certificate says so only when something is read."""

            def recv(noting, size: int = 1024, flags: int = 0) -> bytes:  # `self` is the handler
                try:
                    return super().recv(size, flags)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    self._on_attempt(place, Trouble(place, tls_reason(error), is_trust=True))
                    raise

        context.sslsocket_class = Noting
        return context.wrap_socket(connection, server_hostname=hostname or None)

    def abort(self) -> None:
        """Break the connection, so that kazoo stops waiting for its answers."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def tls_context(url: ServerUrl) -> ssl.SSLContext:
    """Only the authority given is believed, and the host name must match.

    Raises:
        OSError: a file cannot be read, or is not what it should be (ssl.SSLError).
    """
    assert url.tls is not None
    context = ssl.create_default_context(cafile=url.tls.ca or None)
    if url.tls.cert:
        context.load_cert_chain(url.tls.cert, url.tls.key)
    return context


def tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted here: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and "alert" in str(error).lower():
        reason = (error.reason or "").lower().replace("_", " ")
        return f"it does not accept our certificate: {reason.rpartition('alert ')[2]}"
    if isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"}:
        return "it does not speak TLS there"
    return error.strerror or str(error)
