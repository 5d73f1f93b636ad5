"""`kvnet host`: the machines of the cluster, whether they live, and how far behind they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import colour, listing, lists, planned, progress, suggest
from cli.confirming import confirm, yes_option
from cli.each import each
from cli.inspecting import inspected
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, output_option
from cli.words import few, problems
from kvnet.wire import HeldPort, Host

if TYPE_CHECKING:
    from kvnet.client import Client

HOSTS: Listing[Host] = Listing(
    columns=(
        Column("NAME", lambda h: h["name"]),
        Column("UNDERLAY", lambda h: h["underlay"]),
        Column("STATE", lambda h: h["state"], tone=lambda h: colour.tone_of(h["state"])),
        Column("DOWN", lambda h: h["down_since"] or "", is_age=True, if_any=True, moment="DOWN SINCE"),
        Column("LAST SEEN", lambda h: h["last_seen"] or "", is_age=True, moment="LAST SEEN"),
        Column("ENDPOINTS", lambda h: str(h["endpoints"]), key=lambda h: h["endpoints"], right=True),
        Column("NETWORKS", lambda h: few(h["networks"]), key=lambda h: len(h["networks"])),
        Column(
            "BEHIND",
            lambda h: str(h["lag_revisions"] or ""),
            key=lambda h: h["lag_revisions"],
            if_any=True,
            tone=lambda _: colour.WARNING,
        ),
        Column(
            "PROBLEMS",
            lambda h: few([c["reason"] for c in problems(h["status"])]),
            if_any=True,
            tone=lambda _: colour.BAD,
        ),
        Column("MTU", lambda h: str(h["mtu"]), key=lambda h: h["mtu"], wide=True),
        Column("KERNEL", lambda h: h["kernel"], wide=True),
        Column("KVNET", lambda h: h["kvnet_version"], wide=True),
        Column("INCARNATION", lambda h: h["incarnation"], wide=True),
        Column("VERSION", lambda h: str(h["version"]), key=lambda h: h["version"], wide=True),
    ),
    name=lambda h: h["name"],
    identity=lambda h: h["name"],
    filters={
        "name": listing.containing(lambda h: h["name"]),
        "network": listing.one_of(lambda h: h["networks"]),
        "state": listing.one_of(lambda h: [h["state"]]),
    },
    kinds=("host", "endpoint"),
)

PORTS: Listing[HeldPort] = Listing(
    columns=(
        Column("HOST", lambda p: p["host"]),
        Column("PORT", lambda p: f"{p['host_port']}/{p['protocol']}"),
        Column("ON", lambda p: p["host_address"] or "all addresses"),
        Column("ENDPOINT", lambda p: p["endpoint_name"] or p["endpoint"]),
        Column("ITS PORT", lambda p: "" if p["port"] is None else str(p["port"])),
        Column("NETWORK", lambda p: p["network_name"]),
        Column("ID", lambda p: p["endpoint"]),
    ),
    name=lambda p: f"{p['host']}:{p['host_port']}/{p['protocol']}",
    identity=lambda p: f"{p['host']}:{p['host_port']}/{p['protocol']}/{p['host_address'] or ''}",
    filters={
        "protocol": listing.one_of(lambda p: [p["protocol"]]),
        "network": listing.one_of(lambda p: [p["network_name"], p["network"]]),
        "port": listing.one_of(lambda p: [str(p["host_port"])]),
    },
    kinds=("endpoint",),
)


@click.group(
    cls=LazyGroup,
    table={
        "ls": ("cli.host:ls", "List hosts."),
        "inspect": ("cli.host:inspect", "Everything about hosts, as JSON."),
        "describe": ("cli.describe.host:describe", "A page about a host: state, what it carries, what happened."),
        "ports": ("cli.host:ports", "List the ports of a host that endpoints publish."),
        "wait": ("cli.wait:host", "Wait until hosts are ready, converged or deleted."),
        "pause": ("cli.pause:pause", "Pause the repairs of a host for a while, to look at a fault."),
        "resume": ("cli.pause:resume", "End that pause."),
        "join-token": ("cli.join:join_token", "Make a token that lets a host join, once."),
        "rm": ("cli.host:rm", "Remove hosts that are gone for good."),
    },
)
def host() -> None:
    """List, inspect and remove hosts. A host joins with `kvnet worker join` and runs `kvnet worker`."""


@click.command()
@list_options(HOSTS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List hosts. BEHIND counts the store revisions that a host has not applied yet."""

    async def fetch() -> list[Host]:
        return [h async for h in client.hosts()]

    await lists.show(client, fetch, HOSTS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST...", shell_complete=suggest.hosts)
@output_option
@connected
async def inspect(client: Client, names: Sequence[str]) -> None:
    """Everything about hosts: a JSON array."""
    await inspected(names, client.get_host)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST...", shell_complete=suggest.hosts)
@click.option("--force", is_flag=True, help="Release its endpoints too. Be sure that the host is gone for good.")
@yes_option
@planned.dry_run_option
@connected
async def rm(client: Client, names: Sequence[str], *, force: bool, yes: bool, dry_run: bool) -> None:
    """Remove hosts. Refused while a host lives or carries endpoints; --force releases those, and asks first."""

    async def remove(name: str) -> None:
        if force:
            await _confirm(client, name, yes=yes)
        with progress.waiting(f"removing host {name}"):
            await client.delete_host(name, force=force)

    await each(
        names,
        remove,
        plan=(lambda name: client.plan_host_deletion(name, force=force)) if dry_run else None,
        does=lambda name: f"remove host {name}",
    )


async def _confirm(client: Client, name: str, *, yes: bool) -> None:
    if yes:
        return
    carried = (await client.get_host(name))["endpoints"]
    if carried:
        what = "its endpoint" if carried == 1 else f"its {carried} endpoints"
        confirm(f"Remove host {safe(name)} and release {what}? Workloads that still run there lose them.", yes=yes)


@click.command()
@click.argument("host", shell_complete=suggest.hosts)
@list_options(PORTS)
@connected
async def ports(client: Client, host: str, *, options: ListOptions) -> None:
    """List the ports of HOST that endpoints publish."""

    async def fetch() -> list[HeldPort]:
        return await client.host_ports(host)

    await lists.show(client, fetch, PORTS, options)
