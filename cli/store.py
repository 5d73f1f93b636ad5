"""`kvnet store`: what the controllers think of their store, and an operator's word that it is to be taken as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.lazy import LazyGroup
from cli.session import connected, current, output_option

if TYPE_CHECKING:
    from kvnet.client import Client

NOT_ACCEPTABLE = ("wiped", "another-cluster")


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
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@connected
async def accept(client: Client, *, yes: bool) -> None:
    """Take a store that went back in time as it is: once, for all controllers and all hosts.

    What was created after the revision that it went back to is not known any more: hosts then take the interfaces of
    those endpoints away, and their addresses may be given to others. To keep them, restore a newer backup instead.
    """
    state = await client.store_state()
    trouble = state["trouble"]
    if not yes and (trouble is None or trouble["kind"] not in NOT_ACCEPTABLE):
        for name, value in _facts(state):
            click.echo(f"{name}: {value}", err=True)
        click.confirm(_question(trouble), abort=True, err=True)
    # What cannot be accepted is refused by the controller, in its own words.
    accepted = await client.accept_store(state["cluster"], trouble["revision_before"] if trouble else 0)
    session = current()
    if output.as_data(session):
        output.show_data(accepted, session.output)
    else:
        click.echo(accepted["id"])


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
