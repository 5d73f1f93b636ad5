"""The connection below an answer that never ends: how much of it nobody has read yet, and how to give it up.

ASGI has no word for either, and its `send` waits for as long as a client likes. Here a stream looks first, sends only
what the connection takes at once, and lets go of a client that does not read. Without such a connection (a test's) it
sends like everybody else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controller.security.authentication import UNIX

TRANSPORT = "kvnet.transport"
LOW_WATER = 16 * 1024  # uvicorn pauses above 64 KiB, and goes on below this
STUCK_S = 10.0
UNREAD_REFUSALS = 64 * 1024
LONGEST_LENGTH = 6  # digits of a Content-Length that is read and passed over


class _Over:
    """In place of a request's cycle: there is none."""

    response_complete = True
    keep_alive = False

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


TURNED_AWAY: Any = _Over()


class Http(HttpToolsProtocol):
    """Each request knows its connection."""

    _is_unix = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        listening = transport.get_extra_info("socket")
        self._is_unix = listening is not None and listening.family == socket.AF_UNIX

    def on_headers_complete(self) -> None:
        """Who is turned away at the door gets no task. One behind another in a pipeline waits its turn inside."""
        doorman = getattr(self.config.app.state, "doorman", None)  # type: ignore[union-attr]
        if doorman is None or not (self.cycle is None or self.cycle.response_complete):
            super().on_headers_complete()
            return
        path = self.url.partition(b"?")[0].decode("latin-1")
        if "%" in path or not path.startswith("/"):
            super().on_headers_complete()
            return
        self.scope["method"], self.scope["path"] = self.parser.get_method().decode("ascii"), path
        answer = doorman.turn_away(self.scope, self._usual_headers())
        if answer is None:
            super().on_headers_complete()
            return
        if self.transport.get_write_buffer_size() > UNREAD_REFUSALS:
            self.transport.abort()  # it asks, and does not read what it gets
            return
        self.cycle = TURNED_AWAY  # whatever comes of its body is passed over
        self.transport.write(answer)
        if self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive() or self._has_large_body():
            self.transport.close()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is TURNED_AWAY and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _usual_headers(self) -> bytes:
        return b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)

    def _has_large_body(self) -> bool:
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and len(value) > LONGEST_LENGTH):
                return True
        return False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
        if self._is_unix:
            self.scope[UNIX] = True  # type: ignore[literal-required]


def has_gone_of(scope: Scope) -> Callable[[], bool] | None:
    """Whether the client of this request has ended its connection; None where there is none to look at."""
    transport: asyncio.Transport | None = scope.get(TRANSPORT)
    return transport.is_closing if transport is not None else None


class Outlet:
    def __init__(self, scope: Scope, clock: Callable[[], float], stuck_s: float = STUCK_S) -> None:
        self._transport: asyncio.WriteTransport | None = scope.get(TRANSPORT)
        self._clock = clock
        self._stuck_s = stuck_s
        self._least = 0
        self._moved_at = clock()

    @property
    def unread(self) -> int:
        """Bytes that wait in this process; what the kernel has is not among them."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def is_full(self) -> bool:
        """What is sent now would have to wait."""
        unread, now = self.unread, self._clock()
        if unread <= LOW_WATER:
            self._moved_at, self._least = now, unread
            return False
        if self._least <= LOW_WATER or unread < self._least:
            self._moved_at, self._least = now, unread
        return True

    def is_stuck(self) -> bool:
        """Full, and nothing was read for a while."""
        return self.is_full() and self._clock() - self._moved_at >= self._stuck_s

    def abort(self) -> None:
        """Let go of the connection, and of everything that waits in it."""
        if self._transport is not None:
            self._transport.abort()

    def abort_unless_read(self, within_s: float) -> None:
        """After the last word: give the client a moment to take it."""
        if self.unread:
            asyncio.get_running_loop().call_later(within_s, self._abort_if_unread)

    def _abort_if_unread(self) -> None:
        if self.unread:
            self.abort()
