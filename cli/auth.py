"""`kvnet auth` and `kvnet whoami`: whether the cluster asks who asks, and who that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import output, words
from cli.confirming import confirm, yes_option
from cli.lazy import LazyGroup
from cli.safe import safe
from cli.session import connected, current, output_option

if TYPE_CHECKING:
    from kvnet.client import Client

VIA = {
    "token": "a token",
    "cookie": "a cookie",
    "certificate": "a certificate",
    "unix": "the controller's socket file",
    "oidc": "an identity provider",
    "open": "nothing: the cluster does not ask",
}


@click.group(
    cls=LazyGroup,
    table={
        "status": ("cli.auth:status", "Whether everybody has to say who asks."),
        "require": ("cli.auth:require", "Every controller asks everybody for a token."),
        "off": ("cli.auth:off", "No controller asks: who reaches one from its own machine may do all."),
    },
)
def auth() -> None:
    """Whether the cluster asks who asks. The first token switches it on, everywhere."""


@click.command()
@output_option
@connected
async def status(client: Client) -> None:
    """Whether everybody has to say who asks."""
    _show(await client.authentication())


@click.command()
@output_option
@connected
async def require(client: Client) -> None:
    """Every controller asks everybody for a token; there must be one of an admin."""
    _show(await client.require_authentication(required=True))


@click.command()
@yes_option
@output_option
@connected
async def off(client: Client, *, yes: bool) -> None:
    """No controller asks any more. The tokens stay; hosts and people go on with them.

    Controllers that listen beyond their own machine then serve only their own machine, but for those with --insecure.
    """
    confirm("Let everybody on a controller's machine change everything, without a token?", yes=yes, preview="")
    _show(await client.require_authentication(required=False))


@click.command()
@output_option
@connected
async def whoami(client: Client) -> None:
    """Who the controller takes you for, and what you may do."""
    found = await client.whoami()
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
        return
    limits = ", ".join(f"{key} {value:g}" for key, value in found["limits"].items() if value is not None)
    facts: list[tuple[str, object]] = [
        ("Name", found["name"]),
        ("Role", found["role"]),
        ("Known by", VIA.get(found["via"], found["via"])),
        ("Networks", f"those with {words.pairs(found['scope'])}" if found["scope"] else "all"),
        ("Grants", ", ".join(found["grants"])),
        ("Limits", limits or "none"),
        ("Expires", found["expires_at"] or "never"),
    ]
    output.show_facts((name, value) for name, value in facts if value)


def _show(found: dict[str, object]) -> None:
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
        return
    asked = "yes: every controller asks everybody" if found["required"] else "no"
    insecure = "this controller serves everybody (--insecure)" if found["insecure"] else ""
    facts = [("Required", asked), ("Tokens", str(found["tokens"])), ("OIDC", "yes" if found["oidc"] else "no")]
    output.show_facts([*facts, *([("But", safe(insecure))] if insecure and not found["required"] else [])])
