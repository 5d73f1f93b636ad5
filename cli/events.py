"""`kvnet events`: who changed what, and when; one line each, as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cli import csvform, suggest
from cli.safe import safe
from cli.session import connected, current
from kvnet.errors import Gone
from kvnet.wire import Event

if TYPE_CHECKING:
    from kvnet.client import Client

FORMS = ("table", "wide", "json", "csv")
TITLES = ("AT", "REVISION", "KIND", "OF", "BY", "REQUEST", "NETWORK")
KINDS = ("network", "endpoint", "reservation", "pool", "host", "network.status", "host.status")


@click.command()
@click.option("--since", type=click.IntRange(min=0), metavar="REV", help="Only what came after this revision.")
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C; without --since only what happens from now on.")
@click.option("--kind", default="", metavar="KIND", shell_complete=suggest.of(KINDS),
              help="Only these: network, endpoint, network.created, host.status ...")  # fmt: skip
@click.option("--network", default="", metavar="NETWORK", shell_complete=suggest.networks,
              help="Only what concerns this network.")  # fmt: skip
@click.option(
    "-o", "--output", type=click.Choice(FORMS), help="wide: with the request; json: one object a line. [table]"
)
@connected
async def events(
    client: Client, *, since: int | None, watch: bool, kind: str, network: str, output: str | None
) -> None:
    """What was changed, by whom: time, revision, kind, object, actor.

    Take up where it ended with --since and the last revision. Exit code 1 if that is older than what is kept. How
    things are (network.status, host.status) is told while it watches, if --kind asks for it or with -o json.
    """
    form = current().choose(output, FORMS)
    start = since if since is not None or watch else 0
    if form == "csv":
        click.echo(csvform.line(TITLES), nl=False)
    try:
        await _tell(client.events(since=start, kind=kind, network=network, follow=watch), form, kind)
    except Gone as error:
        if since is not None or watch or "kept_from" not in error.context:
            raise
        # Nobody asked for the very beginning: what is kept of the past is told.
        kept_from = int(error.context["kept_from"])
        await _tell(client.events(since=kept_from, kind=kind, network=network, follow=watch), form, kind)


async def _tell(events: AsyncGenerator[Event, None], form: str, kind: str) -> None:
    async with aclosing(events) as told:  # whoever reads us may go away in the middle of it
        async for event in told:
            is_wanted = event.type == "change" and (
                form == "json" or "status" in kind or not str(event.data.get("kind")).endswith(".status")
            )
            if is_wanted:
                click.echo(_text(event.data, form), nl=False)


def _text(data: Mapping[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(data) + "\n"
    if form == "csv":
        members = (data[member] for member in ("at", "revision", "kind"))
        return csvform.line([*members, subject(data), data["actor"], data["request_id"], data["network"]])
    return (line(data) if form == "table" else f"{line(data)}  {safe(data['request_id'])}".rstrip()) + "\n"


def line(data: Mapping[str, Any]) -> str:
    """One event for a reader. Local time, to the millisecond."""
    at = datetime.fromisoformat(data["at"]).astimezone()
    cells = (
        f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}",
        f"{data['revision']:>7}",
        f"{safe(data['kind']):<20}",
        f"{safe(subject(data)):<32}",
        safe(data["actor"]),
    )
    return "  ".join(cells).rstrip()


def subject(data: Mapping[str, Any]) -> str:
    """What it is about: the object's name (and host), or who holds the address, as it is now or was; else its key."""
    key = str(data.get("key", ""))
    known = data.get("after") or data.get("before")
    if not isinstance(known, Mapping):
        return key
    name, host, holder = known.get("name"), known.get("host"), known.get("holder")
    if name:
        return f"{name} on {host}" if host else str(name)
    return f"{holder} at {key.rpartition('/')[2]}" if holder else key
