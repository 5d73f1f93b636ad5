"""`kvnet network`: Docker's verbs and flags, for networks of the whole cluster.

`connect` and `disconnect` are `attach` and `detach` under the names that Docker's users know; what makes and changes
networks is in `cli.network_create` and `cli.change`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import colour, converging, listing, lists, planned, progress, suggest
from cli.confirming import confirm, yes_option
from cli.each import each
from cli.inspecting import inspected
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, output_option
from cli.words import few, pairs, problems, share, use_of
from kvnet.wire import Endpoint, Network

if TYPE_CHECKING:
    from kvnet.client import Client

NETWORKS: Listing[Network] = Listing(
    columns=(
        Column("NAME", lambda n: n["name"]),
        Column("SUBNET", lambda n: ",".join(s["cidr"] for s in n["subnets"])),
        Column(
            "USED/SIZE (%)",
            lambda n: share(*use_of(n["subnets"])),
            key=lambda n: use_of(n["subnets"])[0],
            parts=(("USED", lambda n: use_of(n["subnets"])[0]), ("SIZE", lambda n: use_of(n["subnets"])[1])),
        ),
        Column("ENDPOINTS", lambda n: str(n["endpoints"]), key=lambda n: n["endpoints"], right=True),
        Column(
            "HOSTS",
            lambda n: few(n["hosts"]),
            key=lambda n: len(n["hosts"]),
            parts=(("HOSTS", lambda n: " ".join(n["hosts"])),),
        ),
        Column("DRIVER", lambda n: n["driver"]),
        Column("AGE", lambda n: n["created_at"], is_age=True),
        Column(
            "STATE",
            lambda n: "" if n["state"] == "active" else n["state"],
            if_any=True,
            tone=lambda n: colour.tone_of(n["state"]),
        ),
        Column(
            "PROBLEMS",
            lambda n: few([f"{c['host']}:{c['reason']}" for c in problems(n["status"])]),
            if_any=True,
            tone=lambda _: colour.BAD,
        ),
        Column("ID", lambda n: n["id"], wide=True),
        Column("GATEWAY", lambda n: ",".join(s["gateway"] or "-" for s in n["subnets"]), wide=True),
        Column("VNI", lambda n: str(n["vni"] or ""), key=lambda n: n["vni"] or 0, wide=True),
        Column("PEERS", lambda n: few([p["name"] for p in n["peers"]]), wide=True),
        Column("LABELS", lambda n: pairs(n["labels"]), wide=True, long=True),
        Column("VERSION", lambda n: str(n["version"]), key=lambda n: n["version"], wide=True),
    ),
    name=lambda n: n["name"],
    identity=lambda n: n["id"],
    filters={
        "driver": listing.one_of(lambda n: [n["driver"]]),
        "name": listing.containing(lambda n: n["name"]),
        "label": listing.labelled(lambda n: n["labels"]),
        "id": listing.starting(lambda n: n["id"]),
        "host": listing.one_of(lambda n: n["hosts"]),
    },
    kinds=("network", "endpoint", "host"),
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.network_create:create", "Create a network; without --subnet a free one is chosen."),
        "ls": ("cli.network:ls", "List networks."),
        "inspect": ("cli.network:inspect", "Everything about networks, as JSON."),
        "describe": (
            "cli.describe.network:describe",
            "A page about a network: state, use, what is on it, what happened.",
        ),
        "convergence": ("cli.convergence:convergence", "Which host has applied which version of a network."),
        "wait": ("cli.wait:network", "Wait until networks are ready, converged or deleted."),
        "update": ("cli.change:update", "Change a living network; its endpoints keep running."),
        "peer": ("cli.change:peer", "Let networks talk to each other."),
        "unpeer": ("cli.change:unpeer", "Keep them apart again."),
        "name": ("cli.network:name", "Name a network that was made without a name."),
        "rm": ("cli.network:rm", "Remove networks without endpoints."),
        "prune": ("cli.network:prune", "Remove all networks without endpoints."),
        "connect": ("cli.attach:connect", "Give a network namespace of this host an interface on a network."),
        "disconnect": ("cli.attach:disconnect", "Take that interface away."),
    },
)
def network() -> None:
    """Create, list, inspect, change and remove networks."""


@click.command()
@list_options(NETWORKS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List networks. USED/SIZE counts IPv4 addresses, or IPv6 ones where there are no others."""

    async def fetch() -> list[Network]:
        return [n async for n in client.networks(label=options.sole("label"), driver=options.sole("driver"))]

    await lists.show(client, fetch, NETWORKS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=suggest.networks)
@output_option
@connected
async def inspect(client: Client, names: Sequence[str]) -> None:
    """Everything about networks, by name or id, with their endpoints: a JSON array."""

    async def get(name: str) -> dict[str, object]:
        one = await client.get_network(name)
        attached = [_attached(e) async for e in client.endpoints(network=one["id"])]
        return {**one, "attached": attached}

    await inspected(names, get)


def _attached(endpoint: Endpoint) -> dict[str, object]:
    return {
        "id": endpoint["id"],
        "name": endpoint["name"],
        "host": endpoint["host"],
        "address": endpoint["address"],
        "address6": endpoint["address6"],
        "mac": endpoint["mac"],
        "aliases": endpoint["aliases"],
        "converged": endpoint["applied"]["converged"],
    }


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=suggest.networks)
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@click.option("-f", "--force", is_flag=True, help="No error for a network that is not there.")
@converging.wait_option
@planned.dry_run_option
@connected
async def rm(
    client: Client, names: Sequence[str], *, version: int | None, force: bool, wait_s: float, dry_run: bool
) -> None:
    """Remove networks, by name or id. One with endpoints is not removed: the error names them."""

    async def remove(name: str) -> None:
        converging.told(await client.delete_network(name, version=version, wait_s=wait_s), wait_s)

    await each(
        names,
        remove,
        plan=(lambda name: client.plan_network_deletion(name, version=version)) if dry_run else None,
        does=lambda name: f"remove network {name}",
        ignores=lambda error: force and error.status == 404,
    )


@click.command()
@click.option("-f", "--force", is_flag=True, help="The same as --yes.")
@yes_option
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@connected
async def prune(client: Client, *, force: bool, yes: bool, dry_run: bool) -> None:
    """Remove all networks without endpoints and print their names."""
    unused = (await client.prune_networks(dry_run=True))["deleted"]
    if not dry_run and unused:
        what = "1 network" if len(unused) == 1 else f"{len(unused)} networks"
        confirm(f"Remove {what} without endpoints: {few([safe(n['name']) for n in unused])}?", yes=yes or force)
        with progress.waiting(f"removing {what}"):
            unused = (await client.prune_networks())["deleted"]
    for one in unused:
        click.echo(safe(one["name"]))
    if dry_run and unused:
        click.echo("would be removed; nothing was changed.", err=True)
    if not unused:
        click.echo("Every network has endpoints: nothing to remove.", err=True)


@click.command()
@click.argument("network", metavar="ID")
@click.argument("name")
@connected
async def name(client: Client, network: str, name: str) -> None:
    """Give the network ID, which was made without a name, the name NAME. The same name again is no error."""
    click.echo(safe((await client.name_network(network, {"name": name}))["name"]))
