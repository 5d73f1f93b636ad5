"""`kvnet ipam`: how full everything is, who has an address or a block, and addresses kept out of automatic choice."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import click

from cli import colour, output, suggest
from cli.host import PORTS
from cli.lazy import LazyGroup
from cli.listing import Column
from cli.naming import is_address
from cli.pool import POOLS
from cli.progress import bar
from cli.session import connected, current, output_option
from cli.words import amount, natural, share
from kvnet.wire import Reservation

if TYPE_CHECKING:
    from kvnet.client import Client

Json = Mapping[str, Any]

BAR_WIDTH = 20
RATHER_FULL, NEARLY_FULL = 0.7, 0.9
HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*):(?:(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp))?)?\Z")

BLOCKS: tuple[Column[Json], ...] = (
    Column("NETWORK", lambda b: b["network"]),
    Column("SUBNET", lambda b: b["cidr"]),
    Column("USED/SIZE (%)", lambda b: share(b["used"], b["size"])),
    Column("FREE", lambda b: amount(b["size"] - b["used"]), right=True),
)
BAR: Column[Json] = Column("", lambda b: bar(b["used"], b["size"], BAR_WIDTH), tone=lambda b: fullness(b))
RESERVATIONS: tuple[Column[Reservation], ...] = (
    Column("RESERVATION", lambda r: r["name"]),
    Column("ADDRESS", lambda r: r["address"]),
    Column("AGE", lambda r: r["since"], is_age=True),
    Column("FROM", lambda r: "the network's specification" if r["fixed"] else "'kvnet ipam reserve'"),
)
HOST_BLOCKS: tuple[Column[Json], ...] = (
    Column("NETWORK", lambda b: b["network"]),
    Column("BLOCK", lambda b: b["cidr"]),
    Column("HOST", lambda b: b["host"]),
    Column("USED/SIZE (%)", lambda b: share(b["used"], b["size"])),
    Column("STATE", lambda b: b["state"]),
    Column("AGE", lambda b: b["since"], is_age=True),
)
HELD: tuple[Column[Json], ...] = (
    Column("BLOCK", lambda h: h["cidr"]),
    Column("KIND", lambda h: h["kind"]),
    Column("HOLDER", lambda h: h["holder"]),
    Column("DETAIL", lambda h: h["detail"]),
)


def fullness(block: Json) -> str:
    """The colour of how full it is."""
    used = block["used"] / block["size"] if block["size"] else 1.0
    return colour.BAD if used >= NEARLY_FULL else colour.WARNING if used >= RATHER_FULL else colour.GOOD


@click.group(
    cls=LazyGroup,
    table={
        "show": (
            "cli.ipam:show",
            "How full everything is; or who has ADDRESS, SUBNET, HOST:PORT, or what NETWORK has.",
        ),
        "ls": ("cli.reservation:ls", "List the reserved addresses of a network."),
        "reserve": ("cli.reservation:reserve", "Keep an address of a network out of automatic choice."),
        "release": ("cli.reservation:release", "Give reserved addresses back."),
    },
)
def ipam() -> None:
    """Who has which address."""


@click.command()
@click.argument("what", required=False, metavar="[ADDRESS|SUBNET|HOST:PORT|NETWORK]", shell_complete=suggest.networks)
@output_option
@connected
async def show(client: Client, what: str | None) -> None:
    """How full pools and networks are; or who has an address or a port, what overlaps a subnet, what a network holds.

    \b
    kvnet ipam show
    kvnet ipam show 10.192.0.7
    kvnet ipam show 10.192.0.0/16
    kvnet ipam show h1:8080/tcp
    kvnet ipam show h1:
    kvnet ipam show my-net
    """
    if what is None:
        await _show_all(client)
    elif is_address(what):
        from cli.address import show_address

        await show_address(client, what)
    elif _is_subnet(what):
        await _show_subnet(client, what)
    elif (port := HOST_PORT.match(what)) is not None:
        await _show_ports(client, port["host"], int(port["port"] or 0), port["protocol"] or "")
    else:
        await _show_network(client, what)


def _is_subnet(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


async def _show_ports(client: Client, host: str, port: int, protocol: str) -> None:
    found = await client.host_ports(host, port=port, protocol=protocol)
    if printed_as_data(found):
        return
    if found:
        table(found, PORTS.columns)
    elif port:
        click.echo(f"Port {port}{f'/{protocol}' if protocol else ''} of host {host} is not published by any endpoint.")
    else:
        click.echo(f"No endpoint publishes a port of host {host}.")


async def _show_all(client: Client) -> None:
    use = await client.ipam()
    if printed_as_data(use):
        return
    table(use["pools"], POOLS.columns)
    blocks = [{"network": n["name"], **subnet} for n in use["networks"] for subnet in n["subnets"]]
    if blocks:
        click.echo()
        table([*blocks, *totals(blocks)], (*BLOCKS, BAR) if sys.stdout.isatty() else BLOCKS)
    own = [{**block, "network": n["name"]} for n in use["networks"] for block in n.get("blocks", ())]
    if own:
        click.echo()
        table(own, (*HOST_BLOCKS, BAR) if sys.stdout.isatty() else HOST_BLOCKS)


def totals(blocks: Sequence[Json]) -> list[Json]:
    """Of all subnets of a family that has several."""
    found: list[Json] = []
    for family, mark in (("IPv4", "."), ("IPv6", ":")):
        own = [block for block in blocks if mark in block["cidr"].partition("/")[0]]
        if len(own) > 1:
            sums = {member: sum(block[member] for block in own) for member in ("used", "size")}
            found.append({"network": "total", "cidr": f"{len(own)} {family} subnets", **sums})
    return found


async def _show_subnet(client: Client, cidr: str) -> None:
    found = await client.who_has_subnet(cidr)
    if printed_as_data(found):
        return
    if found["holders"]:
        table(found["holders"], HELD)
    else:
        click.echo(f"{found['cidr']} is free: no network, pool or host has a part of it.")


async def _show_network(client: Client, name: str) -> None:
    network = await client.get_network(name)
    reservations = [r async for r in client.reservations(network["id"])]
    endpoints = [e async for e in client.endpoints(network=network["id"])]
    if printed_as_data({"network": network, "reservations": reservations, "endpoints": endpoints}):
        return
    table([{"network": network["name"], **subnet} for subnet in network["subnets"]], BLOCKS)
    if reservations:
        click.echo()
        table(reservations, RESERVATIONS)
    if endpoints:
        from cli.endpoint import ENDPOINTS

        click.echo()
        table(sorted(endpoints, key=lambda e: natural(e["address"] or e["address6"] or "")), ENDPOINTS.columns)


def printed_as_data(data: object) -> bool:
    session = current()
    if not output.as_data(session):
        return False
    output.show_data(data, session.output)
    return True


def table(rows: Iterable[Any], columns: Sequence[Column[Any]]) -> None:
    output.show_table(list(rows), columns, time.time(), wide=False, whole=False)
