"""A command on a terminal of its own: what it says there, and what a person types."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

DEADLINE_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    """Waits for a condition; fails when it is not so in time."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


class Terminal:
    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self._command = command
        self._environment = {**os.environ, "TERM": "xterm", **environment}
        self._environment.pop("NO_COLOR", None)
        self.said = ""

    def __enter__(self) -> Self:
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.execvpe(self._command[0], list(self._command), self._environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, wanted: str) -> str:
        """Everything that was said up to then."""
        end = time.monotonic() + DEADLINE_S
        while wanted not in self.said:
            assert time.monotonic() < end, self.said
            self._read()
        return self.said

    def ends(self) -> int:
        """The exit code."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            self._read()
            child, status = os.waitpid(self._child, os.WNOHANG)
            if child:
                self._child = 0
                self._read()
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(self.said)

    def _read(self) -> None:
        readable, _, _ = select.select([self._terminal], [], [], 0.05)
        if readable:
            try:
                self.said += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                time.sleep(0.02)
