"""Errors for people and for scripts: what went wrong, what to do, and an exit code that tells the kinds apart."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from cli.safe import safe, safe_lines
from cli.session import Session
from kvnet.errors import KvnetError
from kvnet.problems import to_problem

OK, FAILURE, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE = range(6)
INTERRUPTED = 130  # what shells show for a command that Ctrl-C ended
BROKEN_PIPE = 141  # and for one whose reader went away

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed; 'kvnet check' found something; 'status --wait' gave up
  2  the command line or the request is not valid
  3  there is no such thing
  4  it conflicts with what is there, or it changed since you looked
  5  the controller, its store or the worker does not answer"""

_BY_STATUS = {
    400: USAGE,
    404: NOT_FOUND,
    409: CONFLICT,
    412: CONFLICT,
    422: USAGE,
    502: UNREACHABLE,
    503: UNREACHABLE,
    504: UNREACHABLE,
}


def exit_code(error: KvnetError) -> int:
    return CONFLICT if error.code == "contention" else _BY_STATUS.get(error.status, FAILURE)


def report(error: KvnetError, session: Session) -> int:
    """Tell it on stderr, as JSON if that is how the command prints. The exit code that goes with it."""
    text = json.dumps(to_problem(error)) if session.tells_errors_as_json else "\n".join(lines(error))
    click.echo(text, err=True)
    return exit_code(error)


def lines(error: KvnetError) -> Iterator[str]:
    yield f"Error: {safe_lines(error.detail)}"
    for field in error.errors:
        where = safe(field.pointer)
        if field.detail == error.detail:
            yield f"  at {where}"
        elif f"{field.pointer}: {field.detail}" != error.detail:
            yield f"  {where}: {safe(field.detail)}"
    if error.fix:
        yield f"Fix: {safe_lines(error.fix)}"
    if error.request_id:
        yield f"Request: {safe(error.request_id)}"


class Failures:
    """Collects what went wrong with some of many names, so that the others are still done."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._code = OK

    def add(self, error: KvnetError) -> None:
        code = report(error, self._session)
        self._code = self._code or code

    def exit_if_any(self) -> None:
        """With the code of the first."""
        if self._code:
            click.get_current_context().exit(self._code)
