"""That something goes on: a bar or a turning sign on stderr, only on a terminal, gone when it is over.

Nothing is told here that is not told otherwise; where stderr is no terminal, nothing is written.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from cli.safe import safe

WIDTH = 24
FULL, EMPTY = "█", "░"
SIGNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_SIGNS = "|/-\\"
TURN_S = 0.1
AFTER_S = 0.3  # what is done by then needs no sign
ERASE = "\r\x1b[K"


def bar(done: int, total: int, width: int = WIDTH) -> str:
    """A share as a bar: empty only for nothing, full only for all."""
    if total <= 0:
        return EMPTY * width
    filled = min(width, done * width // total)
    if 0 < done < total:
        filled = min(width - 1, max(1, filled))
    return FULL * filled + EMPTY * (width - filled)


class Progress:
    """One line that is drawn anew while work goes on. `step` says how far it is, if anybody knows."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self.what = what
        self._stream = stream
        self._done, self._total = 0, 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._is_drawing = False

    def step(self, done: int, total: int, what: str = "") -> None:
        self._done, self._total = done, total
        self.what = what or self.what

    def __enter__(self) -> Self:
        if shows(self._stream):
            self._is_drawing = True
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._is_drawing:
            self._thread.join()

    def _draw(self) -> None:
        signs = SIGNS if "utf" in (self._stream.encoding or "").lower() else PLAIN_SIGNS
        if self._over.wait(AFTER_S):
            return
        turn = 0
        while not self._over.wait(TURN_S):
            self._say(ERASE + self.line(signs[turn % len(signs)]))
            turn += 1
        self._say(ERASE)

    def line(self, sign: str) -> str:
        seconds = int(time.monotonic() - self._began)
        share = f" {bar(self._done, self._total)} {self._done}/{self._total}" if self._total else ""
        return f"{sign} {safe(self.what)}{share} ({seconds}s)"

    def _say(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._over.set()


def shows(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def waiting(what: str) -> Iterator[Progress]:
    with Progress(what, sys.stderr) as progress:
        yield progress
