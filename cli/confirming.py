"""Asking before something is destroyed. On a terminal a person is asked; where nobody can answer it takes `--yes`.

Never waits for an answer that cannot come.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kvnet.errors import Invalid

Command = TypeVar("Command", bound=Callable[..., Any])

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool, preview: str = "--dry-run") -> None:
    """Returns if it is to be done. `preview`: the option that only shows what would be.

    Raises:
        Invalid: nobody is there to ask.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        shows = f", or with {preview} to see what would be done" if preview else ""
        raise Invalid(f"nobody is there to confirm it: {question}", fix=f"repeat with --yes{shows}")
    with _interruptible():
        if not click.confirm(question, err=True):
            raise click.Abort


@contextmanager
def _interruptible() -> Iterator[None]:
    """While a person is asked, Ctrl-C is a no: asyncio's own handler waits for the loop, which waits for the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
