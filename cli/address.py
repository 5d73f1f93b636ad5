"""`kvnet ipam show ADDRESS`: who has it, since when, who asked for it, and who had it before.

Who has it is the controller's word; who asked and what was before is told by the journal, as far as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.describe.page import CHANGES, together
from cli.ipam import printed_as_data
from cli.safe import safe
from cli.words import age, seconds_since

if TYPE_CHECKING:
    from kvnet.client import Client

Json = Mapping[str, Any]

HISTORY = 20


async def show_address(client: Client, address: str) -> None:
    found, journal = await together(client.who_has_address(address), client.journal(address=address, limit=HISTORY))
    history = journal["items"]
    holders = [{**holder, "asked": asked(holder, history)} for holder in found["holders"]]
    whole = {**found, "holders": holders, "history": history, "history_from": journal["kept_from"]}
    if printed_as_data(whole):
        return
    if not holders:
        click.echo(f"{found['address']} belongs to no network.")
    now = time.time()
    for holder in holders:
        click.echo(safe(described(found["address"], holder, now) + in_block(holder)))
        if holder["since"]:
            click.echo(f"  since: {safe(holder['since'])}")
        if holder["asked"]:
            click.echo(f"  asked for by: {safe(_asker(holder['asked']))}")
    if history:
        click.echo()
        for line in output.table_lines(history, CHANGES, now, whole=False):
            click.echo(line)
    if journal["kept_from"]:
        click.echo(f"What happened before revision {journal['kept_from']} is not kept.", err=True)


def asked(holder: Json, history: Sequence[Json]) -> Json | None:
    """The change that gave the address to who has it: the oldest one that is known of this holding."""
    own = [event for event in history if event["after"] is not None and _is_of(event, holder)]
    return own[-1] if own else None


def _is_of(event: Json, holder: Json) -> bool:
    after = event["after"]
    return bool(holder["holder"]) and holder["holder"] in (after.get("id"), after.get("holder"))


def _asker(event: Json) -> str:
    request = f", request {event['request_id']}" if event["request_id"] else ""
    return f"{event['actor']}{request}, revision {event['revision']}"


def in_block(holder: Json) -> str:
    """Of a routed network: which host its block belongs to."""
    block = holder.get("block")
    if block is None:
        return ""
    return f"; its block {block['cidr']} is host {block['host']}'s, {block['used']} of {block['size']} used"


def described(address: str, holder: Json, now: float) -> str:
    """One line: who has the address, on which network, where, since when."""
    network = holder["network_name"]
    for_so_long = age(seconds_since(holder["since"], now))
    match holder["kind"], holder["endpoint"]:
        case "free", _:
            return f"{address} is free on network {network}"
        case "endpoint", None:
            return f"{address} belongs to endpoint {holder['holder']} of network {network}, which is not there"
        case "endpoint", endpoint:
            return (
                f"{address} belongs to endpoint {endpoint['name']} ({endpoint['id']}) of network {network}"
                f" on host {endpoint['host']}, for {for_so_long}"
            )
        case "reservation", _:
            return f"{address} is reserved on network {network} as {holder['holder']}"
        case "tombstone", _:
            left = age(-(seconds_since(holder["until"], now) or 0.0))
            return f"{address} cools down on network {network} for another {left}; {holder['holder']} had it"
        case "host", _:
            return f"{address} is host {holder['holder']}'s own address, so no endpoint of network {network} gets it"
        case kind, _:
            return f"{address} is the {kind} address of network {network}"
