"""`kvnet check`: are the invariants true in the store itself? Exit code 1 while something is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import output
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import connected, current, output_option
from kvnet.wire import CheckReport, Finding

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be put right safely.")
@output_option
@connected
async def check(client: Client, *, repair: bool) -> None:
    """Read the whole store and look for violated invariants: overlaps, addresses with two owners or none, leaks.

    Exit code 0 if there is nothing (left), 1 if there is. Each repair is one transaction that checks that all it rests
    on is still as it was found; what changed meanwhile is left alone, and told.
    """
    report = await client.check(repair=repair)
    session = current()
    if output.as_data(session):
        output.show_data(report, session.output)
    else:
        _show(report)
    if not report["ok"]:
        click.get_current_context().exit(FAILURE)


def _show(report: CheckReport) -> None:
    for finding in report["repaired"]:
        click.echo(f"repaired {_line(finding)}")
    for finding in report["changed"]:
        click.echo(f"changed meanwhile, left alone: {_line(finding)}")
    for finding in report["findings"]:
        click.echo(_line(finding))
        if finding["fix"]:
            click.echo(f"  fix: {safe(finding['fix'])}")
        for key in finding["keys"]:
            click.echo(f"  key: {safe(key)}")
    found = len(report["findings"])
    verdict = "no invariant is violated" if report["ok"] else f"{found} finding{'s' if found != 1 else ''}"
    click.echo(f"{verdict} at revision {report['revision']}")
    if any(finding["repairable"] for finding in report["findings"]):
        click.echo("'kvnet check --repair' puts right what can be put right without a decision", err=True)


def _line(finding: Finding) -> str:
    return f"{safe(finding['kind'])} ({safe(finding['invariant'])}): {safe(finding['detail'])}"
