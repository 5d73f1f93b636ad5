"""`kvnet pool`: the blocks that automatic subnets are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import listing, lists, planned, suggest
from cli.each import each
from cli.inspecting import inspected
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, output_option
from cli.words import share
from kvnet.wire import Pool, PoolBody

if TYPE_CHECKING:
    from kvnet.client import Client

POOLS: Listing[Pool] = Listing(
    columns=(
        Column("NAME", lambda p: p["name"]),
        Column("CIDR", lambda p: p["cidr"]),
        Column("CUT", lambda p: f"/{p['prefix_length']}", key=lambda p: p["prefix_length"]),
        Column(
            "USED/SUBNETS (%)",
            lambda p: share(p["subnets_used"], p["subnets_total"]),
            key=lambda p: p["subnets_used"],
            parts=(("USED", lambda p: p["subnets_used"]), ("SUBNETS", lambda p: p["subnets_total"])),
        ),
        Column("LARGEST FREE", lambda p: p["largest_free"] or "none"),
        Column("RESERVED", lambda p: ",".join(p["reserved"]), wide=True, long=True),
        Column("VERSION", lambda p: str(p["version"]), key=lambda p: p["version"], wide=True),
    ),
    name=lambda p: p["name"],
    identity=lambda p: p["name"],
    filters={
        "name": listing.containing(lambda p: p["name"]),
        "family": listing.one_of(lambda p: ["6" if ":" in p["cidr"] else "4"]),
    },
    kinds=("pool", "network", "hold"),
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.pool:create", "Add a block that subnets are cut from."),
        "ls": ("cli.pool:ls", "List pools."),
        "inspect": ("cli.pool:inspect", "Everything about pools, as JSON."),
        "describe": ("cli.describe.pool:describe", "A page about a pool: how full it is, what was cut from it."),
        "rm": ("cli.pool:rm", "Remove pools that no network was cut from."),
    },
)
def pool() -> None:
    """The blocks that automatic subnets are cut from."""


@click.command()
@click.argument("name")
@click.argument("cidr")
@click.option("--prefix-length", type=int, metavar="N", help="Size of the subnets; default /24, or /64 for IPv6.")
@click.option("--reserve", "reserved", multiple=True, metavar="CIDR", help="Never cut a subnet from this part.")
@planned.dry_run_option
@connected
async def create(
    client: Client, name: str, cidr: str, *, prefix_length: int | None, reserved: Sequence[str], dry_run: bool
) -> None:
    """Let subnets be cut from CIDR; `network create --pool NAME` then takes them from there."""
    usual = 64 if ":" in cidr else 24
    body: PoolBody = {"name": name, "cidr": cidr, "prefix_length": prefix_length or usual}
    if reserved:
        body["reserved"] = reserved
    if dry_run:
        planned.show([await client.plan_pool(body)], does=f"create pool {name}")
        return
    click.echo(safe((await client.create_pool(body))["name"]))


@click.command()
@list_options(POOLS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List pools, and how many of their subnets are used."""

    async def fetch() -> list[Pool]:
        return [p async for p in client.pools()]

    await lists.show(client, fetch, POOLS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="POOL...", shell_complete=suggest.pools)
@output_option
@connected
async def inspect(client: Client, names: Sequence[str]) -> None:
    """Everything about pools: a JSON array."""
    await inspected(names, client.get_pool)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="POOL...", shell_complete=suggest.pools)
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@planned.dry_run_option
@connected
async def rm(client: Client, names: Sequence[str], *, version: int | None, dry_run: bool) -> None:
    """Remove pools that no network was cut from."""
    await each(
        names,
        lambda name: client.delete_pool(name, version=version),
        plan=(lambda name: client.plan_pool_deletion(name, version=version)) if dry_run else None,
        does=lambda name: f"remove pool {name}",
    )
