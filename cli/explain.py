"""`kvnet explain`: what an error's code stands for, as this controller uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import output
from cli.failures import exit_code
from cli.session import connected, current, output_option
from kvnet.problems import from_problem

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@click.argument("code")
@output_option
@connected
async def explain(client: Client, code: str) -> None:
    """What the error CODE means: its HTTP status, the exit code that goes with it, and what it says.

    \b
    kvnet explain subnet-taken
    """
    found = await client.problem(code.rpartition("/")[2])
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
        return
    output.show_facts(
        (
            ("Code", found["code"]),
            ("Title", found["title"]),
            ("Status", found["status"]),
            ("Exit code", exit_code(from_problem(found, status=found["status"]))),
            ("Meaning", found["meaning"]),
        )
    )
