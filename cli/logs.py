"""Where the log of a server goes: stderr, one line per event, in the form that all of kvnet's logs have.

For people on a terminal, as JSON where a program keeps it; what libraries log comes in the same form. A service manager
adds the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import click

from kvnet.logline import FORMATS, LEVELS, Format, format_for, line
from kvnet.request import current

# They tell of every start, end and request; we tell of what changed.
CHATTY = ("uvicorn", "asyncio")
OTEL_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
GATHER_S = 0.02
GATHER_AT_MOST = 500
FACTS = "facts"  # the attribute of a record that has them: log.info("event", extra={"facts": {...}})
SHORT = {"WARNING": "warning", "CRITICAL": "error"}


class Record(logging.LogRecord):
    """What a line of ours is made of. Finding out the file, the thread and the process took longer than the line."""

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        self.name, self.msg, self.args = name, msg, args
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.exc_info, self.exc_text, self.stack_info = exc_info, None, sinfo
        self.created = time.time()
        self.pathname = self.filename = self.module = ""
        self.lineno = 0


class Form(logging.Formatter):
    """A record of the standard library as a line of ours. Its message is the event unless it brings facts."""

    def __init__(self, form: Format, component: str) -> None:
        super().__init__()
        self._form = form
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        known = record.__dict__.get(FACTS)
        facts: dict[str, Any] = dict(known or {})
        event = record.getMessage()
        if known is None:
            facts["detail"] = event
            event = record.name.removeprefix("kvnet.").removesuffix(".error")
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        request_id = current().request_id
        if request_id:
            facts.setdefault("request_id", request_id)
        facts["component"] = self._component
        level = SHORT.get(record.levelname, record.levelname.lower())
        return line(self._form, record.created, level, event, facts)


class Gathering(logging.StreamHandler[TextIO]):
    """Writes what comes within a moment at once: a write lets go of the interpreter, and gets it back late.

    A controller tells a line per change. Warnings and worse, and what is not told by the event loop, wait for nobody.
    """

    def __init__(self, stream: TextIO | None = None, within_s: float = GATHER_S) -> None:
        super().__init__(stream)
        self._within_s = within_s
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001 - as the standard library's handlers do: a log never ends a program
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING or len(self._lines) >= GATHER_AT_MOST:
            self.flush()
        elif len(self._lines) == 1:
            self._flush_soon()

    def _flush_soon(self) -> None:
        import asyncio  # a command that only prints its help starts without it

        try:
            asyncio.get_running_loop().call_later(self._within_s, self.flush)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                    self.stream.write("\n".join([*lines, ""]))
            super().flush()


def to_stderr(level: str, form: str = "auto", component: str = "controller") -> Format:
    """Returns the form that was chosen."""
    chosen = format_for(form, sys.stderr)
    handler = Gathering()
    logging.setLogRecordFactory(Record)
    logging._srcfile = None  # nobody asks for the caller ("Optimization" in logging's documentation)
    handler.setFormatter(Form(chosen, component))
    if level != "debug":
        for chatty in CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return chosen


def said(event: str, form: Format, component: str = "controller", **known: Any) -> str:
    """A line that is told whatever the level is."""
    return line(form, time.time(), "info", event, {**known, "component": component})


def otel_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Tracing is on where the option or OpenTelemetry's own variables ask for it."""
    return click.option(
        "--otel/--no-otel",
        envvar="KVNET_OTEL",
        default=None,
        help="Send traces by OTLP/HTTP; on by itself where OTEL_EXPORTER_OTLP_ENDPOINT is set. [KVNET_OTEL]",
    )(command)


def wants_traces(otel: bool | None) -> bool:
    return any(map(os.environ.get, OTEL_VARIABLES)) if otel is None else otel


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--log-level` and `--log-format`, for whatever stays and runs."""
    level = click.option(
        "--log-level",
        envvar="KVNET_LOG_LEVEL",
        type=click.Choice(LEVELS),
        default="info",
        help="[KVNET_LOG_LEVEL; info]",
    )
    form = click.option(
        "--log-format",
        envvar="KVNET_LOG_FORMAT",
        type=click.Choice(FORMATS),
        default="auto",
        help="auto: for people on a terminal, JSON otherwise. [KVNET_LOG_FORMAT; auto]",
    )
    return level(form(command))
