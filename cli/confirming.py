"""Asking before something is destroyed. On a terminal a person is asked; where nobody can answer it takes `--yes`.

Never waits for an answer that cannot come.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
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
    if not _is_yes(question):
        raise click.Abort


def _is_yes(question: str) -> bool:
    while True:
        answer = _line(f"{question} [y/N]: ").strip().lower()
        if answer in ("y", "yes"):
            return True
        if answer in ("", "n", "no"):
            return False
        click.echo("Answer y or n.", err=True)


def _line(prompt: str) -> str:
    """A line of the terminal. Ctrl-C is a no from the prompt on, whenever it comes.

    Not by `input`: a signal that comes just before that begins to read is not seen until somebody types; and asyncio's
    own handler waits for the loop, which waits for the answer.

    Raises:
        click.Abort: Ctrl-C, or the end of the input.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    wakeup = signal.set_wakeup_fd(told)
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        click.echo(prompt, err=True, nl=False)
        ready, _, _ = select.select([sys.stdin, heard], [], [])
        line = "" if heard in ready else sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(heard)
        os.close(told)
    if not line:
        click.echo(err=True)
        raise click.Abort
    return line
