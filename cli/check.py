"""`kvnet check`: are the invariants true in the store itself? Exit code 1 while something is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from cli import output, progress
from cli.confirming import confirm, yes_option
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import connected, current, output_option
from kvnet.errors import Invalid
from kvnet.wire import CheckReport, Finding

if TYPE_CHECKING:
    from kvnet.client import Client

MAX_REPORT = 16 << 20


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be put right safely.")
@click.option(
    "--from-report",
    type=click.File("rb"),
    metavar="FILE",
    help="With --repair: only what FILE lists, which 'kvnet check -o json' wrote. \"-\": stdin.",
)
@click.option("--dry-run", is_flag=True, help="With --repair: only tell what would be repaired.")
@yes_option
@output_option
@connected
async def check(client: Client, *, repair: bool, from_report: BinaryIO | None, dry_run: bool, yes: bool) -> None:
    """Read the whole store and look for violated invariants: overlaps, addresses with two owners or none, leaks.

    Exit code 0 if there is nothing (left), 1 if there is. Each repair is one transaction that checks that all it rests
    on is still as it was found; what changed meanwhile is left alone, and told.

    \b
    kvnet check -o json > report.json          # look at it, take your time
    kvnet check --repair --from-report report.json
    """
    if (from_report or dry_run) and not repair:
        raise click.UsageError("--from-report and --dry-run go with --repair")
    asked = _report_in(from_report) if from_report else None
    with progress.waiting("checking the store"):
        report = await client.check()
    if repair:
        report = await _repaired(client, report, asked, dry_run=dry_run, yes=yes)
    session = current()
    if output.as_data(session):
        output.show_data(report, session.output)
    else:
        _show(report)
    if not report["ok"]:
        click.get_current_context().exit(FAILURE)


async def _repaired(
    client: Client, found: CheckReport, asked: Mapping[str, Any] | None, *, dry_run: bool, yes: bool
) -> CheckReport:
    """What is found after the repair; what was found before it if nothing is to be done."""
    wanted = None if asked is None else {_identity(finding) for finding in asked["findings"]}
    doomed = [f for f in found["findings"] if f["repairable"] and (wanted is None or _identity(f) in wanted)]
    if dry_run:
        for finding in doomed:
            click.echo(f"would repair {_line(finding)}: {safe(finding['fix'])}", err=True)
        return found
    if doomed:
        confirm(f"Repair {len(doomed)} finding{'s' * (len(doomed) != 1)}, like {_line(doomed[0])}?", yes=yes)
    elif asked is None:
        return found
    with progress.waiting("repairing"):
        return await client.check(repair=True, report=asked)


def _report_in(file: BinaryIO) -> Mapping[str, Any]:
    """Raises: Invalid: it is not what `kvnet check -o json` writes."""
    try:
        report = json.loads(file.read(MAX_REPORT + 1))
        identities = {_identity(finding) for finding in report["findings"]}
        if isinstance(report["revision"], int) and all(identities or {True}):
            return {"revision": report["revision"], "findings": report["findings"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise Invalid(f"{file.name} is no report", fix="make one with 'kvnet check -o json > FILE'")


def _identity(finding: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return finding["invariant"], tuple(sorted(finding["keys"]))


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
