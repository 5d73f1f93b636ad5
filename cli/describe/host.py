"""`kvnet host describe`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import suggest
from cli.describe.page import EVENTS, Page, blocked, listed, show, since, together
from cli.endpoint import ENDPOINTS
from cli.host import PORTS
from cli.ipam import HOST_BLOCKS
from cli.session import connected, output_option
from kvnet.wire import Host

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST...", shell_complete=suggest.hosts)
@output_option
@connected
async def describe(client: Client, names: Sequence[str]) -> None:
    """A page about each HOST: facts, conditions, what it carries and publishes, what happened, what blocks rm."""
    await show(names, lambda name: _page(client, name))


async def _page(client: Client, name: str) -> Page:
    host, endpoints, ports, use, journal, block = await together(
        client.get_host(name),
        listed(client.endpoints(host=name)),
        client.host_ports(name),
        client.ipam(),
        client.journal(host=name, limit=EVENTS),
        blocked(client.plan_host_deletion(name)),
    )
    every = ({**block, "network": n["name"]} for n in use["networks"] for block in n.get("blocks", ()))
    blocks = [block for block in every if block["host"] == name]
    data = {"host": host, "endpoints": endpoints, "ports": ports, "blocks": blocks, "events": journal["items"]}
    page = Page(f"Host {host['name']}", _facts(host), {**data, "blocks_deletion": block or None})
    page.conditions(host["status"])
    page.table(f"Endpoints ({len(endpoints)})", endpoints, ENDPOINTS.columns)
    page.table("Published ports", ports, PORTS.columns)
    page.table("Blocks of routed networks", blocks, HOST_BLOCKS)
    page.changes(journal)
    page.text("In the way of its removal", *block.splitlines())
    return page


def _facts(host: Host) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("State", host["state"]),
        ("Underlay", host["underlay"]),
        ("MTU", host["mtu"]),
        ("Last seen", since(host["last_seen"])),
        ("Down since", since(host["down_since"])),
        ("Behind", f"{host['lag_revisions']} revisions" if host["lag_revisions"] else "nothing"),
        ("Networks", ", ".join(host["networks"])),
        ("Kernel", host["kernel"]),
        ("kvnet", host["kvnet_version"]),
        ("Incarnation", host["incarnation"]),
        ("Abilities", ", ".join(host["abilities"])),
        ("Version", host["version"]),
    ]
    return [(title, value) for title, value in facts if value not in (None, "")]
