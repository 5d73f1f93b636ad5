"""`kvnet endpoint create` and `update`: options into the requests that the API takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from cli import converging, output, planned, suggest
from cli.safe import safe
from cli.session import connected, current
from cli.values import CHANGE, LABEL, mapping
from kvnet.publish import parse_publish
from kvnet.wire import EndpointBody, EndpointPatchBody

if TYPE_CHECKING:
    from kvnet.client import Client

NONE = "none"
FORMS = ("id", "json", "yaml")


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.option("--host", required=True, metavar="HOST", shell_complete=suggest.hosts, help="Where the workload is.")
@click.option("--name", required=True, metavar="NAME", help="The workload's name on this network.")
@click.option("--ip", "--address", "address", default="", metavar="ADDRESS", help="This IPv4 address.")
@click.option("--ip6", "--address6", "address6", default="", metavar="ADDRESS", help="This IPv6 address.")
@click.option("--mac", default="", metavar="MAC", help="This MAC address; default: a random one.")
@click.option("--hostname", default="", metavar="NAME", help="The workload's host name.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name on this network.")
@click.option("--label", "labels", multiple=True, type=LABEL, help="Metadata of yours.")
@click.option(
    "--publish",
    "-p",
    "published",
    multiple=True,
    metavar="[[ADDR:]HOST[-END]:]PORT[-END][/udp]",
    help="Lead a port of the host to one of the workload's; without HOST a free one is chosen.",
)
@click.option(
    "--gateway-priority", type=int, default=0, metavar="N", help="Of a workload's networks the highest is its way out."
)
@click.option("--id", "id_", default="", metavar="ID", help="The same id and content again is the same endpoint.")
@click.option("--reuse", is_flag=True, help="Take the address that is asked for even while it cools down.")
@converging.wait_option
@click.option("--output", type=click.Choice(FORMS), help="Print the id, or the whole endpoint. [id]")
@planned.dry_run_option
@connected
async def create(client: Client, /, network: str, **given: Any) -> None:
    """Create an endpoint of NETWORK on a host and print its id.

    It holds its addresses and ports; the interface is what `kvnet attach` on that host makes.

    \b
    kvnet endpoint create my-net --host h1 --name web --publish 8080:80
    kvnet endpoint create my-net --host h1 --name db --address 10.1.0.7 --alias mysql
    """
    form = current().choose(given["output"], FORMS)
    if given["dry_run"]:
        planned.show([await client.plan_endpoint(network, body_of(given))], does=f"create endpoint {given['name']}")
        return
    made = await client.create_endpoint(network, body_of(given), wait_s=given["wait_s"])
    converging.told(made, given["wait_s"])
    if output.as_data(current()):
        output.show_data(made, form)
    else:
        click.echo(safe(made["id"]))


def body_of(given: Mapping[str, Any]) -> EndpointBody:
    """The request for what was given on the command line."""
    plain = {"address": given["address"], "address6": given["address6"], "mac": given["mac"], "id": given["id_"]}
    plain |= {"hostname": given["hostname"], "gateway_priority": given["gateway_priority"]}
    body = cast(EndpointBody, {member: value for member, value in plain.items() if value})
    body |= EndpointBody(host=given["host"], name=given["name"])
    if given["aliases"]:
        body["aliases"] = list(given["aliases"])
    if given["labels"]:
        body["labels"] = mapping(given["labels"], "--label")
    if given["published"]:
        body["ports"] = [parse_publish(text) for text in given["published"]]
    if given["reuse"]:
        body["reuse"] = True
    return body


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("endpoint", metavar="ENDPOINT", shell_complete=suggest.endpoints)
@click.option("--name", metavar="NAME", help="Its name on this network.")
@click.option("--hostname", metavar="NAME|none", help="The workload's host name.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME|none", help="Another name; all that it is to have.")
@click.option("--label", "labels", multiple=True, type=CHANGE, help="Set a label, or take it away: --label old-")
@click.option(
    "--publish",
    "-p",
    "published",
    multiple=True,
    metavar="[[ADDR:]HOST[-END]:]PORT[-END][/udp]|none",
    help="A port of the host that leads to one of the workload's; all that it is to publish.",
)
@click.option("--ip", "--address", "address", metavar="ADDRESS", help="Another IPv4 address.")
@click.option("--ip6", "--address6", "address6", metavar="ADDRESS", help="Another IPv6 address.")
@click.option("--reuse", is_flag=True, help="Take the address that is asked for even while it cools down.")
@click.option("--gateway-priority", type=int, metavar="N", help="Of its networks; when it is attached again.")
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@click.option("--output", type=click.Choice(FORMS), help="Print the id, or the whole endpoint. [id]")
@converging.wait_option
@planned.dry_run_option
@connected
async def update(client: Client, /, network: str, endpoint: str, **given: Any) -> None:
    """Change ENDPOINT of NETWORK, by name or id, while it lives; what is not named stays as it is.

    Its host publishes what it is to publish, and no more, at once. Its addresses are for an endpoint that has no
    interface yet: that of a workload which runs keeps what it got.

    \b
    kvnet endpoint update my-net web --name www --alias web --label team=red
    kvnet endpoint update my-net web --publish 8080:80
    kvnet endpoint update my-net web --publish none
    """
    form = current().choose(given["output"], FORMS)
    patch = patch_of(given)
    if not patch:
        raise click.UsageError("nothing is to change: name what is to be different, like --name web or --publish 80")
    if given["reuse"]:
        patch["reuse"] = True
    if given["dry_run"]:
        plan = await client.plan_endpoint_update(network, endpoint, patch, version=given["version"])
        planned.show([plan], does=f"change endpoint {endpoint}: {', '.join(patch)}")
        return
    made = await client.update_endpoint(network, endpoint, patch, version=given["version"], wait_s=given["wait_s"])
    converging.told(made, given["wait_s"])
    if output.as_data(current()):
        output.show_data(made, form)
    else:
        click.echo(safe(made["id"]))


def patch_of(given: Mapping[str, Any]) -> EndpointPatchBody:
    """What was given on the command line; `none` empties a list or a name."""
    plain = {member: given[member] for member in ("name", "address", "address6", "gateway_priority")}
    patch = cast(EndpointPatchBody, {member: value for member, value in plain.items() if value is not None})
    if given["hostname"] is not None:
        patch["hostname"] = None if given["hostname"] == NONE else given["hostname"]
    if given["aliases"]:
        patch["aliases"] = _list_of(given["aliases"], "--alias")
    if given["labels"]:
        patch["labels"] = mapping(given["labels"], "--label")
    if given["published"]:
        patch["ports"] = [parse_publish(text) for text in _list_of(given["published"], "--publish")]
    return patch


def _list_of(given: Sequence[str], option: str) -> list[str]:
    if NONE not in given:
        return list(given)
    if len(given) > 1:
        raise click.UsageError(f"{option} none says that there are none: give nothing else with it")
    return []
