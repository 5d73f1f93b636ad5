"""A stream as an answer: counted while it is open, and ended with the credential that opened it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from types import TracebackType

from fastapi import Request

from controller.api.service import Service
from controller.security.limits import Streams
from controller.security.principal import PRINCIPAL, Principal

WATCHES = "/v1/store/"


class OpenStream:
    """To be entered when the answer begins. `ended` is set when the credential is no longer good."""

    def __init__(self, shared: Service | None, who: Principal | None, *, is_counted: bool) -> None:
        self.ended = asyncio.Event()
        self._shared = shared
        self._who = who
        self._held = ExitStack()
        if shared is not None and who is not None:
            shared.streams.enter(who, is_counted=is_counted)
            self._held.callback(_leave, shared.streams, who, is_counted)

    def __enter__(self) -> OpenStream:
        if self._shared is not None and self._who is not None:
            self._held.enter_context(self._shared.endings.held(self._who, self.ended))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()


def open_stream(request: Request) -> OpenStream:
    """
    Raises:
        TooManyStreams: nothing was opened.
    """
    shared: Service | None = getattr(request.app.state, "service", None)
    is_watch = request.scope["path"].startswith(WATCHES)
    return OpenStream(shared, request.scope.get(PRINCIPAL), is_counted=not is_watch)


def _leave(streams: Streams, who: Principal, is_counted: bool) -> None:
    streams.leave(who, is_counted=is_counted)
