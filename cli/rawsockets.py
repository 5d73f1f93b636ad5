"""`kvnet worker raw-sockets`: opens raw sockets for a worker that may not. What its systemd unit runs."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import click

from kvnet.errors import Invalid, MissingCapability

FIRST_PASSED = 3  # sd_listen_fds(3)


@click.command("raw-sockets")
@click.option(
    "--listen-unix", type=click.Path(path_type=Path), metavar="PATH", help="Not needed where systemd passes a socket."
)
def raw_sockets(listen_unix: Path | None) -> None:
    """Open raw sockets for this host's worker, which need not have CAP_NET_RAW then.

    The worker uses them for connectivity tests, and to announce addresses that moved. It asks at
    /run/kvnet-raw.sock [KVNET_RAW_SOCKETS].
    """
    from worker.kernel.rawsockets import serve

    listening = _passed() if listen_unix is None else _bound(listen_unix)
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).close()
    except PermissionError as error:
        raise MissingCapability("this process has no CAP_NET_RAW", fix="run it as root, or by its unit") from error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(listening)


def _passed() -> socket.socket:
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise Invalid("no socket was passed", fix="start kvnet-raw.socket, or name a place with --listen-unix")
    return socket.socket(fileno=FIRST_PASSED)


def _bound(path: Path) -> socket.socket:
    if os.path.lexists(path) and not path.is_socket():
        raise Invalid(f"{path} is there and is not a socket", fix="name another path with --listen-unix")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        made.bind(str(path))
        made.listen()
    except OSError as error:
        made.close()
        raise Invalid(f"cannot listen on {path}: {error.strerror}", fix="name another path") from error
    finally:
        os.umask(mask)
    return made
