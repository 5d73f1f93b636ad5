"""`kvnet events`: who changed what, and when; one line each, as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cli.safe import safe
from cli.session import connected, current, setting
from kvnet.errors import Gone
from kvnet.wire import Event

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@click.option("--since", type=click.IntRange(min=0), metavar="REV", help="Only what came after this revision.")
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C; without --since only what happens from now on.")
@click.option("--kind", default="", help="Only these: network, endpoint, network.created ...")
@click.option("--network", default="", metavar="NETWORK", help="Only what concerns this network.")
@setting(
    "-o",
    "--output",
    member="output",
    type=click.Choice(["table", "json"]),
    help="json: one object a line, with before and after.",
)
@connected
async def events(client: Client, *, since: int | None, watch: bool, kind: str, network: str) -> None:
    """What was changed, by whom: time, revision, kind, object, actor.

    Take up where it ended with --since and the last revision. Exit code 1 if that is older than what is kept.
    """
    start = since if since is not None or watch else 0
    try:
        await _tell(client.events(since=start, kind=kind, network=network, follow=watch))
    except Gone as error:
        if since is not None or watch or "kept_from" not in error.context:
            raise
        # Nobody asked for the very beginning: what is kept of the past is told.
        kept_from = int(error.context["kept_from"])
        await _tell(client.events(since=kept_from, kind=kind, network=network, follow=watch))


async def _tell(events: AsyncIterator[Event]) -> None:
    as_json = current().output == "json"
    async for event in events:
        if event.type == "change":
            click.echo(json.dumps(event.data) if as_json else line(event.data))


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
