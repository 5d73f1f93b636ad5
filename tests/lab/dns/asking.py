"""Asks for names from inside a workload's namespace, as a program there would: over its own routes, by real sockets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.message
import dns.rcode

from lab import namespaces
from lab.lab import Lab

DNS = "169.254.53.53"
PORT = 53
SECONDS = 1.0


class Silence(Exception):
    """No answer came."""


async def ask(lab: Lab, where: str, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    """Raises: Silence."""
    return await asyncio.to_thread(exchange, lab.netns_of(where), name, kind, tcp)


async def addresses(lab: Lab, where: str, name: str, kind: str = "A", *, tcp: bool = False) -> set[str]:
    """None where the name is unknown or has none of that kind. Raises: Silence."""
    response = await ask(lab, where, name, kind, tcp=tcp)
    return {item.to_text() for rrset in response.answer for item in rrset}


async def rcode(lab: Lab, where: str, name: str, kind: str = "A") -> str:
    return dns.rcode.to_text((await ask(lab, where, name, kind)).rcode())


def exchange(netns: Path, name: str, kind: str, tcp: bool) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    wire = query.to_wire()
    with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, 0) as ours:
        ours.settimeout(SECONDS)
        try:
            ours.connect((DNS, PORT))
            ours.sendall(len(wire).to_bytes(2) + wire if tcp else wire)
            data = ours.recv(65_535)[2:] if tcp else ours.recv(65_535)
        except OSError as error:
            raise Silence(f"{name}: {error}") from error
    response = dns.message.from_wire(data)
    assert query.is_response(response)
    return response
