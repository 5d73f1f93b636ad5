"""`kvnet version`: of this command, and of the controller if one answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import output
from cli.session import connected, current, output_option
from kvnet import __version__
from kvnet.errors import ControllerUnreachable, ControllerUntrusted

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@output_option
@connected
async def version(client: Client) -> None:
    """The versions of this command and of the controller; a controller that does not answer is no failure here."""
    try:
        there = await client.version()
    except ControllerUntrusted:
        raise
    except ControllerUnreachable:
        there = {}
    session = current()
    if output.as_data(session):
        output.show_data({"client": __version__, "controller": there or None}, session.output)
    else:
        remote = f"{there['version']} (API {there['api']})" if there else "does not answer"
        output.show_facts((("kvnet", __version__), ("Controller", f"{remote} at {client.url}")))
