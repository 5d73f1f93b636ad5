"""What holds for one run of the command: where the controller and the worker are, and how to print.

Filled by the options of `kvnet` itself, overridden by the same options after a sub-command. The client library is
imported when a command first talks to somebody, never for help.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from kvnet.client import Client

P = ParamSpec("P")
Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_CONTROLLER = "http://127.0.0.1:7480"
DEFAULT_SOCKET = "/run/kvnet/worker.sock"


@dataclass(slots=True)
class Session:
    """`output` is known once a command's options are read; errors follow it."""

    controller: str = DEFAULT_CONTROLLER
    token: str = ""
    socket: str = DEFAULT_SOCKET
    output: str = "table"


def current() -> Session:
    return click.get_current_context().ensure_object(Session)


def setting(*names: str, member: str, **options: Any) -> Callable[[Command], Command]:
    """An option that sets a member of the session instead of being handed to the command."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Session), member, value)

    return click.option(*names, callback=remember, expose_value=False, default=None, **options)


controller_option = setting(
    "--controller", member="controller", metavar="URL", help="Controller: http(s)://HOST:PORT or unix:///PATH."
)
socket_option = setting("--socket", member="socket", metavar="PATH", help="The worker's unix socket on this host.")
output_option = setting(
    "-o", "--output", member="output", type=click.Choice(["table", "json", "yaml"]), help="How to print it."
)


def connected(body: Callable[Concatenate[Client, P], Awaitable[None]]) -> Callable[P, None]:
    """A command that talks to the controller: gets a `Client` as first argument, and the option --controller."""

    @wraps(body)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        import asyncio

        from kvnet.client import Client

        session = current()

        async def talk() -> None:
            async with Client(session.controller, token=session.token) as client:
                await body(client, *args, **kwargs)

        asyncio.run(talk())

    return controller_option(command)
