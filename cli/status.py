"""`kvnet status`: the cluster at a glance, and a way for scripts to wait until all is well.

Well means: the controller believes its store and is in step with it, every host is alive, has no problem to report and
has applied everything that concerns it. `troubles` is the one place that says so.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import colour, output, progress
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.words import age, problems, seconds_since
from kvnet.errors import ControllerUnreachable, KvnetError
from kvnet.wire import Host

if TYPE_CHECKING:
    from kvnet.client import Client

FIRST_LOOK_S, LONGEST_LOOK_S = 0.1, 1.0
USUAL_WAIT_S = 60.0
UNAVAILABLE = 503


@click.command()
@click.option(
    "--wait",
    "wait_s",
    is_flag=False,
    flag_value=USUAL_WAIT_S,
    type=click.FloatRange(min=0),
    metavar="[=SECONDS]",
    help="Wait until all is well, at most so long (60). Exit code 1 if it is not by then.",
)
@output_option
@connected
async def status(client: Client, *, wait_s: float | None) -> None:
    """The store, the controllers, what there is, and what is not well."""
    if wait_s is None:
        facts, hosts = await _look(client)
    else:
        with progress.waiting("waiting until all is well"):
            facts, hosts = await _until_well(client, wait_s)
    found = list(troubles(facts, hosts, time.time()))
    session = current()
    if output.as_data(session):
        output.show_data({**facts, "ok": not found, "troubles": found, "controller": client.url}, session.output)
    else:
        _show(facts, found, client.url)
        for warning in facts.get("warnings") or ():
            click.echo(f"Warning: {safe(warning['detail'])}; {safe(warning['fix'])}")
    if wait_s is not None and found:
        click.get_current_context().exit(FAILURE)


def troubles(facts: Mapping[str, Any], hosts: Sequence[Host], now: float) -> Iterator[str]:
    """What is not well, one sentence each; nothing if all is."""
    if facts.get("trouble"):
        yield f"nothing is changed: {facts['trouble']['detail']}; {facts['trouble']['fix']}"
    if facts["stale_since"]:
        yield f"the controller is cut off from its store for {age(seconds_since(facts['stale_since'], now))}"
    if not facts["leader"]:
        yield "no controller does the upkeep"
    for host in hosts:
        name = host["name"]
        if not host["alive"]:
            seen = age(seconds_since(host["last_seen"], now))
            yield f"host {name} is down, last seen {seen} ago" if seen else f"host {name} is down"
        elif host["lag_revisions"]:
            yield f"host {name} is {host['lag_revisions']} revisions behind"
        yield from (f"host {name}: {one['detail']} ({one['reason']})" for one in problems(host["status"]))


async def _look(client: Client) -> tuple[dict[str, Any], list[Host]]:
    return await client.status(), [host async for host in client.hosts()]


async def _until_well(client: Client, wait_s: float) -> tuple[dict[str, Any], list[Host]]:
    """The first look that finds no trouble, or the last one.

    Raises:
        KvnetError: nobody answered until the end.
    """
    deadline = time.monotonic() + wait_s
    pause_s = FIRST_LOOK_S
    while True:
        is_last = time.monotonic() >= deadline
        try:
            facts, hosts = await _look(client)
        except KvnetError as error:
            if is_last or not (isinstance(error, ControllerUnreachable) or error.status == UNAVAILABLE):
                raise
        else:
            if is_last or not any(troubles(facts, hosts, time.time())):
                return facts, hosts
        await asyncio.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
        pause_s = min(LONGEST_LOOK_S, pause_s * 1.5)


def _show(facts: Mapping[str, Any], found: Sequence[str], url: str) -> None:
    leader = f"{facts['leader']} (this one)" if facts["is_leader"] else facts["leader"]
    output.show_facts(
        (
            ("Controller", f"{url} ({facts['replica']}, {facts['version']})"),
            ("Store", f"{facts['store']}, revision {facts['revision']}"),
            ("Cluster", facts["cluster"]),
            ("Upkeep by", leader),
            ("Hosts", f"{facts['hosts_alive']} alive of {facts['hosts']}"),
            ("Networks", facts["networks"]),
            ("Endpoints", facts["endpoints"]),
            ("Pools", facts["pools"]),
        )
    )
    click.echo()
    is_coloured = colour.wanted(sys.stdout)
    verdict, tone = ("Not well:", colour.BAD) if found else ("All is well.", colour.GOOD)
    if facts.get("warnings") and not found:
        verdict, tone = "Every host is well, but:", colour.WARNING
    click.echo(colour.painted(verdict, tone, is_wanted=is_coloured))
    for trouble in found:
        click.echo(f"  {safe(trouble)}")
