"""`kvnet login`: a controller's address, its CA and a token, tried out and kept in a profile."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli import suggest
from cli.profiles import Profile, read, write
from cli.safe import safe
from cli.session import STDIN, controller_option, current, profiles_path, token_in
from kvnet.errors import Invalid
from kvnet.rules import require_name


@click.command()
@click.argument("profile", default="", required=False, shell_complete=suggest.profiles)
@click.option("--token-file", default="", metavar="FILE", help=f"Where the token is; {STDIN} for stdin. [asks for it]")
@click.option("--ca-file", default="", metavar="FILE", help="The CA of the controller's certificate.")
@controller_option
def login(profile: str, token_file: str, ca_file: str) -> None:
    """Try a token at a controller, and keep both in PROFILE, which becomes the current one. [default]

    The token itself is kept, in a file that only you may read: ~/.config/kvnet/profiles.toml.

    \b
    kvnet login --controller https://kvnet.example:7480 --ca-file ca.pem --token-file alice.token
    """
    session = current()
    name = profile or session.given.get("profile") or "default"
    require_name(name, "/name")
    token = token_in(token_file) if token_file else _asked()
    if not token:
        raise Invalid("there is no token", fix="give it with --token-file, or on the terminal")
    ca = os.path.abspath(os.path.expanduser(ca_file)) if ca_file else session.trust.ca
    who = asyncio.run(_tried(session.controller, token, ca))
    path = Path(profiles_path(os.environ))
    found = read(path)
    kept = replace(found.named.get(name, Profile()), controller=session.controller, token=token, token_file="", ca=ca)
    write(path, replace(found.with_one(name, kept), current=name))
    click.echo(
        f"logged in at {safe(session.controller)} as {safe(who['name'])} ({who['role']}); profile {name}", err=True
    )


async def _tried(controller: str, token: str, ca: str) -> dict[str, Any]:
    from kvnet.client import Client

    trust = replace(current().trust, ca=ca)
    async with Client(controller, token=token, trust=trust) as client:
        return await client.whoami()


def _asked() -> str:
    """Without showing it. Raises: Invalid: nobody is there to ask."""
    if not sys.stdin.isatty():
        raise Invalid("nobody is there to type a token", fix="give it with --token-file FILE, or --token-file -")
    return str(click.prompt("Token", hide_input=True, err=True)).strip()
