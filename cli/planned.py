"""`--dry-run`: prints what a change would do to every host. Nothing here asks or changes anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli import colour, output
from cli.safe import safe
from cli.session import current
from kvnet.wire import HostPlan, Plan

dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what every host would do; change nothing.")

TONES = {
    "create": "green",
    "add": "green",
    "set": "green",
    "delete": "red",
    "remove": "red",
    "forget": "red",
    "change": "yellow",
}
# Of what would be there: these members, if it has them, each with the word before it.
TOLD = {
    "driver": "driver",
    "subnets": "subnets",
    "cidr": "block",
    "prefix_length": "cut in prefixes of length",
    "address": "address",
    "address6": "and",
    "host": "on host",
    "mac": "MAC",
    "until": "until",
}


def show(plans: Sequence[Plan], *, does: str = "") -> None:
    """One plan as it was answered, or as lines; several one after the other. `does`: what the change is, in words."""
    session = current()
    if output.as_data(session):
        output.show_data(plans[0] if len(plans) == 1 else list(plans), session.output)
        return
    for plan in plans:
        _show(plan, does)


def _show(plan: Plan, does: str) -> None:
    result = plan["result"]
    if does:
        facts = _facts(result) if result and not does.startswith("change ") else ""
        click.echo(f"would {safe(does)}" + (f": {safe(facts)}" if facts else ""))
    for host in plan["hosts"]:
        _show_host(host, "" if host["alive"] else "  (not there now; does this when it returns)")
    first = plan["on_first_endpoint"]
    if first is not None:
        _show_host(first, "  (or any other, with its first endpoint)")
    for warning in plan["warnings"]:
        where = f"{safe(warning['host'])}: " if warning["host"] else ""
        click.echo(f"warning: {where}{safe(warning['detail'])}", err=True)
    more = f" and {plan['more_hosts']} more hosts" if plan["more_hosts"] else ""
    work = (
        f"{plan['operations']} operations on {len(plan['hosts'])} hosts{more}"
        if plan["hosts"]
        else "no host does anything yet"
        if plan["on_first_endpoint"]
        else "no host does anything"
    )
    click.echo(f"{work}; nothing was changed.", err=True)


def _facts(result: Mapping[str, Any]) -> str:
    """What there would be, in words; what the change is called by already is not told again."""
    told = []
    for member, word in TOLD.items():
        value = result.get(member)
        if member == "subnets":
            value = [subnet["cidr"] for subnet in value or ()]
        if value:
            told.append(f"{word} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(told)


def _show_host(host: HostPlan, remark: str) -> None:
    is_wanted = colour.wanted(sys.stdout)
    click.echo(f"{safe(host['host'])}:{remark}")
    for operation in host["operations"]:
        text = safe(operation["text"])
        click.echo(f"  {colour.painted(text, TONES.get(operation['action'], ''), is_wanted=is_wanted)}")
