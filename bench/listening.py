"""Many readers of one event stream, in a process of their own: `python -m bench.listening PORT READERS STUCK SECONDS`.

Says "ready" when every reader has its first bookmark, then listens for so long, and prints one JSON object: when each
reader had which revision (nanoseconds of the monotonic clock, which all processes of a machine share). Stuck ones
connect, and never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
import time
from typing import cast

import uvloop

ASK = b"GET /v1/events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
TOLD = re.compile(rb"event: (change|bookmark)\ndata: [^\n]*\n(?:id: (\d+)\n)?\n")
CONNECTED_AT_ONCE = 50


class Reader(asyncio.Protocol):
    """`seen`: the revisions with an id, and when they came. `changes`: how many were told, with an id or without."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.changes = 0
        self.is_ready = asyncio.Event()
        self.is_over = asyncio.Event()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(ASK)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        text = self._rest + data
        end = 0
        for found in TOLD.finditer(text):
            end = found.end()
            if found[1] == b"bookmark":
                self.is_ready.set()
                continue
            self.changes += b'"kind":"endpoint.' in found[0]
            if found[2]:
                self.seen.append((int(found[2]), now))
        self._rest = text[end:]

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over.set()


async def _stuck(port: int) -> socket.socket:
    """Takes what the kernel takes for it, and as little as may be."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(one, ("127.0.0.1", port))
    await loop.sock_sendall(one, ASK)
    return one


async def main(port: int, readers: int, stuck: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    made: list[Reader] = []
    while len(made) < readers:
        batch = min(CONNECTED_AT_ONCE, readers - len(made))
        connected = await asyncio.gather(*(loop.create_connection(Reader, "127.0.0.1", port) for _ in range(batch)))
        made += [reader for _, reader in connected]
    held = [await _stuck(port) for _ in range(stuck)]
    for reader in made:
        await reader.is_ready.wait()
    print("ready", flush=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for reader in made:
                await reader.is_over.wait()
    print(json.dumps({"seen": [r.seen for r in made], "changes": [r.changes for r in made]}))
    for one in held:
        one.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
