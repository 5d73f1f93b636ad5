"""Listening sockets, or a clear reason why there is none.

Bound before anything else of a controller starts, so that a wrong address touches no store.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from kvnet.errors import Invalid, KvnetError, MissingCapability, PortInUse

BACKLOG = 2048
SOCKET_MODE = 0o600
PROBE_S = 0.5


def bind_tcp(listen: str) -> socket.socket:
    """A listening socket on HOST:PORT."""
    host, port = parse_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise Invalid(
            f"{host!r} is not an address of this machine: {error.strerror}", fix="--listen HOST:PORT"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(f"{host}:{port}", error) from error
    sock.setblocking(False)
    return sock


def parse_listen(listen: str) -> tuple[str, int]:
    """Raises: Invalid if it is not HOST:PORT, [IPv6]:PORT or PORT."""
    host, colon, port = listen.rpartition(":")
    bare = host.strip("[]") if host.startswith("[") and host.endswith("]") else host
    wrong = (":" in bare and bare == host) or (colon and not bare)
    if wrong or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"{listen!r} is not an address to listen on", fix="like 127.0.0.1:7480, [::1]:7480 or 7480")
    return bare or "127.0.0.1", int(port)


def bind_unix(path: Path) -> socket.socket:
    """A listening socket file, for its owner only. A dead one in the way is replaced, a living one is not."""
    if len(os.fsencode(path)) > 107:
        raise Invalid(f"{str(path)!r} is too long for a socket file", fix="at most 107 bytes")
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment on, not after a chmod.
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(str(path), error) from error
    finally:
        os.umask(mask)
    sock.setblocking(False)
    return sock


def _clear(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return
    if not is_socket:
        raise PortInUse(f"{path} is there and is not a socket", fix="name another path with --listen-unix")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _bind_error(str(path), error) from error
        else:
            raise PortInUse(
                f"another process answers on {path}", fix="stop it, or name another path with --listen-unix"
            )


def _bind_error(where: str, error: OSError) -> KvnetError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortInUse(
                f"{where} is in use by another process",
                fix="stop it (perhaps a controller that runs already), or choose another with --listen HOST:PORT",
            )
        case errno.EACCES | errno.EPERM:
            return MissingCapability(
                f"this user may not listen on {where}", fix="choose a port above 1023 or a path that it may write"
            )
        case errno.EADDRNOTAVAIL:
            return Invalid(f"{where} is not an address of this machine", fix="'ip address' shows those that are")
        case errno.ENOENT | errno.ENOTDIR:
            return Invalid(f"the directory of {where} does not exist", fix="make it first")
        case _:
            return Invalid(f"cannot listen on {where}: {error.strerror}", fix="choose another address")
