"""What is done to each of many names: what fails for one is told, and the others are still done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from cli import planned
from cli.failures import Failures
from cli.safe import safe
from cli.session import current
from kvnet.errors import KvnetError


async def each(
    names: Sequence[str],
    act: Callable[[str], Awaitable[object]],
    *,
    plan: Callable[[str], Awaitable[Any]] | None = None,
    does: Callable[[str], str],
    ignores: Callable[[KvnetError], bool] = lambda error: False,
) -> None:
    """Prints each name that it is done to; ends with the exit code of the first failure.

    `plan`: of a dry run, which is shown in place of acting; `does` says what it would do, in words.
    """
    failures = Failures(current())
    for name in names:
        try:
            if plan is not None:
                planned.show([await plan(name)], does=does(name))
                continue
            await act(name)
        except KvnetError as error:
            if not ignores(error):
                failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
