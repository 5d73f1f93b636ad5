"""Connections whose other side has shown a certificate: each request bears it, and no connection outlives it.

TLS looks at a certificate once, at the handshake, and a connection may last for months. When the certificate ends, an
idle connection is closed, and a busy one after its answer; what comes in between is judged by `authentication`, which
is told when it ends. Whose certificate it is, and what that may do, is not asked here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from ssl import SSLObject, cert_time_to_seconds
from typing import Any

from controller.api.heads import ShortHttp
from controller.security.authentication import CERTIFICATE, CERTIFICATE_UNTIL

LOOK_AGAIN_S = 60.0  # the clock of the wall may jump


class CertifiedHttp(ShortHttp):
    _certificate = ""
    _until: float | None = None
    _end: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, now: Callable[[], float] = time.time, **named: Any) -> None:
        super().__init__(*given, **named)
        self._now = now

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        encrypted: SSLObject | None = transport.get_extra_info("ssl_object")
        shown = None if encrypted is None else encrypted.getpeercert(binary_form=True)
        if encrypted is None or shown is None:
            return
        self._certificate = hashlib.sha256(shown).hexdigest()
        told = encrypted.getpeercert() or {}  # nothing where it was not verified
        if "notAfter" in told:
            self._until = float(cert_time_to_seconds(str(told["notAfter"])))
            self._look(self._until)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate:
            self.scope[CERTIFICATE] = self._certificate  # type: ignore[literal-required]
            if self._until is not None:
                self.scope[CERTIFICATE_UNTIL] = self._until  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._until is not None and self._now() >= self._until:
            self.shutdown()  # after its answer

    def _look(self, until: float) -> None:
        left_s = until - self._now()
        if left_s <= 0:
            self.shutdown()
        else:
            self._end = self.loop.call_later(min(left_s, LOOK_AGAIN_S), self._look, until)
