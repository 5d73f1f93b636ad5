"""`kvnet network update`, `peer` and `unpeer`: what changes about networks that live.

Asks the API for what was given and nothing else. Where the list of subnets changes, it is read first and changed only
in the version that was read, so that nobody's subnet is lost; if somebody was faster, it is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from cli import converging, output, planned, suggest
from cli.each import each
from cli.regroup import Regrouping, regrouped
from cli.safe import safe
from cli.session import connected, current
from cli.values import CHANGE, NAMED_ADDRESS, mapping
from kvnet.errors import PreconditionFailed
from kvnet.wire import Network, NetworkPatchBody

if TYPE_CHECKING:
    from kvnet.client import Client

ATTEMPTS = 5
SWITCHES = ("icc", "masquerade", "flood")
NONE = "none"
FORMS = ("name", "json", "yaml")
AUTO = "auto"


class MtuType(click.ParamType[int | str]):
    """Bytes, or what fits the hosts' links."""

    name = "mtu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text == AUTO:
            return AUTO
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.fail(f"{text!r} is neither a number of bytes nor 'auto'", param, ctx)
        return int(text)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "BYTES|auto"


@click.command()
@click.argument("name", shell_complete=suggest.networks)
@click.option("--label", "labels", multiple=True, type=CHANGE, help="Set a label, or take it away: --label old-")
@click.option("--mtu", type=MtuType(), help="Of the interfaces; auto: what fits the hosts' links.")
@click.option("--icc/--no-icc", default=None, help="Whether endpoints can reach each other.")
@click.option("--masquerade/--no-masquerade", default=None, help="Leave with the host's address.")
@click.option("--flood/--no-flood", default=None, help="Flood broadcasts and unknown frames (overlay).")
@click.option("--host-binding", metavar="ADDRESS|none", help="Where ports are published later that do not say so.")
@click.option("--interface-prefix", metavar="PREFIX|none", help="Of interfaces that are attached later.")
@click.option("-o", "--opt", "options", multiple=True, type=CHANGE, help="An option; Docker's names are understood.")
@click.option("--add-subnet", "add", multiple=True, metavar="CIDR", help="Another block for the network.")
@click.option("--add-subnet-from", "add_from", multiple=True, metavar="POOL", shell_complete=suggest.pools,
              help="Another block, cut from this pool.")  # fmt: skip
@click.option("--grow-subnet", "grow", multiple=True, metavar="CIDR", help="The new, larger block around one it has.")
@click.option("--remove-subnet", "remove", multiple=True, metavar="CIDR", shell_complete=suggest.subnets,
              help="A block that nothing has an address of.")  # fmt: skip
@click.option("--ip-range", "ranges", multiple=True, metavar="CIDR",
              help="Choose addresses from this part of a subnet; the subnet itself: from all of it.")  # fmt: skip
@click.option(
    "--reserve", "--aux-address", "reserve", multiple=True, type=NAMED_ADDRESS, help="Never hand this address out."
)
@click.option("--unreserve", multiple=True, metavar="NAME", help="Free an address that is reserved under this name.")
@click.option("--force", is_flag=True, help="Accept new blocks that overlap what a host uses.")
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@click.option("--output", type=click.Choice(FORMS), help="Print the name, or the network. [name]")
@converging.wait_option
@planned.dry_run_option
@connected
async def update(client: Client, /, name: str, **given: Any) -> None:
    """Change the living network NAME; its endpoints keep running, with their addresses.

    What cannot change while it lives is refused with the reason, and nothing is changed then.

    \b
    kvnet network update my-net --label team=red --label old- --mtu 1400
    kvnet network update my-net --grow-subnet 10.1.0.0/23 --reserve printer=10.1.1.9
    kvnet network update my-net --no-icc --add-subnet fd00:1::/64
    """
    form = current().choose(given["output"], FORMS)
    patch, regrouping = patch_of(given), _regrouping(given)
    if not patch and not regrouping:
        raise click.UsageError("nothing is to change: name what is to be different, like --mtu 1400 or --label a=b")
    if given["force"]:
        patch["force"] = True
    if given["dry_run"]:
        if regrouping:
            patch = {**patch, "subnets": regrouped(await client.get_network(name), regrouping)}
        planned.show(
            [await client.plan_update(name, patch, version=given["version"])],
            does=f"change network {name}: {', '.join(patch)}",
        )
        return
    made = await _changed(client, name, patch, regrouping, given["version"], given["wait_s"])
    converging.told(made, given["wait_s"])
    if output.as_data(current()):
        output.show_data(made, form)
    else:
        click.echo(safe(made["name"]))


def patch_of(given: dict[str, Any]) -> NetworkPatchBody:
    """What was given on the command line, but for the subnets."""
    patch: dict[str, Any] = {member: given[member] for member in SWITCHES if given[member] is not None}
    if given["mtu"] is not None:
        patch["mtu"] = None if given["mtu"] == AUTO else given["mtu"]
    for member in ("host_binding", "interface_prefix"):
        if given[member] is not None:
            patch[member] = None if given[member] == NONE else given[member]
    for member, option in (("labels", "--label"), ("options", "--opt")):
        if given[member]:
            patch[member] = mapping(given[member], option)
    return cast(NetworkPatchBody, patch)


def _regrouping(given: dict[str, Any]) -> Regrouping:
    lists = {member: given[member] for member in ("add", "add_from", "grow", "remove", "ranges", "unreserve")}
    return Regrouping(**lists, reserve=mapping(given["reserve"], "--reserve"))


async def _changed(
    client: Client, name: str, patch: NetworkPatchBody, regrouping: Regrouping, version: int | None, wait_s: float
) -> Network:
    if not regrouping:
        return await client.update_network(name, patch, version=version, wait_s=wait_s)
    attempt = 0
    while True:
        attempt += 1
        network = await client.get_network(name)
        whole: NetworkPatchBody = {**patch, "subnets": regrouped(network, regrouping)}
        try:
            return await client.update_network(
                network["id"], whole, version=network["version"] if version is None else version, wait_s=wait_s
            )
        except PreconditionFailed:
            if version is not None or attempt >= ATTEMPTS:
                raise


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("peers", nargs=-1, required=True, metavar="PEER...", shell_complete=suggest.networks)
@converging.wait_option
@planned.dry_run_option
@connected
async def peer(client: Client, /, network: str, peers: Sequence[str], *, wait_s: float, dry_run: bool) -> None:
    """Let NETWORK and each PEER talk to each other, in both directions."""

    async def peer_with(other: str) -> None:
        converging.told(await client.peer_networks(network, other, wait_s=wait_s), wait_s)

    await each(
        peers,
        peer_with,
        plan=(lambda other: client.plan_peering(network, other)) if dry_run else None,
        does=lambda other: f"let {network} and {other} talk",
    )


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("peers", nargs=-1, required=True, metavar="PEER...", shell_complete=suggest.networks)
@converging.wait_option
@planned.dry_run_option
@connected
async def unpeer(client: Client, /, network: str, peers: Sequence[str], *, wait_s: float, dry_run: bool) -> None:
    """Keep NETWORK and each PEER apart again; no error if they are."""

    async def unpeer_with(other: str) -> None:
        converging.told(await client.unpeer_networks(network, other, wait_s=wait_s), wait_s)

    await each(
        peers,
        unpeer_with,
        plan=(lambda other: client.plan_unpeering(network, other)) if dry_run else None,
        does=lambda other: f"keep {network} and {other} apart",
    )
