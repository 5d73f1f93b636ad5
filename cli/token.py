"""`kvnet token`: who may ask the controllers what. A token's text is shown once, where it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import colour, listing, lists, output, suggest, words
from cli.confirming import confirm, yes_option
from cli.each import each
from cli.inspecting import inspected
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.secretfile import require_free, secret_to
from cli.session import connected, controller_option, current, output_option
from cli.values import DURATION, LABEL, mapping
from kvnet.errors import KvnetError, NotFound

if TYPE_CHECKING:
    from kvnet.client import Client

ROLES = ("admin", "operator", "viewer", "host")
PATH: click.Path = click.Path(path_type=Path)
Token = dict[str, Any]

TOKENS: Listing[Token] = Listing(
    columns=(
        Column("NAME", lambda t: t["name"]),
        Column("ROLE", lambda t: t["role"]),
        Column("HOST", lambda t: t["host"] or "", if_any=True),
        Column("SCOPE", lambda t: words.pairs(t["scope"]), if_any=True),
        Column("EXPIRES", lambda t: _expiry(t), tone=lambda t: colour.BAD if t["expired"] else ""),
        Column("CREATED", lambda t: t["created_at"], is_age=True, moment="CREATED AT"),
        Column("BY", lambda t: t["created_by"], wide=True),
        Column("LIMITS", lambda t: _limits(t), if_any=True, wide=True),
        Column("CERTIFICATE", lambda t: (t["certificate"] or "")[:16], if_any=True, wide=True),
        Column("ID", lambda t: t["id"]),
    ),
    name=lambda t: t["name"],
    identity=lambda t: t["id"],
    filters={
        "name": listing.containing(lambda t: t["name"]),
        "role": listing.one_of(lambda t: [t["role"]]),
        "host": listing.one_of(lambda t: [t["host"]]),
        "label": listing.labelled(lambda t: t["scope"]),
    },
    kinds=(),
)


@click.group(
    cls=LazyGroup,
    table={
        "create": ("cli.token:create", "Make a token, and print it: this once."),
        "ls": ("cli.token:ls", "List tokens."),
        "inspect": ("cli.token:inspect", "Everything about tokens, as JSON, but what they are."),
        "rotate": ("cli.token:rotate", "Give a token a new secret, and print it."),
        "rm": ("cli.token:rm", "Remove tokens: nobody gets in with them any more."),
    },
)
def token() -> None:
    """Who may ask the controllers what.

    The first token makes every controller ask for one. The store keeps only hashes: a token that is lost is rotated.
    """


@click.command()
@click.argument("name")
@click.option(
    "--role", required=True, type=click.Choice(ROLES), help="What it may: all, change networks, look, a host."
)
@click.option("--host", default="", metavar="NAME", shell_complete=suggest.hosts, help="With --role host: which one.")
@click.option("--scope", multiple=True, type=LABEL, help="Only networks with this label; repeatable.")
@click.option("--ttl", type=DURATION, metavar="TIME", help="It is good for so long. [for ever]")
@click.option("--docker", is_flag=True, help="With --role host: Docker, or Podman with netavark, runs there.")
@click.option("--max-networks", type=click.IntRange(0), metavar="N", help="How many networks it may make. [any]")
@click.option("--max-endpoints", type=click.IntRange(0), metavar="N", help="How many endpoints it may make. [any]")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Requests a second, of each controller. [any]"
)
@click.option(
    "--max-streams", type=click.IntRange(0), metavar="N", help="Open event streams, of each controller. [any]"
)
@click.option(
    "--store", default="", metavar="URL", help="Write it into the store itself, for who has it: a first token."
)
@click.option("--out", type=PATH, metavar="FILE", help="Write it there, for you alone, instead of printing it.")
@controller_option
@output_option
def create(name: str, store: str, out: Path | None, **given: Any) -> None:
    """Make the token NAME, and print its text: nobody can find that out again.

    \b
    kvnet token create alice --role admin --out ~/.kvnet-token
    kvnet token create red --role operator --scope team=red --ttl 30d --max-networks 10
    """
    if (given["role"] == "host") != bool(given["host"]):
        raise click.UsageError("--role host and --host NAME go together")
    if given["docker"] and given["role"] != "host":
        raise click.UsageError("--docker is for hosts")
    require_free(out)
    made = asyncio.run(_in_store(store, _body(name, given)) if store else _at_controller(_body(name, given)))
    _show_made(made, out)


def _body(name: str, given: dict[str, Any]) -> dict[str, Any]:
    limits = {
        "networks": given["max_networks"],
        "endpoints": given["max_endpoints"],
        "rate": given["rate"],
        "streams": given["max_streams"],
    }
    body: dict[str, Any] = {
        "name": name,
        "role": given["role"],
        "scope": mapping(given["scope"], "--scope"),
        "grants": ["docker"] if given["docker"] else [],
        "limits": {key: value for key, value in limits.items() if value is not None},
    }
    if given["host"]:
        body["host"] = given["host"]
    if given["ttl"] is not None:
        body["expires_in_s"] = given["ttl"]
    return body


async def _at_controller(body: dict[str, Any]) -> Token:
    from kvnet.client import Client

    session = current()
    async with Client(session.controller, token=session.token, trust=session.trust) as client:
        return await client.create_token(body)


async def _in_store(url: str, body: dict[str, Any]) -> Token:
    from cli.direct import create_token

    return await create_token(url, body)


@click.command()
@list_options(TOKENS)
@connected
async def ls(client: Client, *, options: ListOptions) -> None:
    """List tokens. What they are is not shown: nobody knows it but who has them."""

    async def fetch() -> Sequence[Token]:
        return await client.tokens()

    await lists.show(client, fetch, TOKENS, options)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID...", shell_complete=suggest.tokens)
@output_option
@connected
async def inspect(client: Client, names: Sequence[str]) -> None:
    """Everything about tokens: a JSON array."""
    await inspected(names, client.get_token)


@click.command()
@click.argument("name", metavar="NAME|ID", shell_complete=suggest.tokens)
@click.option("--grace", type=DURATION, default=0.0, metavar="TIME", help="The old one stays good for so long. [0]")
@click.option("--out", type=PATH, metavar="FILE", help="Write it there, for you alone, instead of printing it.")
@output_option
@connected
async def rotate(client: Client, name: str, *, grace: float, out: Path | None) -> None:
    """Give token NAME a new secret, and print the token. Role, scope and limits stay."""
    require_free(out)
    _show_made(await client.rotate_token(name, grace_s=grace), out)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID...", shell_complete=suggest.tokens)
@click.option("--dry-run", is_flag=True, help="Only tell which would be removed.")
@click.option("--ignore-missing", is_flag=True, help="One that is not there is no failure.")
@yes_option
@connected
async def rm(client: Client, names: Sequence[str], *, dry_run: bool, ignore_missing: bool, yes: bool) -> None:
    """Remove tokens: who uses them is refused at once, everywhere, and what is open with them ends.

    A host's token takes its certificate with it. The last token of an admin stays.
    """

    async def remove(name: str) -> None:
        if dry_run:
            await client.get_token(name)
        else:
            await client.delete_token(name)

    if not dry_run:
        what = f"token {safe(names[0])}" if len(names) == 1 else f"{len(names)} tokens"
        confirm(f"Remove {what}? Whoever uses it is refused from then on.", yes=yes)
    await each(names, remove, does=str, ignores=lambda error: ignore_missing and _is_missing(error))
    if dry_run:
        click.echo("would be removed; nothing was changed.", err=True)


def _is_missing(error: KvnetError) -> bool:
    return isinstance(error, NotFound)


def _show_made(made: Token, out: Path | None) -> None:
    session = current()
    if out is not None:
        secret_to(out, made.pop("token"))
    if output.as_data(session):
        output.show_data(made, session.output)
    elif out is None:
        click.echo(safe(made["token"]))
    if not output.as_data(session):
        where = f"in {out}" if out is not None else "above, and shown this once"
        until = f", good until {made['expires_at']}" if made["expires_at"] else ""
        click.echo(f"token {safe(made['name'])} ({made['role']}){until}: {where}", err=True)


def _expiry(row: Token) -> str:
    if row["expired"]:
        return "expired"
    return str(row["expires_at"] or "never")


def _limits(row: Token) -> str:
    return ",".join(f"{key}={value:g}" for key, value in row["limits"].items() if value is not None)
