"""`kvnet endpoint`: what is attached where, with which addresses and ports, and whether every host knows it yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from cli import output, planned, suggest
from cli.failures import Failures
from cli.lazy import LazyGroup
from cli.output import Column, Listing, ListOptions
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.values import CHANGE, LABEL, mapping
from cli.words import few, natural, pairs
from kvnet.errors import KvnetError
from kvnet.publish import parse_publish, shown
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody

if TYPE_CHECKING:
    from kvnet.client import Client

NONE = "none"

ENDPOINTS: Listing[Endpoint] = Listing(
    columns=(
        Column("NETWORK", lambda e: e["network_name"]),
        Column("NAME", lambda e: e["name"]),
        Column("ADDRESS", lambda e: e["address"] or "", key=lambda e: natural(e["address"] or "")),
        Column("ADDRESS6", lambda e: e["address6"] or ""),
        Column("HOST", lambda e: e["host"]),
        Column("PORTS", lambda e: few([shown(port) for port in e["ports"]]), if_any=True),
        Column("AGE", lambda e: e["created_at"], is_age=True),
        Column("WAITING FOR", lambda e: few(e["applied"]["waiting_for"]), if_any=True),
        Column("ID", lambda e: e["id"], wide=True),
        Column("MAC", lambda e: e["mac"], wide=True),
        Column("ALIASES", lambda e: ",".join(e["aliases"]), wide=True, long=True),
        Column("LABELS", lambda e: pairs(e["labels"]), wide=True, long=True),
        Column("VERSION", lambda e: str(e["version"]), key=lambda e: e["version"], wide=True),
    ),
    name=lambda e: f"{e['network_name']}/{e['name']}",
    identity=lambda e: e["id"],
    filters={
        "network": output.one_of(lambda e: [e["network_name"], e["network"]]),
        "host": output.one_of(lambda e: [e["host"]]),
        "name": output.containing(lambda e: e["name"]),
        "address": output.one_of(lambda e: [e["address"], e["address6"]]),
        "label": output.labelled(lambda e: e["labels"]),
        "id": output.starting(lambda e: e["id"]),
    },
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.endpoint:create", "Claim addresses and ports for a workload on a host, without an interface."),
        "update": ("cli.endpoint:update", "Change what a living endpoint is called, or what it publishes."),
        "ls": ("cli.endpoint:ls", "List endpoints, of one network or of all."),
        "inspect": ("cli.endpoint:inspect", "Everything about endpoints, as JSON."),
        "rm": ("cli.endpoint:rm", "Remove endpoints, and with them their interfaces."),
    },
)
def endpoint() -> None:
    """Create, change, list, inspect and remove endpoints: the interfaces of workloads on networks."""


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
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 30),
    default=0.0,
    metavar="SECONDS",
    help="Wait until all hosts know it.",
)
@click.option(
    "--output", type=click.Choice(["id", "json", "yaml"]), default="id", help="Print the id, or the whole endpoint."
)
@planned.dry_run_option
@connected
async def create(client: Client, /, network: str, **given: Any) -> None:
    """Create an endpoint of NETWORK on a host and print its id.

    It holds its addresses and ports; the interface is what `kvnet attach` on that host makes.

    \b
    kvnet endpoint create my-net --host h1 --name web --publish 8080:80
    kvnet endpoint create my-net --host h1 --name db --address 10.1.0.7 --alias mysql
    """
    current().output = given["output"]
    if given["dry_run"]:
        planned.show([await client.plan_endpoint(network, body_of(given))])
        return
    made = await client.create_endpoint(network, body_of(given), wait_s=given["wait_s"])
    if output.as_data(current()):
        output.show_data(made, given["output"])
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
@click.argument("endpoint", metavar="ENDPOINT")
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
@click.option(
    "--output", type=click.Choice(["id", "json", "yaml"]), default="id", help="Print the id, or the whole endpoint."
)
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
    current().output = given["output"]
    patch = patch_of(given)
    if not patch:
        raise click.UsageError("nothing is to change: name what is to be different, like --name web or --publish 80")
    if given["reuse"]:
        patch["reuse"] = True
    if given["dry_run"]:
        planned.show([await client.plan_endpoint_update(network, endpoint, patch, version=given["version"])])
        return
    made = await client.update_endpoint(network, endpoint, patch, version=given["version"])
    if output.as_data(current()):
        output.show_data(made, given["output"])
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


@click.command()
@click.argument("network", required=False, default="", shell_complete=suggest.networks)
@click.option("--network", "also", default="", metavar="NETWORK", help="The same as the argument.")
@output.list_options(ENDPOINTS)
@connected
async def ls(client: Client, network: str, also: str, *, options: ListOptions) -> None:
    """List endpoints, of NETWORK or of all. WAITING FOR names the hosts that do not know an endpoint yet."""
    network = network or also
    host, address = options.sole("host"), options.sole("address")
    found = [e async for e in client.endpoints(network=network, host=host, address=address)]
    output.show_list(found, ENDPOINTS, options)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="ENDPOINT...")
@output_option
@connected
async def inspect(client: Client, network: str, names: Sequence[str]) -> None:
    """Everything about endpoints of NETWORK, by name or id: a JSON array."""
    session = current()
    failures, found = Failures(session), []
    for name in names:
        try:
            found.append(await client.get_endpoint(network, name))
        except KvnetError as error:
            failures.add(error)
    output.show_data(found, session.output)
    failures.exit_if_any()


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("names", nargs=-1, required=True, metavar="ENDPOINT...")
@click.option("--version", type=int, metavar="N", help="Only if it is still this version.")
@planned.dry_run_option
@connected
async def rm(client: Client, network: str, names: Sequence[str], *, version: int | None, dry_run: bool) -> None:
    """Remove endpoints from NETWORK, by name or id: their addresses are released, their hosts remove the interfaces."""
    failures = Failures(current())
    for name in names:
        try:
            if dry_run:
                planned.show([await client.plan_endpoint_deletion(network, name, version=version)])
                continue
            await client.delete_endpoint(network, name, version=version)
        except KvnetError as error:
            failures.add(error)
        else:
            click.echo(safe(name))
    failures.exit_if_any()
