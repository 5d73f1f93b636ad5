"""Packet and raw sockets, which take a capability that a worker need not have: CAP_NET_RAW.

Opened here where the kernel lets us; else asked of `kvnet worker raw-sockets`, a program with that capability and no
other work, over its socket file. It is given the namespace by descriptor and gives the socket back the same way. What
a socket is then used for is the worker's affair, as ever. Blocking, for a moment; for threads.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from contextlib import suppress

from worker.kernel.namespaces import OWN, entered

PLACE = "/run/kvnet-raw.sock"
VARIABLE = "KVNET_RAW_SOCKETS"
PATIENCE_S = 2.0
LONGEST = 256
FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
RAW_PROTOCOLS = frozenset({socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6, socket.IPPROTO_RAW})
IP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})
DESCRIPTOR = struct.calcsize("i")


def open_raw(family: int, kind: int, protocol: int) -> socket.socket:
    """In the calling thread's namespace; closed on exec, never blocks.

    Raises:
        PermissionError: the kernel does not let us, and nobody opens it for us.
        OSError
    """
    try:
        return socket.socket(family, kind | FLAGS, protocol)
    except PermissionError as refusal:
        place = os.environ.get(VARIABLE, PLACE)
        if not place or not os.path.exists(place):
            raise
        try:
            return _asked(place, family, kind, protocol)
        except (ConnectionError, TimeoutError, FileNotFoundError) as error:
            raise PermissionError(errno.EPERM, f"nobody opens raw sockets at {place}: {error}") from refusal


def _asked(place: str, family: int, kind: int, protocol: int) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as line:
        line.settimeout(PATIENCE_S)
        line.connect(place)
        own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            wish = json.dumps([family, kind, protocol]).encode()
            line.sendmsg([wish], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [own]))])
        finally:
            os.close(own)
        told, given = received(line)
    if not given:
        number = int(told or b"0") or errno.EPERM
        raise OSError(number, os.strerror(number), "raw socket")
    made = socket.socket(fileno=given[0])
    made.setblocking(False)
    return made


def received(line: socket.socket) -> tuple[bytes, list[int]]:
    """A message, and the descriptors that came with it. Raises: OSError, TimeoutError."""
    data, ancillary, _, _ = line.recvmsg(LONGEST, socket.CMSG_SPACE(4 * DESCRIPTOR), socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) // DESCRIPTOR * DESCRIPTOR])
    return data, list(found)


# The other side


def serve(listening: socket.socket) -> None:
    """Opens sockets for who runs as the same user, one request a connection, until it is told to end."""
    listening.setblocking(True)
    while True:
        line, _ = listening.accept()
        with line, suppress(OSError, TimeoutError, ValueError):
            line.settimeout(PATIENCE_S)
            _answer(line)


def _answer(line: socket.socket) -> None:
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    data, given = received(line)
    try:
        if struct.unpack("3i", credentials)[1] != os.geteuid():
            line.send(str(errno.EPERM).encode())
            return
        family, kind, protocol = _wish(data)
        with _opened(given, family, kind, protocol) as made:
            line.sendmsg([b"0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
    except OSError as error:
        line.send(str(error.errno or errno.EIO).encode())
    except (ValueError, TypeError):
        line.send(str(errno.EINVAL).encode())
    finally:
        for descriptor in given:
            os.close(descriptor)


def _wish(data: bytes) -> tuple[int, int, int]:
    """Raises: ValueError, TypeError: not what a worker asks for."""
    family, kind, protocol = json.loads(data)
    is_packet = family == socket.AF_PACKET and kind in (socket.SOCK_RAW, socket.SOCK_DGRAM)
    is_raw = family in IP_FAMILIES and kind == socket.SOCK_RAW and protocol in RAW_PROTOCOLS
    if not (is_packet or is_raw) or not 0 <= int(protocol) <= 0xFFFF:
        raise ValueError("not such a socket")
    return family, kind, int(protocol)


def _opened(given: list[int], family: int, kind: int, protocol: int) -> socket.socket:
    """In the namespace given, which is not kept."""
    if len(given) != 1:
        raise ValueError("one namespace")
    with entered(given[0]):
        return socket.socket(family, kind | FLAGS, protocol)
