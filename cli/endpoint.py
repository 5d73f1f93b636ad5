"""`kvnet endpoint`: what is attached where, with which addresses and ports, and whether every host knows it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import converging, listing, lists, naming, planned, suggest
from cli.failures import Failures
from cli.inspecting import inspected
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.words import few, natural, pairs
from kvnet.errors import KvnetError
from kvnet.publish import shown
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
        Column("PORTS", lambda e: few([shown(port) for port in e["ports"]]), if_any=True),
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
        "network": listing.one_of(lambda e: [e["network_name"], e["network"]]),
        "host": listing.one_of(lambda e: [e["host"]]),
        "name": listing.containing(lambda e: e["name"]),
        "address": listing.one_of(lambda e: [e["address"], e["address6"]]),
        "label": listing.labelled(lambda e: e["labels"]),
        "id": listing.starting(lambda e: e["id"]),
    },
    kinds=("endpoint", "network", "host"),
)


@click.group(
    cls=LazyGroup,
    table={
        "create": (
            "cli.endpoint_make:create",
            "Claim addresses and ports for a workload on a host, without an interface.",
        ),
        "update": ("cli.endpoint_make:update", "Change what a living endpoint is called, or what it publishes."),
        "ls": ("cli.endpoint:ls", "List endpoints, of one network or of all."),
        "inspect": ("cli.endpoint:inspect", "Everything about endpoints, as JSON."),
        "describe": ("cli.describe.endpoint:describe", "A page about an endpoint: state, addresses, what happened."),
        "wait": ("cli.wait:endpoint", "Wait until endpoints are ready, converged or deleted."),
        "rm": ("cli.endpoint:rm", "Remove endpoints, and with them their interfaces."),
    },
)
def endpoint() -> None:
    """Create, change, list, inspect and remove endpoints: the interfaces of workloads on networks."""


@click.command()
@click.argument("network", required=False, default="", shell_complete=suggest.networks)
@click.option("--network", "also", default="", metavar="NETWORK", help="The same as the argument.")
@list_options(ENDPOINTS)
@connected
async def ls(client: Client, network: str, also: str, *, options: ListOptions) -> None:
    """List endpoints, of NETWORK or of all. WAITING FOR names the hosts that do not know an endpoint yet."""
    network = network or also
    host, address = options.sole("host"), options.sole("address")

    async def fetch() -> list[Endpoint]:
        found = [e async for e in client.endpoints(network=network, host=host, address=address)]
        return sorted(found, key=lambda e: (natural(e["network_name"]), natural(e["name"])))

    await lists.show(client, fetch, ENDPOINTS, options)


@click.command()
@naming.endpoint_arguments
@output_option
@connected
async def inspect(client: Client, words: Sequence[str]) -> None:
    """Everything about endpoints: a JSON array.

    Of NETWORK by name or id; or each by its id, NETWORK/NAME, an address, or a name that only one has.
    """
    await inspected(naming.spelt(words), lambda spelt: naming.endpoint(client, *spelt))


@click.command()
@naming.endpoint_arguments
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@converging.wait_option
@planned.dry_run_option
@connected
async def rm(client: Client, words: Sequence[str], *, version: int | None, wait_s: float, dry_run: bool) -> None:
    """Remove endpoints, named as for inspect: their addresses are released, their hosts remove the interfaces."""
    failures = Failures(current())
    for network, name in naming.spelt(words):
        try:
            place = await naming.place(client, network, name)
            if dry_run:
                plan = await client.plan_endpoint_deletion(*place, version=version)
                planned.show([plan], does=f"remove endpoint {name}")
                continue
            converging.told(await client.delete_endpoint(*place, version=version, wait_s=wait_s), wait_s)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
