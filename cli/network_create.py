"""`kvnet network create`: Docker's flags, as the request that the API takes.

Asks for what was given and nothing else: defaults are the controller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from cli import converging, output, planned, suggest
from cli.session import connected, current
from cli.subnets import SubnetOptions, arranged
from cli.values import LABEL, NAMED_ADDRESS, OPTION, mapping
from kvnet.wire import NetworkBody

if TYPE_CHECKING:
    from kvnet.client import Client

FORMS = ("id", "json", "yaml")
DRIVERS = ("overlay", "bridge", "routed", "transparent")
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


@click.command()
@click.argument("name")
@click.option(
    "-d",
    "--driver",
    metavar="DRIVER",
    shell_complete=suggest.of(DRIVERS),
    help="overlay (the default), bridge, routed or transparent.",
)
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Repeat it for IPv6 or several blocks.")
@click.option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="Of the subnet that contains it.")
@click.option(
    "--ip-range", "ranges", multiple=True, metavar="CIDR", help="Choose addresses from this part of a subnet."
)
@click.option("--aux-address", "reserved", multiple=True, type=NAMED_ADDRESS, help="Never hand this address out.")
@click.option(
    "--pool", metavar="POOL", shell_complete=suggest.pools, help="Cut the automatic IPv4 subnet from this pool."
)
@click.option(
    "--pool6", metavar="POOL", shell_complete=suggest.pools, help="Cut the automatic IPv6 subnet from this pool."
)
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
@click.option("--output", type=click.Choice(FORMS), help="Print the id, or the whole network. [id]")
@converging.wait_option
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
    form = current().choose(given["output"], FORMS)
    if given["dry_run"]:
        planned.show([await client.plan_network(body_of(name, given))], does=f"create network {name}")
        return
    made = await client.create_network(body_of(name, given), wait_s=given["wait_s"])
    converging.told(made, given["wait_s"])
    if output.as_data(current()):
        output.show_data(made, form)
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
