"""The entry point: global options, the table of commands, and the one place where failures become exit codes.

Imports no command and no server; `tests/unit/cli/test_startup.py` keeps it so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from cli import colour, failures
from cli.lazy import LazyGroup
from cli.session import DEFAULT_CONTROLLER, DEFAULT_SOCKET, Session, setting
from kvnet import __version__
from kvnet.errors import KvnetError

FORMS = ("table", "wide", "json", "yaml", "name", "csv")
COMMANDS = {
    "network": ("cli.network:network", "Create, list, change, peer and remove networks; connect and disconnect."),
    "endpoint": ("cli.endpoint:endpoint", "List, inspect and remove endpoints: the interfaces of workloads."),
    "host": ("cli.host:host", "List, inspect and remove hosts."),
    "pool": ("cli.pool:pool", "The blocks that subnets are cut from."),
    "hold": ("cli.hold:hold", "Subnets that are kept for networks about to be made."),
    "ipam": ("cli.ipam:ipam", "Who has which address; reserve and release."),
    "attach": ("cli.attach:attach", "Give a network namespace of this host an interface on a network."),
    "detach": ("cli.attach:detach", "Take that interface away and release its addresses."),
    "plan": ("cli.plan:plan", "What this host's worker would change in the kernel now."),
    "wait": ("cli.wait:wait", "Wait until things are ready, converged or deleted."),
    "status": ("cli.status:status", "Is everything well? --wait until it is."),
    "connectivity": ("cli.connectivity:connectivity", "Who reaches whom: hosts and endpoints, both ways."),
    "doctor": ("cli.doctor:doctor", "Examine this host, or others: what is wrong, and what to do."),
    "trace": ("cli.trace:trace", "The way of a packet between two endpoints, hop by hop, and where it ends."),
    "check": ("cli.check:check", "Look for violated invariants in the store; --repair them."),
    "store": ("cli.store:store", "What is believed of the store; accept one that went back in time."),
    "upgrade": ("cli.upgrade:upgrade", "Who speaks which schema; end an upgrade."),
    "backup": ("cli.backup:backup", "Write all that the store holds into a file; --verify one."),
    "restore": ("cli.backup:restore", "Bring a backup into a store, of whatever kind."),
    "events": ("cli.events:events", "Who changed what, and when; --watch to go on."),
    "audit": ("cli.audit:audit", "Who did what, and is the journal as it was written? Export it."),
    "explain": ("cli.explain:explain", "What the code of an error means."),
    "demo": ("cli.demo:demo", "Three hosts on this machine, one overlay network, pings across."),
    "controller": ("cli.controller:controller", "Run a controller."),
    "worker": ("cli.worker:worker", "Run this host's worker."),
    "ca": ("cli.ca:ca", "A small CA of your own: certificates for controllers and hosts."),
    "token": ("cli.token:token", "Tokens: who may ask what; create, list, rotate and remove them."),
    "auth": ("cli.auth:auth", "Whether the cluster asks who asks."),
    "whoami": ("cli.auth:whoami", "Who the controller takes you for, and what you may do."),
    "login": ("cli.login:login", "Keep a controller's address, CA and token in a profile."),
    "profile": ("cli.profile:profile", "Names for controllers, kept in a file of yours."),
    "completion": ("cli.completion:completion", "Print shell completion for bash, zsh or fish."),
    "version": ("cli.version:version", "The versions of this command and of the controller."),
}


def suggest_profiles(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from cli import suggest

    return suggest.profiles(ctx, _parameter, incomplete)


class Root(LazyGroup):
    """`kvnet` itself: turns every failure below it into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KvnetError as error:
            ctx.exit(failures.report(error, ctx.ensure_object(Session)))
        except BrokenPipeError:
            _forget_output()
            ctx.exit(failures.BROKEN_PIPE)


def _forget_output() -> None:
    """What is still buffered can go nowhere: without this the interpreter says so at its end, and exits with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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
@setting(
    "--token-file",
    member="token_file",
    envvar="KVNET_TOKEN_FILE",
    metavar="FILE",
    help="Bearer token for the controller. [KVNET_TOKEN_FILE, or itself in KVNET_TOKEN]",
)
@setting(
    "--ca-file",
    member="ca",
    envvar="KVNET_CA",
    metavar="FILE",
    help="Trust controllers of this CA only. [KVNET_CA; those that this machine trusts]",
)
@setting(
    "--certificate",
    member="certificate",
    envvar="KVNET_CERTIFICATE",
    metavar="FILE",
    help="Show the controller this certificate. [KVNET_CERTIFICATE]",
)
@setting("--key", member="key", envvar="KVNET_KEY", metavar="FILE", help="The key of that certificate. [KVNET_KEY]")
@setting(
    "--socket",
    member="socket",
    envvar="KVNET_SOCKET",
    metavar="PATH",
    help=f"The worker's unix socket on this host. [KVNET_SOCKET; {DEFAULT_SOCKET}]",
)
@setting(
    "--profile",
    member="profile",
    envvar="KVNET_PROFILE",
    metavar="NAME",
    shell_complete=suggest_profiles,
    help="Where things are, as 'kvnet profile set' was told. [KVNET_PROFILE; the current one]",
)
@click.version_option(__version__, "-V", "--version", prog_name="kvnet", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One set of container networks over many Linux hosts.

    Data goes to stdout, messages to stderr. Every list takes -o table|wide|json|yaml|name|csv, --filter, --sort-by,
    --columns, --watch and -q.
    """
    session = ctx.ensure_object(Session)
    form = os.environ.get("KVNET_OUTPUT", "")
    if form and form not in FORMS:
        raise click.UsageError(f"KVNET_OUTPUT is {form!r}; there are {', '.join(FORMS)}")
    if form:
        session.output = form
    if "KVNET_TOKEN" in os.environ and "token_file" not in session.given:
        session.given["token"] = os.environ["KVNET_TOKEN"]
    # What is styled by decision of `cli.colour` must not be taken out again where stdout is no terminal.
    ctx.color = colour.wanted(sys.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    is_server = "controller" in sys.argv or "worker" in sys.argv
    if is_server or any("://" in one and "@" in one for one in sys.argv):
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
    except BrokenPipeError:
        _forget_output()
        raise SystemExit(failures.BROKEN_PIPE) from None
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        _forget_output()
        raise SystemExit(failures.FAILURE) from None
    raise SystemExit(result if isinstance(result, int) else failures.OK)


if __name__ == "__main__":
    main()
