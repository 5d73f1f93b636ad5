"""`python -m tests.input.junk PORT --rate N --seconds S`: so many requests a second that nobody should make.

Pipelined over a few connections, as fast as the server takes them up to the rate; one it hangs up on is opened again.
Says at the end, as JSON, how many were sent, what was answered, and by which status.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from collections import Counter

ASKED = (
    b"GET /v1/networks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer kvnet_0123456789ab_" + b"A" * 43 + b"\r\n\r\n",
    b"GET /v1/nothing/like/this HTTP/1.1\r\nhost: x\r\n\r\n",
    b'POST /v1/networks HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"name":1',
    b"DELETE /v1/networks/%2e%2e%2f HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/networks?limit=-1&cursor=!! HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/store/commit HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n[[[",
    b"PATCH /v1/networks/x HTTP/1.1\r\nhost: x\r\nx-kvnet-actor: \x01\r\ncontent-length: 2\r\n\r\n{}",
    b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
)
TORN = (
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/9\r\n\r\n",
    b"\0" * 64,
    b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
)
BATCH = 32
TICK_S = 0.002


class Line:
    """One connection; opened again when the other side ends it."""

    def __init__(self, port: int, number: int, selector: selectors.BaseSelector) -> None:
        self.port, self.number, self.selector = port, number, selector
        self.sock: socket.socket | None = None
        self.sent = self.opened = 0
        self.left = b""

    def open(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.sock.setblocking(False)
        self.selector.register(self.sock, selectors.EVENT_READ, self)
        self.opened += 1
        self.left = b""

    def close(self) -> None:
        if self.sock is not None:
            self.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def send(self, count: int) -> int:
        """How many went out whole."""
        try:
            if self.sock is None:
                self.open()
            assert self.sock is not None
            if not self.left:
                is_torn = self.number % 8 == 7
                choice = TORN if is_torn else ASKED
                number = 1 if is_torn else count
                self.left = b"".join(choice[(self.sent + n) % len(choice)] for n in range(number))
                self.sent += number
            else:
                number = 0
            self.left = self.left[self.sock.send(self.left) :]
            return number
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return 0

    def receive(self, seen: Counter[str]) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for part in data.split(b"HTTP/1.1 ")[1:]:
            seen[part[:3].decode("latin-1")] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=32)
    asked = parser.parse_args()
    selector = selectors.DefaultSelector()
    lines = [Line(asked.port, number, selector) for number in range(asked.connections)]
    seen: Counter[str] = Counter()
    sent, turn, began = 0, 0, time.monotonic()
    while (now := time.monotonic() - began) < asked.seconds:
        due = int(now * asked.rate)
        tried = 0
        while sent < due and tried < len(lines):
            sent += lines[turn % len(lines)].send(min(BATCH, due - sent))
            turn, tried = turn + 1, tried + 1
        for key, _ in selector.select(TICK_S):
            key.data.receive(seen)
    opened = sum(line.opened for line in lines)
    print(json.dumps({"sent": sent, "seconds": round(now, 2), "opened": opened, "answered": dict(seen)}), flush=True)


if __name__ == "__main__":
    main()
