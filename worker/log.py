"""The worker's log: one line per event on stderr, for people or as JSON (`kvnet.logline`).

Says what changed, never that all is well; what is done for a request names it. Short enough for a journal, regular
enough for a program. Never raises: a worker does not stop because nobody reads its log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from kvnet.logline import LEVELS, Format, line
from kvnet.request import current


class Log:
    """`always`: facts that every line has, behind those of the event."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        now: Callable[[], float] = time.time,
        form: Format = Format.HUMAN,
        level: str = "info",
        always: Mapping[str, Any] | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._now = now
        self._form = form
        self._least = LEVELS.index(level)
        self._always = dict(always or {})

    @property
    def tells_all(self) -> bool:
        """Whether `debug` is written at all: what it would tell may cost something to find out."""
        return self._least == 0

    def debug(self, event: str, **facts: Any) -> None:
        if self._least == 0:
            self._write("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        if self._least <= 1:
            self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        if self._least <= 2:
            self._write("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._write("error", event, facts)

    def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        request_id = current().request_id
        if request_id and "request_id" not in facts:
            facts["request_id"] = request_id
        try:
            self._stream.write(line(self._form, self._now(), level, event, {**facts, **self._always}) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return
