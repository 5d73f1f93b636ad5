"""`kvnet network update`, `peer` and `unpeer`: what changes on a living network.

Sends a patch of what was given and nothing else. Subnets are told as a whole, so for those the network is read first
and the patch is for exactly that version: who was faster in between is not overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import click

from cli import output, suggest
from cli.safe import safe
from cli.session import connected, current
from cli.values import LABEL, NAMED_ADDRESS, OPTION, PairType, mapping
from kvnet.errors import Invalid
from kvnet.wire import Network, NetworkPatchBody, Subnet, SubnetPatchBody

if TYPE_CHECKING:
    from kvnet.client import Client

GROWTH = PairType("OLD=NEW", needs_value=True)
PLAIN = ("icc", "masquerade", "flood")
EMPTY_IS_DEFAULT = ("mtu", "interface_prefix", "host_binding")
OF_SUBNETS = ("added", "pools", "grown", "removed", "ranges", "reserved", "unreserved")


@click.command()
@click.argument("name", shell_complete=suggest.networks)
@click.option("--label", "labels", multiple=True, type=LABEL, help="Set a label; KEY= takes it away.")
@click.option("-o", "--opt", "options", multiple=True, type=OPTION, help="Set an option; KEY= takes it away.")
@click.option("--mtu", type=int, help="Of the interfaces; 0: what fits the hosts' links.")
@click.option("--icc/--no-icc", default=None, help="Whether its endpoints can reach each other.")
@click.option("--masquerade/--no-masquerade", default=None, help="Whether traffic leaves with its host's address.")
@click.option("--flood/--no-flood", default=None, help="Flood broadcasts and unknown frames to all its hosts.")
@click.option("--interface-prefix", help="Of interfaces that are attached later; empty: eth.")
@click.option("--host-binding", metavar="ADDRESS", help="Where later endpoints publish; empty: everywhere.")
@click.option("--add-subnet", "added", multiple=True, metavar="CIDR", help="One more subnet.")
@click.option("--add-subnet-from", "pools", multiple=True, metavar="POOL", help="One more subnet, cut from this pool.")
@click.option("--grow-subnet", "grown", multiple=True, type=GROWTH, help="Make a subnet larger: NEW contains OLD.")
@click.option("--remove-subnet", "removed", multiple=True, metavar="CIDR", help="One that no endpoint is in.")
@click.option(
    "--ip-range", "ranges", multiple=True, metavar="CIDR", help="Choose addresses from this part of a subnet."
)
@click.option("--aux-address", "reserved", multiple=True, type=NAMED_ADDRESS, help="Never hand this address out.")
@click.option("--rm-aux-address", "unreserved", multiple=True, metavar="NAME", help="It may be handed out again.")
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@click.option("--force", is_flag=True, help="Accept subnets that overlap what a host uses.")
@click.option(
    "--output", type=click.Choice(["id", "json", "yaml"]), default="id", help="Print the id, or the whole network."
)
@connected
async def update(client: Client, /, name: str, **given: Any) -> None:
    """Change the network NAME while it lives; endpoints keep their addresses. What cannot change says why.

    \b
    kvnet network update my-net --mtu 1400 --label team=red --label old=
    kvnet network update my-net --grow-subnet 10.1.0.0/24=10.1.0.0/23
    """
    current().output = given["output"]
    body, version = patch_of(given), given["version"]
    if any(given[one] for one in OF_SUBNETS):
        found = await client.get_network(name)
        body["subnets"] = subnets_of(found, given)
        version = found["version"] if version is None else version
    if not body:
        raise Invalid("nothing is to change", fix="'kvnet network update --help' shows what can")
    if given["force"]:
        body["force"] = True
    made = await client.update_network(name, body, version=version)
    if output.as_data(current()):
        output.show_data(made, given["output"])
    else:
        click.echo(made["id"])


def patch_of(given: dict[str, Any]) -> NetworkPatchBody:
    """The patch for what was given, without subnets."""
    body: NetworkPatchBody = {}
    for member, option in (("labels", "--label"), ("options", "--opt")):
        if given[member]:
            pairs = mapping(given[member], option)
            body[member] = {key: value or None for key, value in pairs.items()}  # type: ignore[literal-required]
    plain = {member: given[member] for member in PLAIN if given[member] is not None}
    emptied = {member: given[member] or None for member in EMPTY_IS_DEFAULT if given[member] is not None}
    body.update(plain | emptied)  # type: ignore[typeddict-item]
    return body


def subnets_of(network: Network, given: dict[str, Any]) -> list[SubnetPatchBody]:
    """All subnets that the network is to have."""
    growing, removed = mapping(given["grown"], "--grow-subnet"), set(given["removed"])
    _require_known(network["subnets"], [*growing, *removed])
    subnets = [_kept(s, growing.get(s["cidr"], s["cidr"])) for s in network["subnets"] if s["cidr"] not in removed]
    subnets += [{"cidr": cidr} for cidr in given["added"]]
    for part in given["ranges"]:
        _home(part, subnets, "--ip-range")["range"] = part
    for name, address in mapping(given["reserved"], "--aux-address").items():
        home = _home(address, subnets, "--aux-address")
        home["reserved"] = {**home.get("reserved", {}), name: address}
    for name in given["unreserved"]:
        homes = [s for s in subnets if name in s.get("reserved", {})]
        if not homes:
            raise Invalid(f"--rm-aux-address {name}: the network has no such reservation of its own")
        homes[0]["reserved"] = {n: a for n, a in homes[0]["reserved"].items() if n != name}
    from_pools: list[SubnetPatchBody] = [{"pool": pool} for pool in given["pools"]]
    return [*subnets, *from_pools]


def _kept(subnet: Subnet, cidr: str) -> SubnetPatchBody:
    return {"cidr": cidr, "reserved": subnet["reserved"]}


def _require_known(subnets: Sequence[Subnet], named: Sequence[str]) -> None:
    known = [s["cidr"] for s in subnets]
    for one in named:
        if one not in known:
            raise Invalid(f"the network has no subnet {one}", fix=f"it has {', '.join(known)}")


def _home(part: str, subnets: Sequence[SubnetPatchBody], option: str) -> SubnetPatchBody:
    try:
        first = ip_network(part).network_address if "/" in part else ip_address(part)
        blocks = [(ip_network(s["cidr"]), s) for s in subnets]
    except ValueError as error:
        raise Invalid(f"{option} {part}: {error}", fix="like 10.1.0.0/25, or printer=10.1.0.9") from None
    for block, subnet in blocks:
        if block.version == first.version and first in block:
            return subnet
    raise Invalid(f"{option} {part} lies in no subnet of the network", fix="add the subnet first")


@click.command()
@click.argument("name", metavar="NETWORK", shell_complete=suggest.networks)
@click.argument("other", metavar="NETWORK", shell_complete=suggest.networks)
@connected
async def peer(client: Client, name: str, other: str) -> None:
    """Let two networks talk to each other, in both directions."""
    await client.peer_networks(name, other)
    click.echo(f"{safe(name)} {safe(other)}")


@click.command()
@click.argument("name", metavar="NETWORK", shell_complete=suggest.networks)
@click.argument("other", metavar="NETWORK", shell_complete=suggest.networks)
@connected
async def unpeer(client: Client, name: str, other: str) -> None:
    """Keep two networks apart again."""
    await client.unpeer_networks(name, other)
    click.echo(f"{safe(name)} {safe(other)}")
