"""Connections that bring nothing: each has a moment for a whole request, and there is a bounded number of them all.

uvicorn waits for ever for the first byte, and for every next one. Here the time runs from the connection's begin, or
the first byte of a later request, until its last byte is in; what is over is let go without a word, for nobody listens
who sends a byte a second. An answer may take as long as it likes.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from typing import Any

from controller.api.certified import CertifiedHttp

REQUEST_S = 30.0
MOST_CONNECTIONS = 10_000
TOLD_EVERY_S = 60.0
SPARE_FILES = 200  # for the store, and whatever else a process opens


def most_connections() -> int:
    """As many as there may be files, raised as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MOST_CONNECTIONS, soft - SPARE_FILES))


class Calm(logging.Filter):
    """What uvicorn warns of once for each malformed request is told once a minute: whoever likes sends thousands."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text, now = str(record.msg), self._clock()
        if now - self._told.get(text, -TOLD_EVERY_S) < TOLD_EVERY_S:
            return False
        self._told[text] = now  # its few templates, never what was sent
        return True


class PatientHttp(CertifiedHttp):
    """`most`: connections of this process, TLS ones that are still shaking hands not counted."""

    def __init__(self, *given: Any, most: int = MOST_CONNECTIONS, request_s: float = REQUEST_S, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most = most
        self._request_s = request_s
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._most:
            transport.abort()
            return
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        if self.transport is not None:  # it was never taken
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport is not None:
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._due is None:
            self._wait()

    def on_message_complete(self) -> None:
        self._rest()
        super().on_message_complete()

    def _wait(self) -> None:
        self._due = self.loop.call_later(self._request_s, self._give_up)

    def _rest(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        self._due = None
        self.transport.abort()
