"""What holds for one run of the command: where the controller and the worker are, and how to print.

An option beats the environment, the environment beats the profile, the profile beats the default. Filled by the options
of `kvnet` itself, overridden by the same options after a sub-command. The profile is read when something is first asked
that only it can say; the client library is imported when a command first talks to somebody, never for help.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from kvnet.errors import Invalid, KvnetError, UnexpectedAnswer

if TYPE_CHECKING:
    from kvnet.client import Client
    from kvnet.tls import Trust

P = ParamSpec("P")
Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_CONTROLLER = "http://127.0.0.1:7480"
DEFAULT_SOCKET = "/run/kvnet/worker.sock"
MAX_TOKEN = 8192
TLS_MEMBERS = ("ca", "certificate", "key")
TABLE = "table"
STDIN = "-"
REQUEST_ID = "KVNET_REQUEST_ID"
NO_SUCH_PATH = "no-such-path"  # the controller does not know a path that this command knows


class Session:
    """`given`: what options and environment said. `output` is known once a command's options are read."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self._profile: Mapping[str, str] | None = None

    @property
    def controller(self) -> str:
        if "controller" in self.given:  # also if it is empty: who says that means something, and is told
            return self.given["controller"]
        return self.profile.get("controller") or DEFAULT_CONTROLLER

    @property
    def is_controller_said(self) -> bool:
        return "controller" in self.given or bool(self.profile.get("controller"))

    @property
    def socket(self) -> str:
        return self.given.get("socket") or self.profile.get("socket") or DEFAULT_SOCKET

    @property
    def token(self) -> str:
        """Raises: Invalid: the file that has it does not hold one."""
        if "token_file" in self.given:
            return token_in(self.given["token_file"])
        if "token" in self.given:
            return self.given["token"]
        if "token_file" in self.profile:
            return token_in(self.profile["token_file"])
        return self.profile.get("token", "")

    @property
    def trust(self) -> Trust:
        """Raises: Invalid: a certificate without its key."""
        from kvnet.tls import Trust

        ca, certificate, key = (self.given.get(name) or self.profile.get(name, "") for name in TLS_MEMBERS)
        return Trust(ca, certificate, key)

    @property
    def output(self) -> str:
        return self.given.get("output") or self.profile.get("output") or TABLE

    @output.setter
    def output(self, value: str) -> None:
        self.given["output"] = value

    def choose(self, asked: str | None, forms: Sequence[str]) -> str:
        """How this command prints: as asked, else as the profile wants it if the command can; its first form else."""
        wanted = asked or self.given.get("output") or self.profile.get("output", "")
        self.output = wanted if wanted in forms else forms[0]
        return self.output

    @property
    def tells_errors_as_json(self) -> bool:
        try:
            return self.output == "json"
        except KvnetError:  # it is the profile that is broken
            return False

    @property
    def profile(self) -> Mapping[str, str]:
        """What the profile says; nothing, if there is none."""
        if self._profile is None:
            self._profile = self._read()
        return self._profile

    def _read(self) -> Mapping[str, str]:
        """
        Raises:
            NotFound: no profile has the name that was given.
            Invalid: the file is broken.
        """
        path, name = profiles_path(os.environ), self.given.get("profile", "")
        if not name and not os.path.lexists(path):
            return {}
        from cli.profiles import read

        found = read(Path(path))
        name = name or found.current
        return found.get(name, Path(path)).given() if name else {}


def profiles_path(environment: Mapping[str, str]) -> str:
    """A relative XDG_CONFIG_HOME is to be ignored, says its specification."""
    given = environment.get("XDG_CONFIG_HOME", "")
    base = given if given.startswith("/") else os.path.join(environment.get("HOME") or "/", ".config")
    return os.path.join(base, "kvnet", "profiles.toml")


def token_in(path: str) -> str:
    """Raises: Invalid."""
    try:
        with sys.stdin if path == STDIN else Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_TOKEN + 1)
    except OSError as error:
        raise Invalid(
            f"the token file {path} cannot be read: {error.strerror}", fix="name one that is there"
        ) from error
    except ValueError:
        text = "\0"
    if len(text) > MAX_TOKEN or "\0" in text:
        raise Invalid(f"{path} holds no token", fix=f"one line of at most {MAX_TOKEN} characters")
    return text.strip()


def current() -> Session:
    return click.get_current_context().ensure_object(Session)


def setting(*names: str, member: str, **options: Any) -> Callable[[Command], Command]:
    """An option that sets a member of the session instead of being handed to the command."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.ensure_object(Session).given[member] = value

    return click.option(*names, callback=remember, expose_value=False, default=None, **options)


controller_option = setting(
    "--controller", member="controller", metavar="URL", help="Controller: http(s)://HOST:PORT or unix:///PATH."
)
socket_option = setting("--socket", member="socket", metavar="PATH", help="The worker's unix socket on this host.")


def output_option(command: Command) -> Command:
    """How one thing is printed: a profile that says otherwise (`csv`) is for lists."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        ctx.ensure_object(Session).choose(value, ("table", "json", "yaml"))

    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        callback=remember,
        expose_value=False,
        help="How to print it. [table]",
    )(command)


def _of_another_version(why: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"the controller does not answer as this command expects: {why}",
        fix="compare 'kvnet version', and use the controller's version of it; if they are the same, it is a bug",
    )


def connected(body: Callable[Concatenate[Client, P], Awaitable[None]]) -> Callable[P, None]:
    """A command that talks to the controller: gets a `Client` as first argument, and the option --controller."""

    @wraps(body)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        import asyncio

        from kvnet.client import Client

        session = current()

        async def talk() -> None:
            request_id = os.environ.get(REQUEST_ID, "")
            async with Client(
                session.controller, token=session.token, trust=session.trust, request_id=request_id
            ) as client:
                try:
                    await body(client, *args, **kwargs)
                except KeyError as error:
                    raise _of_another_version(f"its answer has no {error}") from error
                except KvnetError as error:
                    if error.code != NO_SUCH_PATH:
                        raise
                    raise _of_another_version(error.detail) from error

        asyncio.run(talk())

    return controller_option(command)
