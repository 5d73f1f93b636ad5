"""`kvnet profile`: names for controllers, so that a command need not be told where things are."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli import output, suggest
from cli.lazy import LazyGroup
from cli.profiles import FILES, FORMS, MEMBERS, Profile, Profiles, read, write
from cli.safe import safe
from cli.session import current, output_option, profiles_path
from kvnet.errors import Invalid
from kvnet.rules import require_name

HIDDEN = "********"
UNSET = "none"


@click.group(
    cls=LazyGroup,
    table={
        "ls": ("cli.profile:ls", "List profiles; the current one has a star."),
        "show": ("cli.profile:show", "What a profile says."),
        "use": ("cli.profile:use", "Make a profile the current one; none: use no profile."),
        "set": ("cli.profile:set_", "Make a profile, or change one."),
        "rm": ("cli.profile:rm", "Remove a profile."),
    },
)
def profile() -> None:
    """Where controllers are and how to print, under names: ~/.config/kvnet/profiles.toml.

    An option beats the environment, the environment beats the profile, the profile beats the default. --profile NAME or
    KVNET_PROFILE name one for a command; else it is the current one.
    """


@click.command()
@output_option
def ls() -> None:
    """List profiles."""
    found = _read()
    rows = [
        {"name": name, "current": name == found.current, **_shown(one)} for name, one in sorted(found.named.items())
    ]
    if output.as_data(current()):
        output.show_data(rows, current().output)
        return
    for row in rows:
        click.echo(f"{'*' if row['current'] else ' '} {row['name']}  {safe(row.get('controller', ''))}".rstrip())
    if not rows:
        click.echo("There are no profiles: 'kvnet profile set NAME --controller URL' makes one.", err=True)


@click.command()
@click.argument("name", required=False, shell_complete=suggest.profiles)
@output_option
def show(name: str | None) -> None:
    """What profile NAME says, or the current one; a token is not shown."""
    found, path = _read(), _place()
    name = name or current().given.get("profile") or found.current
    if not name:
        raise Invalid("no profile is current", fix="name one, or make one current with 'kvnet profile use NAME'")
    shown = _shown(found.get(name, path))
    if output.as_data(current()):
        output.show_data({"name": name, "current": name == found.current, **shown}, current().output)
    else:
        output.show_facts((("Profile", name), *((m.replace("_", " ").capitalize(), shown.get(m)) for m in MEMBERS)))


@click.command()
@click.argument("name", shell_complete=suggest.profiles)
def use(name: str) -> None:
    """Make profile NAME the current one; "none": commands use none unless it is named."""
    found, path = _read(), _place()
    if name != UNSET:
        found.get(name, path)
    write(path, replace(found, current="" if name == UNSET else name))


@click.command("set")
@click.argument("name", shell_complete=suggest.profiles)
@click.option("--controller", metavar="URL", help="http(s)://HOST:PORT or unix:///PATH.")
@click.option("--token-file", metavar="FILE", help="A file with the bearer token.")
@click.option("--ca-file", "ca", metavar="FILE", help="The CA of its certificate.")
@click.option("--certificate", metavar="FILE", help="A certificate to show it.")
@click.option("--key", metavar="FILE", help="The key of that certificate.")
@click.option("--token-stdin", is_flag=True, help="Keep the token itself, read from stdin, in the profile.")
@click.option("--socket", metavar="PATH", help="The worker's unix socket.")
@click.option("--output", metavar="FORM", type=click.Choice((*FORMS, UNSET)), help=f"How to print: {', '.join(FORMS)}.")
def set_(name: str, token_stdin: bool, **given: Any) -> None:
    """Make the profile NAME, or change what is given of it; "none" takes a setting away.

    The first profile becomes the current one.

    \b
    kvnet profile set lab --controller https://lab.example:7480 --token-file ~/.kvnet-token
    """
    require_name(name, "/name")
    found, path = _read(), _place()
    changes = {member: "" if value == UNSET else value for member, value in given.items() if value is not None}
    for member in FILES:
        if changes.get(member):
            changes[member] = os.path.abspath(os.path.expanduser(changes[member]))
    if token_stdin:
        changes["token"] = sys.stdin.readline().strip()
    if not changes:
        raise click.UsageError("nothing is given that the profile is to say, like --controller URL")
    if changes.get("controller"):
        from kvnet.client.places import targets_of

        targets_of(changes["controller"])
    write(path, found.with_one(name, replace(found.named.get(name, Profile()), **changes)))


@click.command()
@click.argument("name", shell_complete=suggest.profiles)
def rm(name: str) -> None:
    """Remove profile NAME."""
    found, path = _read(), _place()
    found.get(name, path)
    write(path, found.without(name))


def _place() -> Path:
    return Path(profiles_path(os.environ))


def _read() -> Profiles:
    return read(_place())


def _shown(one: Profile) -> dict[str, str]:
    given = one.given()
    return {**given, "token": HIDDEN} if "token" in given else given
