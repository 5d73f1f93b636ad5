"""`kvnet pool describe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import click

from cli import suggest
from cli.describe.page import EVENTS, Page, blocked, show, together
from cli.listing import Column
from cli.session import connected, output_option
from cli.words import share
from kvnet.addresses import lies_in
from kvnet.wire import Pool

if TYPE_CHECKING:
    from kvnet.client import Client

CUT: tuple[Column[Mapping[str, Any]], ...] = (
    Column("NETWORK", lambda s: s["network"]),
    Column("SUBNET", lambda s: s["cidr"]),
    Column("USED/SIZE (%)", lambda s: share(s["used"], s["size"])),
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="POOL...", shell_complete=suggest.pools)
@output_option
@connected
async def describe(client: Client, names: Sequence[str]) -> None:
    """A page about each POOL: how full it is, what was cut from it, what happened, what blocks rm."""
    await show(names, lambda name: _page(client, name))


async def _page(client: Client, name: str) -> Page:
    pool, use, journal, block = await together(
        client.get_pool(name),
        client.ipam(),
        client.journal(pool=name, limit=EVENTS),
        blocked(client.plan_pool_deletion(name)),
    )
    subnets = [
        {**subnet, "network": network["name"]}
        for network in use["networks"]
        for subnet in network["subnets"]
        if lies_in(ip_network(subnet["cidr"]), ip_network(pool["cidr"]))
    ]
    data = {"pool": pool, "subnets": subnets, "events": journal["items"], "blocks_deletion": block or None}
    page = Page(f"Pool {pool['name']}", _facts(pool), data)
    page.table("Cut from it", subnets, CUT)
    page.changes(journal)
    page.text("In the way of its removal", *block.splitlines())
    return page


def _facts(pool: Pool) -> list[tuple[str, object]]:
    return [
        ("Block", pool["cidr"]),
        ("Cut in", f"/{pool['prefix_length']}"),
        ("Subnets used", share(pool["subnets_used"], pool["subnets_total"])),
        ("Largest free", pool["largest_free"] or "none"),
        ("Reserved", ", ".join(pool["reserved"])),
        ("Version", pool["version"]),
    ]
