"""`kvnet plan`: what this host's worker would change in the kernel now, asked of the worker itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli import output
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import current, output_option, socket_option


@click.command()
@click.option("--exit-code", "tells", is_flag=True, help="Exit code 1 if there is something to change or in the way.")
@output_option
@socket_option
def plan(tells: bool) -> None:
    """What the worker of this host would change in the kernel now; nothing is changed.

    Usually nothing: the worker has done it already. Conflicts are foreign objects in the way, which it never touches.
    """
    import asyncio

    from kvnet.local import WorkerClient

    session = current()
    answer = asyncio.run(WorkerClient(session.socket).plan())
    if output.as_data(session):
        output.show_data(answer, session.output)
    else:
        _show(answer)
    if tells and (answer["operations"] or answer["conflicts"]):
        click.get_current_context().exit(FAILURE)


def _show(answer: Mapping[str, Any]) -> None:
    for operation in answer["operations"]:
        click.echo(safe(operation))
    for conflict in answer["conflicts"]:
        detail = conflict.get("detail", conflict) if isinstance(conflict, Mapping) else conflict
        click.echo(f"in the way: {safe(detail)}")
    changes, conflicts = len(answer["operations"]), len(answer["conflicts"])
    if not changes and not conflicts:
        click.echo("Nothing to change.")
    else:
        click.echo(f"{changes} to change, {conflicts} in the way.", err=True)
