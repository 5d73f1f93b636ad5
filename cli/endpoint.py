"""`kvnet endpoint`: what is attached where, with which addresses, and whether every host knows it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import output, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.output import Column, Listing, ListOptions
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.words import few, natural, pairs
from kvnet.errors import KvnetError
from kvnet.wire import Endpoint

if TYPE_CHECKING:
    from kvnet.client import Client

ENDPOINTS: Listing[Endpoint] = Listing(
    columns=(
        Column("NETWORK", lambda e: e["network_name"]),
        Column("NAME", lambda e: e["name"]),
        Column("ADDRESS", lambda e: e["address"] or "", key=lambda e: natural(e["address"] or "")),
        Column("ADDRESS6", lambda e: e["address6"] or ""),
        Column("HOST", lambda e: e["host"]),
        Column("AGE", lambda e: e["created_at"], is_age=True),
        Column("WAITING FOR", lambda e: few(e["applied"]["waiting_for"]), if_any=True),
        Column("ID", lambda e: e["id"], wide=True),
        Column("MAC", lambda e: e["mac"], wide=True),
        Column("ALIASES", lambda e: ",".join(e["aliases"]), wide=True, long=True),
        Column("LABELS", lambda e: pairs(e["labels"]), wide=True, long=True),
        Column("VERSION", lambda e: str(e["version"]), key=lambda e: e["version"], wide=True),
    ),
    name=lambda e: f"{e['network_name']}/{e['name']}",
    identity=lambda e: e["id"],
    filters={
        "network": output.one_of(lambda e: [e["network_name"], e["network"]]),
        "host": output.one_of(lambda e: [e["host"]]),
        "name": output.containing(lambda e: e["name"]),
        "address": output.one_of(lambda e: [e["address"], e["address6"]]),
        "label": output.labelled(lambda e: e["labels"]),
        "id": output.starting(lambda e: e["id"]),
    },
)


@click.group(
    cls=LazyGroup,
    table={
        "ls": ("cli.endpoint:ls", "List endpoints, of one network or of all."),
        "inspect": ("cli.endpoint:inspect", "Everything about endpoints, as JSON."),
        "rm": ("cli.endpoint:rm", "Remove endpoints, and with them their interfaces."),
    },
)
def endpoint() -> None:
    """List, inspect and remove endpoints: the interfaces of workloads on networks."""


@click.command()
@click.argument("network", required=False, default="", shell_complete=suggest.networks)
@click.option("--network", "also", default="", metavar="NETWORK", help="The same as the argument.")
@output.list_options(ENDPOINTS)
@connected
async def ls(client: Client, network: str, also: str, *, options: ListOptions) -> None:
    """List endpoints, of NETWORK or of all. WAITING FOR names the hosts that do not know an endpoint yet."""
    network = network or also
    host, address = options.sole("host"), options.sole("address")
    found = [e async for e in client.endpoints(network=network, host=host, address=address)]
    output.show_list(found, ENDPOINTS, options)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="ENDPOINT...")
@output_option
@connected
async def inspect(client: Client, network: str, names: Sequence[str]) -> None:
    """Everything about endpoints of NETWORK, by name or id: a JSON array."""
    session = current()
    failures, found = Failures(session), []
    for name in names:
        try:
            found.append(await client.get_endpoint(network, name))
        except KvnetError as error:
            failures.add(error)
    output.show_data(found, session.output)
    failures.exit_if_any()


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="ENDPOINT...")
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@connected
async def rm(client: Client, network: str, names: Sequence[str], *, version: int | None) -> None:
    """Remove endpoints from NETWORK, by name or id: their addresses are released, their hosts remove the interfaces."""
    failures = Failures(current())
    for name in names:
        try:
            await client.delete_endpoint(network, name, version=version)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
