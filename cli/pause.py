"""`kvnet host pause` and `resume`: a worker that leaves the kernel alone for a while, so that one can look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import output, suggest
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.values import DURATION
from kvnet.errors import Invalid

if TYPE_CHECKING:
    from kvnet.client import Client

LONGEST_S = 24 * 3600


@click.command()
@click.argument("host", metavar="HOST", shell_complete=suggest.hosts)
@click.option("--for", "seconds", type=DURATION, default="10m", show_default=True, metavar="TIME", help="At most 24h.")
@output_option
@connected
async def pause(client: Client, *, host: str, seconds: float) -> None:
    """Pause the repairs of a host: what others do to its kernel stays, until that time is over or `resume`.

    Workloads come and go as always, and changes of networks are followed. While it lasts the host tells the condition
    repairs-paused. It ends by itself, also when the worker is started anew.
    """
    if not 1 <= seconds <= LONGEST_S:
        raise Invalid.field("/for", f"a pause of {seconds:g} s", "1s to 24h")
    _show(await client.pause_repairs(host, int(seconds)))


@click.command()
@click.argument("host", metavar="HOST", shell_complete=suggest.hosts)
@output_option
@connected
async def resume(client: Client, *, host: str) -> None:
    """End a pause of a host's repairs: everything is put right at once."""
    _show(await client.resume_repairs(host))


def _show(answer: dict[str, Any]) -> None:
    session = current()
    if output.as_data(session):
        output.show_data(answer, session.output)
    elif answer["paused"]:
        click.echo(f"{safe(answer['host'])}: repairs are paused for {answer['seconds']:.0f} s")
    else:
        click.echo(f"{safe(answer['host'])}: repairs go on")
