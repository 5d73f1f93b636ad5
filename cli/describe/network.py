"""`kvnet network describe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import suggest
from cli.convergence import HOSTS
from cli.describe.page import EVENTS, Page, blocked, listed, show, since, together, whether
from cli.endpoint import ENDPOINTS
from cli.ipam import RESERVATIONS
from cli.listing import Column
from cli.session import connected, output_option
from cli.words import natural, pairs, share, use_of
from kvnet.wire import Network

if TYPE_CHECKING:
    from kvnet.client import Client

SUBNETS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("SUBNET", lambda s: s["cidr"]),
    Column("GATEWAY", lambda s: s["gateway"] or ""),
    Column("CHOSEN FROM", lambda s: s["range"] or "", if_any=True),
    Column("USED/SIZE (%)", lambda s: share(s["used"], s["size"])),
)
# Shown when they are set, each under its own name.
SETTINGS = ("uplink", "uplink_mode", "bridge_name", "interface_prefix", "host_binding", "block_prefix_length",
            "block_prefix_length6", "cross_segment")  # fmt: skip


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=suggest.networks)
@output_option
@connected
async def describe(client: Client, names: Sequence[str]) -> None:
    """A page about each NETWORK: facts, conditions, what is on it, how far its hosts are, what happened to it."""
    await show(names, lambda name: _page(client, name))


async def _page(client: Client, name: str) -> Page:
    network = await client.get_network(name)
    id_ = network["id"]
    endpoints, reservations, convergence, journal, block = await together(
        listed(client.endpoints(network=id_)),
        listed(client.reservations(id_)),
        client.network_convergence(id_),
        client.journal(network=id_, limit=EVENTS),
        blocked(client.plan_network_deletion(id_)),
    )
    data = {"network": network, "endpoints": endpoints, "reservations": reservations, "convergence": convergence}
    page = Page(
        f"Network {network['name']}",
        list(_facts(network)),
        {**data, "events": journal["items"], "blocks_deletion": block or None},
    )
    page.conditions(network["status"])
    page.table("Subnets", network["subnets"], SUBNETS)
    page.table("Reservations", reservations, RESERVATIONS)
    ordered = sorted(endpoints, key=lambda e: natural(e["address"] or e["address6"] or ""))
    page.table(f"Endpoints ({len(endpoints)})", ordered, ENDPOINTS.columns)
    page.table("Hosts", convergence["hosts"], HOSTS)
    page.changes(journal)
    page.text("In the way of its removal", *block.splitlines())
    return page


def _facts(network: Network) -> list[tuple[str, object]]:
    features = [word for word in ("internal", "flood", "shim") if network[word]]
    closed = ["no icc"] * (not network["icc"]) + ["no masquerade"] * (not network["masquerade"])
    facts: list[tuple[str, object]] = [
        ("Id", network["id"]),
        ("Driver", network["driver"]),
        ("State", network["state"]),
        ("Created", since(network["created_at"])),
        ("Version", network["version"]),
        ("Used", share(*use_of(network["subnets"]))),
        ("VNI", network["vni"]),
        ("MTU", network["mtu"] or "what fits the hosts' links"),
        ("IPv6", whether(network["ipv6"])),
        ("Features", ", ".join([*features, *closed])),
        ("Peers", ", ".join(peer["name"] for peer in network["peers"])),
        ("Labels", pairs(network["labels"])),
        ("Options", pairs(network["options"])),
    ]
    facts += [(member.replace("_", " ").capitalize(), network.get(member)) for member in SETTINGS]
    return [(title, value) for title, value in facts if value not in (None, "", False)]
