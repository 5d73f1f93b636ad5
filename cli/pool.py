"""`kvnet pool`: the blocks that automatic subnets are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import output, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.output import Column, Listing, ListOptions
from cli.safe import safe
from cli.session import connected, current
from cli.words import share
from kvnet.errors import KvnetError
from kvnet.wire import Pool, PoolBody

if TYPE_CHECKING:
    from kvnet.client import Client

POOLS: Listing[Pool] = Listing(
    columns=(
        Column("NAME", lambda p: p["name"]),
        Column("CIDR", lambda p: p["cidr"]),
        Column("CUT", lambda p: f"/{p['prefix_length']}", key=lambda p: p["prefix_length"]),
        Column(
            "USED/SUBNETS (%)", lambda p: share(p["subnets_used"], p["subnets_total"]), key=lambda p: p["subnets_used"]
        ),
        Column("LARGEST FREE", lambda p: p["largest_free"] or "none"),
        Column("RESERVED", lambda p: ",".join(p["reserved"]), wide=True, long=True),
        Column("VERSION", lambda p: str(p["version"]), key=lambda p: p["version"], wide=True),
    ),
    name=lambda p: p["name"],
    identity=lambda p: p["name"],
    filters={"name": output.containing(lambda p: p["name"])},
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.pool:create", "Add a block that subnets are cut from."),
        "ls": ("cli.pool:ls", "List pools."),
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
@connected
async def create(client: Client, name: str, cidr: str, *, prefix_length: int | None, reserved: Sequence[str]) -> None:
    """Let subnets be cut from CIDR; `network create --pool NAME` then takes them from there."""
    usual = 64 if ":" in cidr else 24
    body: PoolBody = {"name": name, "cidr": cidr, "prefix_length": prefix_length or usual}
    if reserved:
        body["reserved"] = reserved
    click.echo(safe((await client.create_pool(body))["name"]))


@click.command()
@output.list_options(POOLS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List pools, and how many of their subnets are used."""
    output.show_list([p async for p in client.pools()], POOLS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="POOL...", shell_complete=suggest.pools)
@connected
async def rm(client: Client, names: Sequence[str]) -> None:
    """Remove pools. Networks keep their subnets."""
    failures = Failures(current())
    for name in names:
        try:
            await client.delete_pool(name)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
