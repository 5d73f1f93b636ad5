"""One call over TCP or UDP from inside a network namespace, so that the lab needs no `nc` on the machine.

No retry: "it answered" must mean just that.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from lab import namespaces

MAX_ANSWER = 1024


async def call(netns: Path, address: str, port: int, *, protocol: str = "tcp", timeout_s: float = 2.0) -> str:
    """What is said there, without white space around it; "" if the connection closed without a word.

    Raises:
        OSError, TimeoutError: nobody answers.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    loop = asyncio.get_running_loop()
    with namespaces.open_socket(netns, family, kind, 0) as caller:
        caller.setblocking(False)
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(caller, (address, port))
            if protocol == "udp":
                await loop.sock_sendall(caller, b"?")
            return (await loop.sock_recv(caller, MAX_ANSWER)).decode().strip()
