"""`kvnet wait`: until things are ready, converged or deleted. Woken by the event stream; scripts need not poll.

What is not there yet is waited for, too. Exit code 1 when the time is over, with what is still missing of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli import naming, output, progress, suggest
from cli.failures import FAILURE
from cli.hearing import bell, is_passing
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.values import DURATION
from kvnet.errors import KvnetError, NotFound

if TYPE_CHECKING:
    from kvnet.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

READY, CONVERGED, DELETED = GOALS = ("ready", "converged", "deleted")
KINDS = ("network", "endpoint", "host", "pool")
USUAL_S = 60.0
LOOK_AGAIN_S = 2.0  # what a host has applied is told with a delay; nobody is kept waiting by it


@dataclass(slots=True)
class Target:
    """One thing that is waited for. `id`: what it was when it was first seen, so that a successor is not taken for it.

    `missing`: what is not so yet; "" when the goal is reached.
    """

    kind: str
    name: str
    id: str = ""
    missing: str = "nobody has looked yet"

    @property
    def shown(self) -> str:
        return f"{self.kind}/{self.name}"


def options(command: Command) -> Command:
    goal = click.option("--for", "goal", type=click.Choice(GOALS), default=READY, help="What is waited for. [ready]")
    timeout = click.option("--timeout", "timeout_s", type=DURATION, default=USUAL_S, metavar="TIME", help="[60s]")
    return goal(timeout(output_option(command)))


@click.command()
@click.argument("things", nargs=-1, required=True, metavar="KIND/NAME...", shell_complete=suggest.things)
@options
@connected
async def wait(client: Client, things: Sequence[str], *, goal: str, timeout_s: float) -> None:
    """Wait until things are ready, converged or deleted. KIND is network, endpoint, host or pool.

    Ready: it works, as far as its hosts are there. Converged: every host that it concerns has applied its newest
    version. What is not there yet is waited for. Exit code 1 when the time is over.

    \b
    kvnet wait network/my-net --for=converged --timeout 30s
    kvnet wait endpoint/my-net/web host/h1
    """
    await _wait(client, [_target(thing, goal) for thing in things], goal, timeout_s)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=suggest.networks)
@options
@connected
async def network(client: Client, names: Sequence[str], *, goal: str, timeout_s: float) -> None:
    """Wait until networks are ready, converged or deleted: as `kvnet wait network/NAME`."""
    await _wait(client, [Target("network", name) for name in names], goal, timeout_s)


@click.command()
@naming.endpoint_arguments
@options
@connected
async def endpoint(client: Client, words: Sequence[str], *, goal: str, timeout_s: float) -> None:
    """Wait until endpoints are ready, converged or deleted: as `kvnet wait endpoint/NETWORK/NAME`."""
    named = [f"{network}/{name}" if network else name for network, name in naming.spelt(words)]
    await _wait(client, [Target("endpoint", name) for name in named], goal, timeout_s)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST...", shell_complete=suggest.hosts)
@options
@connected
async def host(client: Client, names: Sequence[str], *, goal: str, timeout_s: float) -> None:
    """Wait until hosts are ready, converged or deleted: as `kvnet wait host/NAME`."""
    await _wait(client, [Target("host", name) for name in names], goal, timeout_s)


def _target(thing: str, goal: str) -> Target:
    kind, slash, name = thing.partition("/")
    if not (slash and name) or kind not in KINDS:
        raise click.BadParameter(f"{thing!r} is not KIND/NAME with KIND one of {', '.join(KINDS)}")
    if kind == "pool" and goal == CONVERGED:
        raise click.BadParameter("pools are the controllers' own: no host has to apply them", param_hint="--for")
    return Target(kind, name)


async def _wait(client: Client, targets: Sequence[Target], goal: str, timeout_s: float) -> None:
    with progress.waiting(f"waiting until {goal}") as shown:
        await _until(client, targets, goal, time.monotonic() + timeout_s, shown)
    session = current()
    if output.as_data(session):
        rows = [{"kind": t.kind, "name": t.name, "goal": goal, "met": not t.missing, "missing": t.missing}
                for t in targets]  # fmt: skip
        output.show_data(rows, session.output)
    for target in targets:
        if target.missing:
            click.echo(f"{safe(target.shown)} is not {goal}: {safe(target.missing)}", err=True)
    if any(target.missing for target in targets):
        click.get_current_context().exit(FAILURE)


async def _until(
    client: Client, targets: Sequence[Target], goal: str, deadline: float, shown: progress.Progress
) -> None:
    """Until all are as they should be, or the time is over; each is told as soon as it is.

    Raises:
        KvnetError: it is refused, or nobody answered until the end.
    """
    async with bell(client, KINDS, quiet=True) as ringing:
        while True:
            is_last = time.monotonic() >= deadline
            left = [target for target in targets if target.missing]
            try:
                for target in left:
                    target.missing = await _missing(client, target, goal)
                    if not target.missing and not output.as_data(current()):
                        click.echo(f"{safe(target.shown)} is {goal}")
            except KvnetError as error:
                if is_last or not is_passing(error):
                    raise
            done = sum(not target.missing for target in targets)
            shown.step(done, len(targets))
            if is_last or done == len(targets):
                return
            await ringing.rings(min(LOOK_AGAIN_S, max(0.0, deadline - time.monotonic())))


async def _missing(client: Client, target: Target, goal: str) -> str:
    """What is not so yet of one; "" if it is as it should be."""
    try:
        found = await _found(client, target, by_id=goal == DELETED)
    except NotFound as error:
        return "" if goal == DELETED else error.detail
    target.id = target.id or str(found.get("id") or found["name"])
    if goal == DELETED:
        return "it is still there"
    if "status" not in found:
        return ""
    condition = next(c for c in found["status"]["conditions"] if c["type"] == goal)
    if condition["status"] == "true":
        return ""
    return str(condition["detail"] or condition["reason"])


async def _found(client: Client, target: Target, *, by_id: bool) -> dict[str, Any]:
    name = target.id if by_id and target.id else target.name
    match target.kind:
        case "network":
            return dict(await client.get_network(name))
        case "host":
            return dict(await client.get_host(name))
        case "pool":
            return dict(await client.get_pool(name))
        case _:
            network, _, rest = target.name.rpartition("/")
            return dict(await naming.endpoint(client, network, target.id if by_id and target.id else rest))
