"""`kvnet attach` and `kvnet detach`: interfaces for network namespaces of this host, through its worker's socket.

`kvnet network connect` and `disconnect` are the same under Docker's names. What happens is the worker's affair: it asks
the controller for the endpoint, makes the interface, and takes everything back if a step fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from cli import output, planned, suggest
from cli.safe import safe
from cli.session import current, output_option, socket_option
from cli.values import LABEL, mapping
from kvnet.errors import Invalid, NamespaceNotFound, NotFound
from kvnet.publish import parse_publish, shown

if TYPE_CHECKING:
    from kvnet.local import WorkerClient
    from kvnet.wire import EndpointBody

Command = TypeVar("Command", bound=Callable[..., Any])

ENDPOINT_OPTIONS = (
    click.option("--ip", "--address", "address", default="", metavar="ADDRESS", help="This IPv4 address."),
    click.option("--ip6", "--address6", "address6", default="", metavar="ADDRESS", help="This IPv6 address."),
    click.option("--reuse", is_flag=True, help="Take the address that is asked for even while it cools down."),
    click.option("--mac", default="", metavar="MAC", help="This MAC address; default: a random one."),
    click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name on this network."),
    click.option("--hostname", default="", metavar="NAME", help="The workload's host name."),
    click.option(
        "--interface",
        default="",
        metavar="NAME",
        help="Name inside the namespace; default: the next ethN, or what the network calls them.",
    ),
    click.option("--label", "labels", multiple=True, type=LABEL, help="Metadata of yours."),
    click.option("--id", default="", metavar="ID", help="The endpoint's id; the same again is the same attachment."),
    click.option(
        "--publish",
        "-p",
        "published",
        multiple=True,
        metavar="[[ADDR:]HOST[-END]:]PORT[-END][/udp]",
        help="Lead a port of this host to one of the workload's; without HOST a free one is chosen.",
    ),
    click.option(
        "--gateway-priority",
        type=int,
        default=0,
        metavar="N",
        help="Of a workload's networks the highest is its way out; of equal ones the first.",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0, 30),
        default=0.0,
        metavar="SECONDS",
        help="Wait until all hosts know it.",
    ),
    click.option(
        "--request-id",
        envvar="KVNET_REQUEST_ID",
        default="",
        metavar="ID",
        help="What logs and journal are to call it. [KVNET_REQUEST_ID]",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print the endpoint's id only."),
    planned.dry_run_option,
)


ENDPOINT_MEMBERS = (
    "address",
    "address6",
    "reuse",
    "mac",
    "aliases",
    "hostname",
    "labels",
    "id",
    "ports",
    "gateway_priority",
)


def endpoint_options(command: Command) -> Command:
    for option in reversed(ENDPOINT_OPTIONS):
        command = option(command)
    return output_option(socket_option(command))


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.option("--netns", required=True, metavar="NAME|PATH", help="As in `ip netns`, or a path like /proc/PID/ns/net.")
@click.option("--name", default="", help="The endpoint's name; default: that of the namespace.")
@endpoint_options
def attach(network: str, netns: str, name: str, **options: Any) -> None:
    """Give a network namespace of this host an interface on NETWORK.

    When it returns, the interface is up and has its addresses and routes.

    \b
    ip netns add red
    kvnet attach my-net --netns red --name c1
    """
    _attach(network, netns, name, options)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("netns")
@click.option("--name", default="", help="The endpoint's name; default: that of the namespace.")
@endpoint_options
def connect(network: str, netns: str, name: str, **options: Any) -> None:
    """Give the network namespace NETNS of this host an interface on NETWORK: as `kvnet attach`."""
    _attach(network, netns, name, options)


def _attach(network: str, netns: str, name: str, options: dict[str, Any]) -> None:
    options["ports"] = [parse_publish(text) for text in options.pop("published")]
    quiet, dry_run = options.pop("quiet"), options.pop("dry_run")
    options["labels"] = mapping(options["labels"], "--label")
    import asyncio

    from kvnet.local import WorkerClient

    session = current()
    worker = WorkerClient(session.socket)
    if dry_run:
        require_namespace(netns)
        asyncio.run(_preview(worker, network, name or PurePath(netns).name, options))
        return
    made = asyncio.run(worker.attach(network, namespace(netns), name or PurePath(netns).name, **options))
    if output.as_data(session):
        output.show_data(made, session.output)
    elif quiet:
        click.echo(safe(made["endpoint"]["id"]))
    else:
        output.show_facts(attached(made))


def require_namespace(netns: str) -> None:
    """As this process sees it; the worker looks for itself when it is really done.

    Raises:
        NamespaceNotFound
    """
    path = namespace(netns) if "/" in netns else f"/run/netns/{netns}"
    try:
        is_one = os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        is_one = False
    if not is_one:
        raise NamespaceNotFound(f"{netns} is not a network namespace", fix="'ip netns' shows those that have a name")


async def _preview(worker: WorkerClient, network: str, name: str, options: Mapping[str, Any]) -> None:
    """What every host would do for such an endpoint. The namespace itself is not looked at."""
    from kvnet.client import Client

    body = {member: options[member] for member in ENDPOINT_MEMBERS if options[member]}
    host = (await worker.status())["host"]
    session = current()
    async with Client(session.controller, token=session.token, trust=session.trust) as client:
        plan = await client.plan_endpoint(network, cast("EndpointBody", {**body, "host": host, "name": name}))
    planned.show([plan], does=f"attach {name}")


def attached(made: Mapping[str, Any]) -> tuple[tuple[str, object], ...]:
    endpoint = made["endpoint"]
    return (
        ("Endpoint", endpoint["id"]),
        ("Name", endpoint["name"]),
        ("Address", endpoint["address"]),
        ("Address6", endpoint["address6"]),
        ("Interface", made["interface"]),
        ("Ports", ", ".join(map(shown, endpoint.get("ports") or []))),
    )


def namespace(given: str) -> str:
    """As the worker can find it: a name as it is, a path from the root, and never "self", which would be the worker."""
    if "/" not in given:
        return given
    return os.path.abspath(given).replace("/proc/self/", f"/proc/{os.getpid()}/", 1)


@click.command()
@click.argument("network", required=False, default="", shell_complete=suggest.networks)
@click.option("--netns", default="", metavar="NAME|PATH", help="The namespace; of all its networks if none is given.")
@click.option("--name", default="", help="The endpoint's name.")
@click.option("--id", default="", metavar="ID", help="The endpoint's id.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be taken away.")
@output_option
@socket_option
def detach(network: str, netns: str, name: str, id: str, dry_run: bool) -> None:
    """Take interfaces away and release their addresses: those on NETWORK that fit all that is given.

    Prints the ids of the endpoints.
    """
    if not (netns or name or id):
        raise Invalid("which endpoint is not said", fix="give --netns, --name or --id")
    _detach(network, netns, name, id, dry_run=dry_run)


@click.command()
@click.argument("network", shell_complete=suggest.networks)
@click.argument("netns")
@click.option("--dry-run", is_flag=True, help="Only tell what would be taken away.")
@output_option
@socket_option
def disconnect(network: str, netns: str, dry_run: bool) -> None:
    """Take the interface on NETWORK away from the network namespace NETNS: as `kvnet detach`."""
    _detach(network, netns, "", "", dry_run=dry_run)


def _detach(network: str, netns: str, name: str, id: str, *, dry_run: bool) -> None:
    import asyncio

    from kvnet.local import WorkerClient

    session = current()
    if dry_run:
        wanted = {"network": network, "name": name, "endpoint": id, "netns": PurePath(netns).name}
        _show_doomed(asyncio.run(WorkerClient(session.socket).status())["attachments"], wanted)
        return
    detached = WorkerClient(session.socket).detach(
        network=network, netns=namespace(netns) if netns else "", name=name, id=id
    )
    answer = asyncio.run(detached)
    if not answer["detached"] and not answer["queued"]:
        raise NotFound("nothing that fits is attached on this host", fix="'kvnet endpoint ls' shows what is")
    if output.as_data(session):
        output.show_data(answer, session.output)
        return
    for endpoint in (*answer["detached"], *answer["queued"]):
        click.echo(safe(endpoint))
    if answer["queued"]:
        click.echo("The controller does not answer: the addresses are released when it does.", err=True)


def _show_doomed(attachments: Sequence[Mapping[str, Any]], wanted: Mapping[str, str]) -> None:
    """Those that fit all that is given, as the worker has them."""
    doomed = [one for one in attachments if all(_fits(one, member, value) for member, value in wanted.items() if value)]
    if not doomed:
        raise NotFound("nothing that fits is attached on this host", fix="'kvnet endpoint ls' shows what is")
    for one in doomed:
        where = f"{one['interface']} in {one['netns']}"
        click.echo(safe(f"would detach {one['name']} ({one['endpoint']}) from {one['network']}: {where}"))
    click.echo("nothing was changed.", err=True)


def _fits(one: Mapping[str, Any], member: str, value: str) -> bool:
    if member == "network":
        return value in (one["network"], one["network_id"])
    if member == "netns":
        return PurePath(one["netns"]).name == value
    return bool(one[member] == value)
