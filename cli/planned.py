"""`--dry-run`: prints what a change would do to every host. Nothing here asks or changes anything."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cli import output
from cli.safe import safe
from cli.session import current
from kvnet.wire import HostPlan, Plan

dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what every host would do; change nothing.")


def show(plans: Sequence[Plan]) -> None:
    """One plan as it was answered, or as lines; several one after the other."""
    session = current()
    if output.as_data(session):
        output.show_data(plans[0] if len(plans) == 1 else list(plans), session.output)
        return
    for plan in plans:
        _show(plan)


def _show(plan: Plan) -> None:
    for host in plan["hosts"]:
        _show_host(host, "" if host["alive"] else "  (not there now; does this when it returns)")
    first = plan["on_first_endpoint"]
    if first is not None:
        _show_host(first, "  (or any other, with its first endpoint)")
    for warning in plan["warnings"]:
        where = f"{safe(warning['host'])}: " if warning["host"] else ""
        click.echo(f"warning: {where}{safe(warning['detail'])}", err=True)
    more = f" and {plan['more_hosts']} more hosts" if plan["more_hosts"] else ""
    click.echo(f"{plan['operations']} operations on {len(plan['hosts'])} hosts{more}; nothing was changed.", err=True)


def _show_host(host: HostPlan, remark: str) -> None:
    click.echo(f"{safe(host['host'])}:{remark}")
    for operation in host["operations"]:
        click.echo(f"  {safe(operation['text'])}")
