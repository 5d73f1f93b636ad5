"""`kvnet endpoint describe`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import naming
from cli.describe.page import EVENTS, Page, show, since, together
from cli.session import connected, output_option
from cli.words import pairs
from kvnet.errors import NotFound
from kvnet.publish import shown
from kvnet.wire import Endpoint, Host

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@naming.endpoint_arguments
@output_option
@connected
async def describe(client: Client, words: Sequence[str]) -> None:
    """A page about each endpoint: facts, conditions, its host, and what happened to it. Named as for inspect."""
    named = {f"{network}/{name}": (network, name) for network, name in naming.spelt(words)}
    await show(named, lambda key: _page(client, *named[key]))


async def _page(client: Client, network: str, name: str) -> Page:
    endpoint = await naming.endpoint(client, network, name)
    host, journal = await together(
        _host(client, endpoint["host"]),
        client.journal(network=endpoint["network"], endpoint=endpoint["id"], limit=EVENTS),
    )
    data = {"endpoint": endpoint, "host": host, "events": journal["items"]}
    page = Page(f"Endpoint {endpoint['network_name']}/{endpoint['name']}", _facts(endpoint, host), data)
    page.conditions(endpoint["status"])
    page.text("Published ports", *(shown(port) for port in endpoint["ports"]))
    waiting = endpoint["applied"]["waiting_for"]
    page.text("Not applied yet by", ", ".join(waiting))
    page.changes(journal)
    return page


async def _host(client: Client, name: str) -> Host | None:
    try:
        return await client.get_host(name)
    except NotFound:
        return None


def _facts(endpoint: Endpoint, host: Host | None) -> list[tuple[str, object]]:
    where = "which is not known" if host is None else f"{host['state']}, {host['underlay']}"
    facts: list[tuple[str, object]] = [
        ("Id", endpoint["id"]),
        ("Network", f"{endpoint['network_name']} ({endpoint['network']})"),
        ("Host", f"{endpoint['host']} ({where})"),
        ("Address", endpoint["address"]),
        ("Address6", endpoint["address6"]),
        ("MAC", endpoint["mac"]),
        ("Host name", endpoint["hostname"]),
        ("Aliases", ", ".join(endpoint["aliases"])),
        ("Created", since(endpoint["created_at"])),
        ("Version", endpoint["version"]),
        ("Gateway priority", endpoint["gateway_priority"] or None),
        ("Labels", pairs(endpoint["labels"])),
    ]
    return [(title, value) for title, value in facts if value not in (None, "")]
