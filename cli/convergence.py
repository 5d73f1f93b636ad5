"""`kvnet network convergence`: who has applied what. How far behind a host is, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cli import colour, output, suggest
from cli.failures import FAILURE
from cli.listing import Column
from cli.session import connected, current, output_option
from cli.words import age, few
from kvnet.wire import HostConvergence, NetworkConvergence

if TYPE_CHECKING:
    from kvnet.client import Client

HOSTS: tuple[Column[HostConvergence], ...] = (
    Column("HOST", lambda h: h["host"]),
    Column(
        "STATE",
        lambda h: "alive" if h["alive"] else "down",
        tone=lambda h: colour.tone_of("alive" if h["alive"] else "down"),
    ),
    Column("WANTED", lambda h: str(h["wanted"]), right=True),
    Column("APPLIED", lambda h: str(h["applied"]), right=True),
    Column("BEHIND", lambda h: str(h["lag_revisions"] or ""), right=True, tone=lambda _: colour.WARNING),
    Column("FOR", lambda h: age(h["lag_seconds"]) if h["lag_revisions"] else ""),
    Column("PROBLEMS", lambda h: few([p["code"] for p in h["problems"]]), if_any=True, tone=lambda _: colour.BAD),
)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.option("--exit-code", "tells", is_flag=True, help="Exit code 1 if a host is behind.")
@output_option
@connected
async def convergence(client: Client, network: str, *, tells: bool) -> None:
    """Per host of NETWORK: the version wanted, the version applied, and how far behind it is.

    `kvnet wait network/NAME --for=converged` waits until no host is.
    """
    found = await client.network_convergence(network)
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
    else:
        for line in lines(found, time.time()):
            click.echo(line)
    if tells and not found["converged"]:
        click.get_current_context().exit(FAILURE)


def lines(found: NetworkConvergence, now: float) -> Iterator[str]:
    if found["hosts"]:
        shown = output.visible(found["hosts"], HOSTS, wide=False)
        yield from output.table_lines(found["hosts"], shown, now, whole=False)
        behind = [host["host"] for host in found["hosts"] if host["lag_revisions"]]
        yield f"behind: {', '.join(behind)}" if behind else f"every host has applied version {found['version']}"
    else:
        yield "no host takes part in it"
