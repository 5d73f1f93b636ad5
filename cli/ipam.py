"""`kvnet ipam`: how full everything is, who has an address or a block, and addresses kept out of automatic choice."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import click

from cli import output, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.listing import Column
from cli.pool import POOLS
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.words import age, natural, seconds_since, share
from kvnet.errors import KvnetError
from kvnet.wire import HeldPort, Reservation

if TYPE_CHECKING:
    from kvnet.client import Client

Json = Mapping[str, Any]

HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*):(?:(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp))?)?\Z")

BLOCKS: tuple[Column[Json], ...] = (
    Column("NETWORK", lambda b: b["network"]),
    Column("SUBNET", lambda b: b["cidr"]),
    Column("USED/SIZE (%)", lambda b: share(b["used"], b["size"])),
)
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
HOST_PORTS: tuple[Column[HeldPort], ...] = (
    Column("HOST", lambda p: p["host"]),
    Column("PORT", lambda p: f"{p['host_port']}/{p['protocol']}"),
    Column("ON", lambda p: p["host_address"] or "all addresses"),
    Column("ENDPOINT", lambda p: p["endpoint_name"] or p["endpoint"]),
    Column("ITS PORT", lambda p: "" if p["port"] is None else str(p["port"])),
    Column("NETWORK", lambda p: p["network_name"]),
    Column("ID", lambda p: p["endpoint"]),
)
HELD: tuple[Column[Json], ...] = (
    Column("BLOCK", lambda h: h["cidr"]),
    Column("KIND", lambda h: h["kind"]),
    Column("HOLDER", lambda h: h["holder"]),
    Column("DETAIL", lambda h: h["detail"]),
)


@click.group(
    cls=LazyGroup,
    table={
        "show": (
            "cli.ipam:show",
            "How full everything is; or who has ADDRESS, SUBNET, HOST:PORT, or what NETWORK has.",
        ),
        "reserve": ("cli.ipam:reserve", "Keep an address of a network out of automatic choice."),
        "release": ("cli.ipam:release", "Give reserved addresses back."),
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
    elif _is_address(what):
        await _show_address(client, what)
    elif _is_subnet(what):
        await _show_subnet(client, what)
    elif (port := HOST_PORT.match(what)) is not None:
        await _show_ports(client, port["host"], int(port["port"] or 0), port["protocol"] or "")
    else:
        await _show_network(client, what)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_subnet(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


async def _show_ports(client: Client, host: str, port: int, protocol: str) -> None:
    found = await client.host_ports(host, port=port, protocol=protocol)
    if _printed_as_data(found):
        return
    if found:
        _table(found, HOST_PORTS)
    elif port:
        click.echo(f"Port {port}{f'/{protocol}' if protocol else ''} of host {host} is not published by any endpoint.")
    else:
        click.echo(f"No endpoint publishes a port of host {host}.")


async def _show_all(client: Client) -> None:
    use = await client.ipam()
    if _printed_as_data(use):
        return
    _table(use["pools"], POOLS.columns)
    blocks = [{"network": n["name"], **subnet} for n in use["networks"] for subnet in n["subnets"]]
    if blocks:
        click.echo()
        _table(blocks, BLOCKS)
    own = [{**block, "network": n["name"]} for n in use["networks"] for block in n.get("blocks", ())]
    if own:
        click.echo()
        _table(own, HOST_BLOCKS)


async def _show_address(client: Client, address: str) -> None:
    found = await client.who_has_address(address)
    if _printed_as_data(found):
        return
    if not found["holders"]:
        click.echo(f"{found['address']} belongs to no network.")
    now = time.time()
    for holder in found["holders"]:
        click.echo(safe(described(found["address"], holder, now) + in_block(holder)))


def in_block(holder: Json) -> str:
    """Of a routed network: which host its block belongs to."""
    block = holder.get("block")
    if block is None:
        return ""
    return f"; its block {block['cidr']} is host {block['host']}'s, {block['used']} of {block['size']} used"


def described(address: str, holder: Json, now: float) -> str:
    """One line: who has the address, on which network, where, since when."""
    network = holder["network_name"]
    for_so_long = age(seconds_since(holder["since"], now))
    match holder["kind"], holder["endpoint"]:
        case "free", _:
            return f"{address} is free on network {network}"
        case "endpoint", None:
            return f"{address} belongs to endpoint {holder['holder']} of network {network}, which is not there"
        case "endpoint", endpoint:
            return (
                f"{address} belongs to endpoint {endpoint['name']} ({endpoint['id']}) of network {network}"
                f" on host {endpoint['host']}, for {for_so_long}"
            )
        case "reservation", _:
            return f"{address} is reserved on network {network} as {holder['holder']}"
        case "tombstone", _:
            left = age(-(seconds_since(holder["until"], now) or 0.0))
            return f"{address} cools down on network {network} for another {left}; {holder['holder']} had it"
        case "host", _:
            return f"{address} is host {holder['holder']}'s own address, so no endpoint of network {network} gets it"
        case kind, _:
            return f"{address} is the {kind} address of network {network}"


async def _show_subnet(client: Client, cidr: str) -> None:
    found = await client.who_has_subnet(cidr)
    if _printed_as_data(found):
        return
    if found["holders"]:
        _table(found["holders"], HELD)
    else:
        click.echo(f"{found['cidr']} is free: no network, pool or host has a part of it.")


async def _show_network(client: Client, name: str) -> None:
    network = await client.get_network(name)
    reservations = [r async for r in client.reservations(network["id"])]
    endpoints = [e async for e in client.endpoints(network=network["id"])]
    if _printed_as_data({"network": network, "reservations": reservations, "endpoints": endpoints}):
        return
    _table([{"network": network["name"], **subnet} for subnet in network["subnets"]], BLOCKS)
    if reservations:
        click.echo()
        _table(reservations, RESERVATIONS)
    if endpoints:
        from cli.endpoint import ENDPOINTS

        click.echo()
        _table(sorted(endpoints, key=lambda e: natural(e["address"] or e["address6"] or "")), ENDPOINTS.columns)


def _printed_as_data(data: object) -> bool:
    session = current()
    if not output.as_data(session):
        return False
    output.show_data(data, session.output)
    return True


def _table(rows: Iterable[Any], columns: Sequence[Column[Any]]) -> None:
    output.show_table(list(rows), columns, time.time(), wide=False, whole=False)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("name")
@click.argument("address", required=False, default="")
@connected
async def reserve(client: Client, network: str, name: str, address: str) -> None:
    """Reserve ADDRESS of NETWORK under NAME and print it; without ADDRESS a free one is chosen."""
    click.echo(safe((await client.create_reservation(network, name, address))["address"]))


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ADDRESS...")
@connected
async def release(client: Client, network: str, names: Sequence[str]) -> None:
    """Give reserved addresses of NETWORK back, by name or address. They cool down before anybody gets them."""
    failures = Failures(current())
    for name in names:
        try:
            await client.delete_reservation(network, name)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
