"""The entry point: global options, the table of commands, and the one place where failures become exit codes.

Imports no command and no server; `tests/unit/cli/test_startup.py` keeps it so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from cli import failures
from cli.lazy import LazyGroup
from cli.session import DEFAULT_CONTROLLER, DEFAULT_SOCKET, Session, setting
from kvnet import __version__
from kvnet.errors import Invalid, KvnetError

MAX_TOKEN = 8192
COMMANDS = {
    "network": ("cli.network:network", "Create, list, change, peer and remove networks; connect and disconnect."),
    "endpoint": ("cli.endpoint:endpoint", "List, inspect and remove endpoints: the interfaces of workloads."),
    "host": ("cli.host:host", "List, inspect and remove hosts."),
    "pool": ("cli.pool:pool", "The blocks that subnets are cut from."),
    "ipam": ("cli.ipam:ipam", "Who has which address; reserve and release."),
    "attach": ("cli.attach:attach", "Give a network namespace of this host an interface on a network."),
    "detach": ("cli.attach:detach", "Take that interface away and release its addresses."),
    "plan": ("cli.plan:plan", "What this host's worker would change in the kernel now."),
    "status": ("cli.status:status", "Is everything well? --wait until it is."),
    "check": ("cli.check:check", "Look for violated invariants in the store; --repair them."),
    "store": ("cli.store:store", "What is believed of the store; accept one that went back in time."),
    "backup": ("cli.backup:backup", "Write all that the store holds into a file; --verify one."),
    "restore": ("cli.backup:restore", "Bring a backup into a store, of whatever kind."),
    "events": ("cli.events:events", "Who changed what, and when; --watch to go on."),
    "demo": ("cli.demo:demo", "Three hosts on this machine, one overlay network, pings across."),
    "controller": ("cli.controller:controller", "Run a controller."),
    "worker": ("cli.worker:worker", "Run this host's worker."),
    "completion": ("cli.completion:completion", "Print shell completion for bash, zsh or fish."),
    "version": ("cli.version:version", "The versions of this command and of the controller."),
}


class Root(LazyGroup):
    """`kvnet` itself: turns every failure below it into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KvnetError as error:
            ctx.exit(failures.report(error, ctx.ensure_object(Session)))
        except BrokenPipeError:
            # What is still buffered has no reader: without this the interpreter complains about it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(failures.BROKEN_PIPE)


@click.group(
    cls=Root,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=failures.EXIT_CODES,
)
@setting(
    "--controller",
    member="controller",
    envvar="KVNET_CONTROLLER",
    metavar="URL",
    help=f"Controller: http(s)://HOST:PORT or unix:///PATH. [KVNET_CONTROLLER; {DEFAULT_CONTROLLER}]",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.File(),
    help="Bearer token for the controller. [or itself in KVNET_TOKEN]",
)
@setting(
    "--socket",
    member="socket",
    envvar="KVNET_SOCKET",
    metavar="PATH",
    help=f"The worker's unix socket on this host. [KVNET_SOCKET; {DEFAULT_SOCKET}]",
)
@click.version_option(__version__, "-V", "--version", prog_name="kvnet", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, token_file: TextIO | None) -> None:
    """One set of container networks over many Linux hosts.

    Data goes to stdout, messages to stderr. Every list takes -o table|wide|json|yaml|name, --filter, --sort-by and -q.
    """
    ctx.ensure_object(Session).token = _token(token_file) if token_file else os.environ.get("KVNET_TOKEN", "")


def _token(file: TextIO) -> str:
    try:
        text = file.read(MAX_TOKEN + 1)
    except ValueError:
        text = "\0"
    if len(text) > MAX_TOKEN or "\0" in text:
        raise Invalid(f"{file.name} holds no token", fix=f"one line of at most {MAX_TOKEN} characters")
    return text.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    if any("://" in one and "@" in one for one in sys.argv):
        from cli.conceal import hide_secrets

        hide_secrets()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        result = cli.main(arguments, prog_name="kvnet", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        raise SystemExit(failures.INTERRUPTED) from None
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(failures.FAILURE) from None
    raise SystemExit(result if isinstance(result, int) else failures.OK)


if __name__ == "__main__":
    main()
