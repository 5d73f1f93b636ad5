"""`kvnet store`: what the controllers think of their store, and an operator's word that it is to be taken as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.confirming import confirm, yes_option
from cli.lazy import LazyGroup
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.words import problems

if TYPE_CHECKING:
    from kvnet.client import Client

ANOTHER = "another-cluster"
NOT_ACCEPTABLE = ("wiped", ANOTHER)


@click.group(
    cls=LazyGroup,
    table={
        "show": ("cli.store:show", "Whether the store is believed, and what it holds."),
        "accept": ("cli.store:accept", "Take a store that went back in time as it is."),
    },
)
def store() -> None:
    """Whether the store is believed.

    Controllers change nothing, and hosts remove nothing, once the store is older than what they have seen of it: then
    it was wiped, or restored from a backup, and what was acknowledged since is not in it.
    """


@click.command()
@output_option
@connected
async def show(client: Client) -> None:
    """Whether the store is believed, and what it holds."""
    state = await client.store_state()
    session = current()
    if output.as_data(session):
        output.show_data(state, session.output)
    else:
        output.show_facts(_facts(state))


@click.command()
@yes_option
@click.option("--dry-run", is_flag=True, help="Only show what is believed, and what would be accepted.")
@output_option
@connected
async def accept(client: Client, *, yes: bool, dry_run: bool) -> None:
    """Take a store that went back in time as it is: once, for all controllers and all hosts.

    What was created after the revision that it went back to is not known any more: hosts then take the interfaces of
    those endpoints away, and their addresses may be given to others. To keep them, restore a newer backup instead.

    Another cluster's store cannot be accepted for all: there each worker is restarted with --accept-store.
    """
    state = await client.store_state()
    trouble = state["trouble"]
    is_acceptable = trouble is None or trouble["kind"] not in NOT_ACCEPTABLE
    if dry_run:
        output.show_facts((*_facts(state), ("Can be accepted", "yes" if is_acceptable else "no")))
        return
    if not yes and is_acceptable:
        for name, value in _facts(state):
            click.echo(f"{name}: {value}", err=True)
        confirm(_question(trouble), yes=yes)
    # What cannot be accepted is refused by the controller, in its own words.
    accepted = await client.accept_store(state["cluster"], trouble["revision_before"] if trouble else 0)
    session = current()
    if output.as_data(session):
        output.show_data(accepted, session.output)
    else:
        click.echo(accepted["id"])
    await _warn_of_hosts(client)


async def _warn_of_hosts(client: Client) -> None:
    """A host that remembers another cluster takes no acceptance of this one."""
    async for host in client.hosts():
        if any(problem["reason"] == ANOTHER for problem in problems(host["status"])):
            click.echo(
                f"host {safe(host['name'])} remembers another cluster: restart its worker with --accept-store", err=True
            )


def _question(trouble: Mapping[str, Any] | None) -> str:
    if trouble is None:
        return "This controller sees nothing wrong with the store. Tell all hosts to take it as it is?"
    return "Is the store meant to be as it is now?"


def _facts(state: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    trouble, accepted = state["trouble"], state["accepted"]
    yield "Cluster", state["cluster"] or "(none: there is no meta/cluster)"
    yield "Believed", "yes" if trouble is None else f"no: {trouble['detail']}"
    if trouble is not None:
        if trouble["revision_before"]:
            yield "Revision before", trouble["revision_before"]
        yield "What to do", trouble["fix"]
    yield "Revision now", state["revision"]
    yield "Holds", f"{state['networks']} networks, {state['endpoints']} endpoints, {state['hosts']} hosts"
    if accepted is not None:
        yield "Last accepted", f"{accepted['at']} by {accepted['actor']}"
