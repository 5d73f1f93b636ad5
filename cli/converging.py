"""`--wait` of what changes networks and endpoints: until every host has applied it; who has not if the time is over.

What was asked for is done either way; `kvnet wait --for=converged` is for who needs an exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli.safe import safe

LONGEST_S = 30.0

wait_option = click.option(
    "--wait",
    "wait_s",
    default=0.0,
    type=click.FloatRange(0, LONGEST_S),
    metavar="SECONDS",
    help="Wait until every host has applied it, at most so long (30).",
)


def told(answer: Mapping[str, Any], wait_s: float) -> None:
    """Who has not applied it yet, and who was not waited for."""
    applied = answer.get("applied")
    if not wait_s or not applied:
        return
    if not applied["converged"]:
        click.echo(f"not applied yet by {safe(', '.join(applied['waiting_for']))}", err=True)
    if applied.get("away"):
        click.echo(f"not waited for: {safe(', '.join(applied['away']))}, which are down", err=True)
