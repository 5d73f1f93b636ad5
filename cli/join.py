"""`kvnet host join-token` and `kvnet worker join`: how a host comes into a cluster, from both ends."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from cli import output, suggest
from cli.safe import safe
from cli.secretfile import require_free, secret_to
from cli.session import STDIN, connected, controller_option, current, output_option, token_in
from cli.values import DURATION, LABEL, mapping
from kvnet.errors import Invalid, NotFound
from kvnet.rules import require_name

if TYPE_CHECKING:
    from kvnet.client import Client

DEFAULT_TTL_S = 900.0
LONGEST_TTL_S = 7 * 86_400.0
PATH: click.Path = click.Path(path_type=Path)


@click.command("join-token")
@click.argument("name", shell_complete=suggest.hosts)
@click.option("--ttl", type=DURATION, default=DEFAULT_TTL_S, metavar="TIME", help="It can be used for so long. [15m]")
@click.option(
    "--docker",
    is_flag=True,
    help="Docker, or Podman with netavark, runs there: the host sees all networks, and may make some.",
)
@click.option(
    "--scope", multiple=True, type=LABEL, help="The host may take part only in networks with this label; repeatable."
)
@click.option("--out", type=PATH, metavar="FILE", help="Write it there, for you alone, instead of printing it.")
@output_option
@connected
async def join_token(
    client: Client, name: str, *, ttl: float, docker: bool, scope: Sequence[tuple[str, str]], out: Path | None
) -> None:
    """Make a token that lets host NAME join, once, and print it.

    \b
    kvnet host join-token h1 --out h1.token        # here; then bring the file to h1, and say there:
    kvnet worker join --controller https://kvnet.example:7480 --token-file h1.token --ca-fingerprint sha256:...
    """
    require_name(name, "/host")
    if not 0 < ttl <= LONGEST_TTL_S:
        raise Invalid.field("/ttl", f"a join token for {ttl:g} s", "at most 7 days; it is used within minutes")
    body: dict[str, Any] = {
        "name": f"{name[:50]}-join-{secrets.token_hex(3)}",
        "role": "join",
        "host": name,
        "expires_in_s": ttl,
        "scope": mapping(scope, "--scope"),
        "grants": ["docker"] if docker else [],
    }
    require_free(out)
    made = await client.create_token(body)
    fingerprint = await _fingerprint(client)
    session = current()
    if out is not None:
        secret_to(out, made.pop("token"))
    if output.as_data(session):
        output.show_data({**made, "ca_fingerprint": fingerprint or None}, session.output)
    elif out is None:
        click.echo(safe(made["token"]))
    place = out.name if out is not None else "FILE"
    believed = f" --ca-fingerprint {fingerprint}" if fingerprint else ""
    click.echo(
        f"Good once, until {made['expires_at']}. On {name}: "
        f"kvnet worker join --controller {client.url} --token-file {place}{believed}",
        err=True,
    )


async def _fingerprint(client: Client) -> str:
    try:
        return str((await client.authority())["fingerprint"])
    except NotFound:
        return ""


@click.command()
@click.option(
    "--token-file", required=True, metavar="FILE", help=f"The join token; {STDIN} for stdin. Removed when it is used."
)
@click.option("--host", default="", metavar="NAME", help="The name that the token must be for. [the token's]")
@click.option("--ca-file", default="", metavar="FILE", help="Trust controllers of this CA only.")
@click.option("--ca-fingerprint", default="", metavar="sha256:HEX", help="Or: of the CA with this fingerprint.")
@click.option("--certificate", default="", metavar="FILE", help="The host's own certificate, of the controllers' CA.")
@click.option("--key", default="", metavar="FILE", help="Its key.")
@click.option(
    "--state-dir",
    type=PATH,
    default="/var/lib/kvnet",
    metavar="DIR",
    help="The worker's; the identity is kept in DIR/identity. [/var/lib/kvnet]",
)
@click.option("--replace", "replaces", is_flag=True, help="In place of the identity that the host has.")
@controller_option
@output_option
def join(token_file: str, host: str, state_dir: Path, ca_fingerprint: str, replaces: bool, **given: str) -> None:
    """Become a host of a cluster, with the token that 'kvnet host join-token' made there.

    The secret and the key are made here, and never leave this host. 'kvnet worker' finds them when it starts.
    """
    from kvnet.tls import parse_fingerprint
    from worker.joining import Wish
    from worker.joining import join as joined

    session = current()
    told = session.trust
    trust = replace(told, ca=given["ca_file"] or told.ca)
    if given["certificate"] or given["key"]:
        trust = replace(trust, certificate=given["certificate"], key=given["key"])
    if given["ca_file"] and ca_fingerprint:
        raise Invalid("--ca-file and --ca-fingerprint say the same thing", fix="give one of them")
    if host:
        require_name(host, "/host")
    wish = Wish(
        controller=session.controller,
        token=token_in(token_file),
        state_dir=state_dir,
        host=host,
        trust=replace(trust, ca="") if ca_fingerprint else trust,
        pinned=parse_fingerprint(ca_fingerprint) if ca_fingerprint else "",
        replaces=replaces,
    )
    _warn_of_clear(session.controller)
    found = asyncio.run(joined(wish, time.time))
    if token_file != STDIN:
        forget(Path(token_file))
    facts = {
        "host": found.about.host,
        "controller": found.about.controller,
        "identity": str(found.directory),
        "certificate": bool(found.trust.certificate),
    }
    if output.as_data(session):
        output.show_data(facts, session.output)
    else:
        kind = "a token and a certificate" if facts["certificate"] else "a token"
        click.echo(f"{safe(found.about.host)} has joined: {kind} in {found.directory}")
    if replaces:
        click.echo("A worker that runs takes it when it is restarted: systemctl restart kvnet-worker", err=True)


def _warn_of_clear(controller: str) -> None:
    parts = urlsplit(controller.partition(",")[0])
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        click.echo("Warning: without TLS whoever listens on the way can join in this host's place.", file=sys.stderr)


def forget(path: Path) -> None:
    """A file with a token that was used; /dev/stdin and what else leads to one is not ours to remove."""
    if not path.is_symlink() and path.is_file():
        path.unlink(missing_ok=True)
