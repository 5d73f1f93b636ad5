"""Where a member runs, which ports it gets there, and how the tests talk to it without any store client.

A place is an address, and the network namespace that has it (None: ours). Probes go through a socket of that namespace,
so they reach a member that is cut off from everyone else. Never retries; every exchange is bounded.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import namespaces

PROBE_SECONDS = 2.0
LOWEST_PORT = 15000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoAnswer(Exception):
    """The member did not answer, or not in time, or not what was expected."""


@dataclass(frozen=True, slots=True)
class Place:
    address: str = "127.0.0.1"
    netns: Path | None = None

    def at(self, port: int) -> str:
        return f"[{self.address}]:{port}" if ":" in self.address else f"{self.address}:{port}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        if self.netns is None:
            return socket.socket(self.family, kind)
        return namespaces.open_socket(self.netns, self.family, kind, 0)


LOOPBACK = Place()


def free_ports(places: Sequence[Place], count: int) -> list[list[int]]:
    """So many for each place: ports that nobody has now, and that the kernel gives to no outgoing connection while a
    member is down. All of them are held until the last is found, so no two members get the same one."""
    highest = int(_EPHEMERAL.read_text().split()[0]) - 1
    with ExitStack() as held:
        return [[_free_port(place, highest, held) for _ in range(count)] for place in places]


def _free_port(place: Place, highest: int, held: ExitStack) -> int:
    while True:
        port = random.randint(min(LOWEST_PORT, highest // 2), highest)
        if _take(place, port, held):
            return port


def _take(place: Place, port: int, held: ExitStack) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):  # Consul's gossip speaks both
        taken = held.enter_context(place.socket(kind))
        try:
            taken.bind((place.address, port))
        except OSError:
            return False
    return True


async def exchange(place: Place, port: int, question: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send it, and read until the other side closes.

    Raises:
        NoAnswer: why.
    """
    connection = place.socket()
    try:
        connection.setblocking(False)
        async with asyncio.timeout(PROBE_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, (place.address, port))
            name = place.address if tls else None
            reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=name)
            try:
                writer.write(question)
                return await reader.read(-1)
            finally:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()  # else the descriptor is another's while the transport has it
    except TimeoutError:
        raise NoAnswer(f"{place.at(port)} does not answer within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{place.at(port)}: {error}") from error
    finally:
        connection.close()


async def http(
    place: Place,
    port: int,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """Status and decoded JSON (None where there is none).

    Raises:
        NoAnswer: why.
    """
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.0", f"Host: {place.at(port)}", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    question = "\r\n".join([*lines, "", ""]).encode() + content
    head, _, answer = (await exchange(place, port, question, tls)).partition(b"\r\n\r\n")
    try:
        status = int(head.split(None, 2)[1])
    except (IndexError, ValueError):
        raise NoAnswer(f"{place.at(port)} speaks no HTTP: {head[:80]!r}") from None
    try:
        return status, json.loads(answer)
    except ValueError:
        return status, None
