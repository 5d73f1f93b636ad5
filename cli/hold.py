"""`kvnet hold`: subnets kept for networks about to be made; Docker's plugin does it by itself, this is for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import listing, lists, output, planned, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, current, output_option
from kvnet.errors import KvnetError
from kvnet.wire import Hold, HoldBody

if TYPE_CHECKING:
    from kvnet.client import Client

FORMS = ("id", "json", "yaml")

HOLDS: Listing[Hold] = Listing(
    columns=(
        Column("ID", lambda h: h["id"]),
        Column("SUBNET", lambda h: h["cidr"]),
        Column("HOST", lambda h: h["host"]),
        Column("UNTIL", lambda h: h["until"]),
    ),
    name=lambda h: h["id"],
    identity=lambda h: h["id"],
    filters={"host": listing.one_of(lambda h: [h["host"]])},
    kinds=("hold", "network"),
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.hold:create", "Keep a subnet for a minute."),
        "ls": ("cli.hold:ls", "List holds."),
        "inspect": ("cli.hold:inspect", "Everything about holds, as JSON."),
        "rm": ("cli.hold:rm", "Let go of subnets."),
    },
)
def hold() -> None:
    """Subnets that are kept for a minute, for networks that are about to be made (`network create` over the API)."""


@click.command()
@click.option("--host", required=True, metavar="HOST", shell_complete=suggest.hosts, help="For whose network.")
@click.option("--subnet", "cidr", metavar="CIDR", help="This one; default: a free one of a pool.")
@click.option("--pool", metavar="POOL", shell_complete=suggest.pools, help="Cut it from this pool.")
@click.option("--prefix-length", type=int, metavar="N", help="Its size.")
@click.option("-6", "is_v6", is_flag=True, help="An IPv6 one.")
@click.option("--force", is_flag=True, help="Accept one that overlaps what a host uses.")
@click.option("--output", "form", type=click.Choice(FORMS), help="Print the id, or the whole hold. [id]")
@planned.dry_run_option
@connected
async def create(
    client: Client,
    /,
    host: str,
    *,
    cidr: str | None,
    pool: str | None,
    prefix_length: int | None,
    is_v6: bool,
    force: bool,
    form: str | None,
    dry_run: bool,
) -> None:
    """Keep a subnet for HOST for a minute, and print the hold's id."""
    form = current().choose(form, FORMS)
    body: HoldBody = {"host": host}
    if cidr:
        body["cidr"] = cidr
    if pool:
        body["pool"] = pool
    if prefix_length is not None:
        body["prefix_length"] = prefix_length
    if is_v6:
        body["version"] = 6
    if force:
        body["force"] = True
    if dry_run:
        planned.show([await client.plan_hold(body)], does="hold a subnet")
        return
    made = await client.hold_subnet(body)
    if form == "id":
        click.echo(safe(made["id"]))
    else:
        output.show_data(made, form)


@click.command()
@list_options(HOLDS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List holds; they end by themselves."""

    async def fetch() -> list[Hold]:
        return [h async for h in client.holds(host=options.sole("host"))]

    await lists.show(client, fetch, HOLDS, options)


@click.command()
@click.argument("holds", nargs=-1, required=True, metavar="HOLD...", shell_complete=suggest.holds)
@output_option
@connected
async def inspect(client: Client, holds: Sequence[str]) -> None:
    """Everything about holds: a JSON array."""
    session = current()
    failures, found = Failures(session), []
    for one in holds:
        try:
            found.append(await client.get_hold(one))
        except KvnetError as error:
            failures.add(error)
    output.show_data(found, session.output)
    failures.exit_if_any()


@click.command()
@click.argument("holds", nargs=-1, required=True, metavar="HOLD...", shell_complete=suggest.holds)
@planned.dry_run_option
@connected
async def rm(client: Client, holds: Sequence[str], *, dry_run: bool) -> None:
    """Let go of subnets; no error for a hold that is over."""
    failures = Failures(current())
    for one in holds:
        try:
            if dry_run:
                planned.show([await client.plan_hold_release(one)], does=f"let go of hold {one}")
                continue
            await client.release_hold(one)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(one))
    failures.exit_if_any()
