"""`kvnet audit`: who did what, whether the journal is as it was written, and all of it for files kept elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli import csvform, listing, lists, output, progress, suggest
from cli.events import subject
from cli.failures import FAILURE
from cli.lazy import LazyGroup
from cli.listing import Column, Listing
from cli.lists import ListOptions, list_options
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.values import DURATION

if TYPE_CHECKING:
    from kvnet.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])
FORMS = ("jsonl", "csv")
TITLES = (
    *("at", "revision", "kind", "key", "network", "actor", "claimed", "source", "request_id"),
    *("before", "after"),
)

CHANGES: Listing[Mapping[str, Any]] = Listing(
    columns=(
        Column("AT", lambda e: e["at"], parts=(("AT", lambda e: e["at"]),)),
        Column("KIND", lambda e: e["kind"]),
        Column("OF", subject, long=True),
        Column("BY", lambda e: e["actor"]),
        Column("FOR", lambda e: e["claimed"] or "", if_any=True),
        Column("FROM", lambda e: e["source"], long=True),
        Column("REQUEST", lambda e: e["request_id"]),
        Column("REVISION", lambda e: str(e["revision"]), wide=True, right=True),
        Column("KEY", lambda e: e["key"], wide=True),
    ),
    name=lambda e: f"{e['kind']}/{e['key']}",
    identity=lambda e: str(e["revision"]),
    filters={"actor": listing.one_of(lambda e: [e["actor"]]), "kind": listing.starting(lambda e: e["kind"])},
)


class MomentType(click.ParamType[str]):
    """A moment, or how long ago: 2026-01-31, 2026-01-31T12:00:00Z, 90s, 15m, 24h, 7d."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = datetime.fromtimestamp(time.time() - DURATION.convert(text, param, ctx), UTC)
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


WHEN = MomentType()


def filters(command: Command) -> Command:
    """What `ls` and `export` take."""
    for option in (
        click.option("--until", type=WHEN, metavar="TIME", help="Before then."),
        click.option(
            "--since", type=WHEN, metavar="TIME", help="From then on: 2026-01-31T12:00:00Z, or 15m, 24h, 7d ago."
        ),
        click.option("--request", "request_id", metavar="ID", help="What this request did."),
        click.option(
            "--network", metavar="NETWORK", shell_complete=suggest.networks, help="What concerns this network."
        ),
        click.option("--kind", metavar="KIND", help="network, endpoint.created, token, host.removed ..."),
        click.option("--source", metavar="ADDRESS", help="What was asked from there."),
        click.option("--actor", metavar="NAME", help="What this one did: a token's name, host:NAME, upkeep ..."),
    ):
        command = option(command)
    return command


@click.group(
    cls=LazyGroup,
    table={
        "ls": ("cli.audit:ls", "Who did what, the newest first."),
        "verify": ("cli.audit:verify", "Is the journal as it was written?"),
        "export": ("cli.audit:export", "All of it, as lines, for files kept elsewhere."),
    },
)
def audit() -> None:
    """Who did what, when, from where; and whether somebody changed that afterwards.

    Every change is in the journal, with what was before and after. A chain of seals over it shows whatever is changed,
    removed, added or reordered afterwards; keep its head elsewhere to be sure that the chain is the same one.
    """


@click.command()
@filters
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@list_options(CHANGES)
@connected
async def ls(client: Client, /, *, options: ListOptions, **query: Any) -> None:
    """Who did what, the newest first.

    Exit code 0 also if there is nothing. -o json has what was before and after.
    """

    async def fetch() -> list[Mapping[str, Any]]:
        return list((await client.changes(query))["items"])

    await lists.show(client, fetch, CHANGES, options)


@click.command()
@click.option("--head", default="", metavar="HEAD", help="NUMBER:HASH as an earlier run told it: is it the same chain?")
@output_option
@connected
async def verify(client: Client, *, head: str) -> None:
    """Read the journal and its seals in the store, and compare them.

    Exit code 1 if something does not fit; the first thing is told first. Entries that are younger than the last seal
    are told as such: nobody can say anything about them yet.
    """
    with progress.waiting("verifying"):
        found = await client.verify_journal(head)
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
    else:
        _show(found)
    if not found["ok"]:
        click.get_current_context().exit(FAILURE)


@click.command()
@filters
@click.option("-o", "--output", "form", type=click.Choice(FORMS), help="JSON lines with the seals, or CSV. [jsonl]")
@connected
async def export(client: Client, /, *, form: str | None, **query: Any) -> None:
    """Write the journal to stdout, the oldest first, as it comes.

    Of JSON lines the last one has the type "end". Exit code 1 if it broke off. CSV has the changes only.
    """
    form = current().choose(form, FORMS)
    if form == "csv":
        click.echo(csvform.line(title.upper() for title in TITLES), nl=False)
    async for line in client.export_journal(query):
        if form == "jsonl":
            click.echo(json.dumps(line, ensure_ascii=False))
        elif line["type"] == "change":
            click.echo(csvform.line(_cell(line[title]) for title in TITLES), nl=False)


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _show(found: Mapping[str, Any]) -> None:
    for misfit in found["misfits"]:
        click.echo(f"does not fit: {safe(misfit['detail'])}")
    for key in found["doubtful"]:
        click.echo(f"doubtful: {safe(key)} says it is older than the seals before it: a clock, or a hand", err=True)
    if found["head"] is None:
        click.echo("nothing is sealed yet", err=True)
        return
    verdict = (
        "the journal is as it was sealed" if found["ok"] else f"not as it was sealed, misfits: {len(found['misfits'])}"
    )
    click.echo(
        f"{verdict}: {found['entries']} entries under {found['seals']} seals, up to revision {found['revision']}"
    )
    if found["unsealed"]:
        click.echo(f"{found['unsealed']} entries are younger than the last seal (since {found['unsealed_since']})")
    if found["trimmed"]:
        click.echo(f"up to revision {found['trimmed']} nothing is kept any more")
    if found["begins"] == "restored":
        click.echo("the chain begins with a restore: what was before is in the store that the backup is from")
    click.echo(f"head: {found['head']}")
