"""`kvnet ipam ls`, `reserve` and `release`: addresses that are kept out of automatic choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import listing, lists, planned, suggest
from cli.each import each
from cli.ipam import RESERVATIONS
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected
from kvnet.wire import Reservation

if TYPE_CHECKING:
    from kvnet.client import Client

LISTED: Listing[Reservation] = Listing(
    columns=(*RESERVATIONS, Column("VERSION", lambda r: str(r["version"]), key=lambda r: r["version"], wide=True)),
    name=lambda r: r["name"],
    identity=lambda r: r["address"],
    filters={
        "name": listing.containing(lambda r: r["name"]),
        "address": listing.one_of(lambda r: [r["address"]]),
    },
    kinds=("reservation", "network"),
)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@list_options(LISTED)
@connected
async def ls(client: Client, network: str, *, options: ListOptions) -> None:
    """List the reserved addresses of NETWORK; those of its specification among them."""

    async def fetch() -> list[Reservation]:
        return [r async for r in client.reservations(network)]

    await lists.show(client, fetch, LISTED, options)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("name")
@click.argument("address", required=False, default="")
@planned.dry_run_option
@connected
async def reserve(client: Client, network: str, name: str, address: str, *, dry_run: bool) -> None:
    """Reserve ADDRESS of NETWORK under NAME and print it; without ADDRESS a free one is chosen."""
    if dry_run:
        planned.show([await client.plan_reservation(network, name, address)], does=f"reserve in {network}")
        return
    click.echo(safe((await client.create_reservation(network, name, address))["address"]))


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ADDRESS...", shell_complete=suggest.reservations)
@planned.dry_run_option
@connected
async def release(client: Client, network: str, names: Sequence[str], *, dry_run: bool) -> None:
    """Give reserved addresses of NETWORK back, by name or address. They cool down before anybody gets them."""
    await each(
        names,
        lambda name: client.delete_reservation(network, name),
        plan=(lambda name: client.plan_reservation_deletion(network, name)) if dry_run else None,
        does=lambda name: f"release {name} of {network}",
    )
