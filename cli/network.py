"""`kvnet network`: Docker's verbs and flags, for networks of the whole cluster.

Asks the API for what was given and nothing else: defaults are the controller's. `connect` and `disconnect` are
`attach` and `detach` under the names that Docker's users know.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from cli import output, planned, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.output import Column, Listing, ListOptions
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.subnets import SubnetOptions, arranged
from cli.values import LABEL, NAMED_ADDRESS, OPTION, mapping
from cli.words import few, pairs, problems, share, use_of
from kvnet.errors import Invalid, KvnetError
from kvnet.wire import Endpoint, Network, NetworkBody

if TYPE_CHECKING:
    from kvnet.client import Client

NETWORKS: Listing[Network] = Listing(
    columns=(
        Column("NAME", lambda n: n["name"]),
        Column("SUBNET", lambda n: ",".join(s["cidr"] for s in n["subnets"])),
        Column("USED/SIZE (%)", lambda n: share(*use_of(n["subnets"])), key=lambda n: use_of(n["subnets"])[0]),
        Column("ENDPOINTS", lambda n: str(n["endpoints"]), key=lambda n: n["endpoints"], right=True),
        Column("HOSTS", lambda n: few(n["hosts"]), key=lambda n: len(n["hosts"])),
        Column("DRIVER", lambda n: n["driver"]),
        Column("AGE", lambda n: n["created_at"], is_age=True),
        Column("STATE", lambda n: "" if n["state"] == "active" else n["state"], if_any=True),
        Column("PROBLEMS", lambda n: few([f"{c['host']}:{c['reason']}" for c in problems(n["status"])]), if_any=True),
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
        "driver": output.one_of(lambda n: [n["driver"]]),
        "name": output.containing(lambda n: n["name"]),
        "label": output.labelled(lambda n: n["labels"]),
        "id": output.starting(lambda n: n["id"]),
        "host": output.one_of(lambda n: n["hosts"]),
    },
)

PLAIN_MEMBERS = (
    "driver",
    "pool",
    "pool6",
    "prefix_length",
    "ipv6",
    "mtu",
    "icc",
    "masquerade",
    "bridge_name",
    "interface_prefix",
    "host_binding",
    "uplink",
    "uplink_mode",
    "block_prefix_length",
    "block_prefix_length6",
    "cross_segment",
)
FLAGS = ("internal", "flood", "force", "shim")


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.network:create", "Create a network; without --subnet a free one is chosen."),
        "ls": ("cli.network:ls", "List networks."),
        "inspect": ("cli.network:inspect", "Everything about networks, as JSON."),
        "update": ("cli.change:update", "Change a living network; its endpoints keep running."),
        "peer": ("cli.change:peer", "Let networks talk to each other."),
        "unpeer": ("cli.change:unpeer", "Keep them apart again."),
        "rm": ("cli.network:rm", "Remove networks without endpoints."),
        "prune": ("cli.network:prune", "Remove all networks without endpoints."),
        "connect": ("cli.attach:connect", "Give a network namespace of this host an interface on a network."),
        "disconnect": ("cli.attach:disconnect", "Take that interface away."),
    },
)
def network() -> None:
    """Create, list, inspect, change and remove networks."""


@click.command()
@click.argument("name")
@click.option("-d", "--driver", help="overlay (the default), bridge, routed or transparent.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Repeat it for IPv6 or several blocks.")
@click.option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="Of the subnet that contains it.")
@click.option(
    "--ip-range", "ranges", multiple=True, metavar="CIDR", help="Choose addresses from this part of a subnet."
)
@click.option("--aux-address", "reserved", multiple=True, type=NAMED_ADDRESS, help="Never hand this address out.")
@click.option("--pool", help="Cut the automatic IPv4 subnet from this pool.")
@click.option("--pool6", help="Cut the automatic IPv6 subnet from this pool.")
@click.option("--prefix-length", type=int, help="Size of the automatic IPv4 subnet.")
@click.option("--ipv6/--no-ipv6", default=None, help="Default: both families, or those of the given subnets.")
@click.option("--internal", is_flag=True, help="No way out of the network.")
@click.option("--mtu", type=int, help="Of the interfaces; default: what fits the hosts' links.")
@click.option("--flood", is_flag=True, help="Flood broadcasts and unknown frames to all hosts of the network.")
@click.option("--icc/--no-icc", default=None, help="Whether endpoints can reach each other; default: yes.")
@click.option("--masquerade/--no-masquerade", default=None, help="Leave with the host's address; default: yes.")
@click.option("--bridge-name", metavar="NAME", help="Of the Linux bridge on every host.")
@click.option("--interface-prefix", metavar="PREFIX", help="Of interfaces in workloads; default: eth.")
@click.option("--host-binding", metavar="ADDRESS", help="Where ports are published that do not say so.")
@click.option("--uplink", metavar="LINK", help="transparent: the host's link that the network is on.")
@click.option("--uplink-mode", help="transparent: macvlan (the default) or bridge.")
@click.option("--shim", is_flag=True, help="transparent: give the host a way to its endpoints.")
@click.option("--block-prefix-length", type=int, help="routed: size of a host's IPv4 blocks; default: 26.")
@click.option("--block-prefix-length6", type=int, help="routed: size of its IPv6 blocks; default: 122.")
@click.option("--cross-segment", help="routed: refuse hosts behind a router (the default), or tunnel to them.")
@click.option("--label", "labels", multiple=True, type=LABEL, help="Metadata of yours.")
@click.option("-o", "--opt", "options", multiple=True, type=OPTION, help="An option; Docker's names are understood.")
@click.option("--force", is_flag=True, help="Accept subnets that overlap what a host uses; the reason is recorded.")
@click.option("--attachable", is_flag=True, hidden=True, help="As every network here; known for Docker's sake.")
@click.option(
    "--output", type=click.Choice(["id", "json", "yaml"]), default="id", help="Print the id, or the whole network."
)
@planned.dry_run_option
@connected
async def create(client: Client, /, name: str, **given: Any) -> None:
    """Create the network NAME and print its id.

    \b
    kvnet network create my-net
    kvnet network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 --aux-address printer=10.1.0.9 my-net
    kvnet network create -d routed --subnet 10.4.0.0/16 --block-prefix-length 24 plain
    kvnet network create -d transparent --uplink eth1 --subnet 192.168.7.0/24 --gateway 192.168.7.1 lan
    """
    current().output = given["output"]
    if given["dry_run"]:
        planned.show([await client.plan_network(body_of(name, given))])
        return
    made = await client.create_network(body_of(name, given))
    if output.as_data(current()):
        output.show_data(made, given["output"])
    else:
        click.echo(made["id"])


def body_of(name: str, given: dict[str, Any]) -> NetworkBody:
    """The request for what was given on the command line."""
    body: NetworkBody = {"name": name}
    asked = SubnetOptions(
        given["subnets"], given["gateways"], given["ranges"], mapping(given["reserved"], "--aux-address")
    )
    subnets = arranged(asked)
    if subnets:
        body["subnets"] = subnets
    plain = {member: given[member] for member in PLAIN_MEMBERS if given[member] is not None}
    flags = {member: True for member in FLAGS if given[member]}
    body |= cast(NetworkBody, plain | flags)
    if given["options"]:
        body["options"] = mapping(given["options"], "--opt")
    if given["labels"]:
        body["labels"] = mapping(given["labels"], "--label")
    return body


@click.command()
@output.list_options(NETWORKS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List networks. USED/SIZE counts IPv4 addresses, or IPv6 ones where there are no others."""
    found = [n async for n in client.networks(label=options.sole("label"), driver=options.sole("driver"))]
    output.show_list(found, NETWORKS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=suggest.networks)
@output_option
@connected
async def inspect(client: Client, names: Sequence[str]) -> None:
    """Everything about networks, by name or id, with their endpoints: a JSON array."""
    session = current()
    failures, found = Failures(session), []
    for name in names:
        try:
            one = await client.get_network(name)
            attached = [_attached(e) async for e in client.endpoints(network=one["id"])]
        except KvnetError as error:
            failures.add(error)
        else:
            found.append({**one, "attached": attached})
    output.show_data(found, session.output)
    failures.exit_if_any()


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
@planned.dry_run_option
@connected
async def rm(client: Client, names: Sequence[str], *, version: int | None, force: bool, dry_run: bool) -> None:
    """Remove networks, by name or id. One with endpoints is not removed: the error names them."""
    failures = Failures(current())
    for name in names:
        try:
            if dry_run:
                planned.show([await client.plan_network_deletion(name, version=version)])
                continue
            await client.delete_network(name, version=version)
        except KvnetError as error:
            if not (force and error.status == 404):
                failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@connected
async def prune(client: Client, *, force: bool, dry_run: bool) -> None:
    """Remove all networks without endpoints and print their names."""
    unused = (await client.prune_networks(dry_run=True))["deleted"]
    if not dry_run and unused:
        if not force:
            confirm(f"Remove {len(unused)} networks: {', '.join(safe(n['name']) for n in unused)}?")
        unused = (await client.prune_networks())["deleted"]
    for one in unused:
        click.echo(safe(one["name"]))
    if not unused:
        click.echo("Every network has endpoints: nothing to remove.", err=True)


def confirm(question: str) -> None:
    """Ask on a terminal; where nobody can answer, refuse."""
    if not sys.stdin.isatty():
        raise Invalid(
            "nobody is there to confirm it", fix="repeat with --force, or with --dry-run to see what would go"
        )
    click.confirm(question, abort=True, err=True)
