"""`kvnet upgrade`: how far an upgrade is, and the step that ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.confirming import confirm, yes_option
from cli.session import connected, current, output_option

if TYPE_CHECKING:
    from kvnet.client import Client


@click.command()
@click.option("--finish", is_flag=True, help="Have everybody write what the newest version writes. No way back.")
@yes_option
@output_option
@connected
async def upgrade(client: Client, *, finish: bool, yes: bool) -> None:
    """Show who speaks which schema; --finish ends an upgrade.

    Controllers and workers of two versions work side by side: everybody writes what the older ones read. When all are
    upgraded, --finish raises the cluster's level; older versions refuse to write from then on, and say why.
    """
    found = await client.upgrade()
    if finish and not found["finished"]:
        if not found["behind"]:
            confirm(
                f"raise the cluster from schema {found['level']} to {found['newest']}, without a way back",
                yes=yes,
                preview="",
            )
        found = await client.finish_upgrade()
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
    else:
        output.show_facts(tuple(_facts(found)))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Schema", f"{found['level']}" + ("" if found["finished"] else f" (could be {found['newest']})")
    for one in found["controllers"]:
        yield "Controller", _speaker(one)
    for one in found["hosts"]:
        yield "Host", _speaker(one)
    if found["behind"]:
        yield "Waiting for", ", ".join(found["behind"])
    elif not found["finished"]:
        yield "Next", "kvnet upgrade --finish"


def _speaker(one: Mapping[str, Any]) -> str:
    speaks = "is down" if one["schema"] is None else f"speaks {one['schema']}"
    return f"{one['name']} {speaks}" + (f" (kvnet {one['version']})" if one["version"] else "")
