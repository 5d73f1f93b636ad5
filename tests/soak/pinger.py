"""The bystanders' pings: an echo request every 20 ms for every pair, from inside the workloads' namespaces.

A process of its own, so that nothing the soak does keeps it from sending or listening: a pause of its own makes it
send less, never lose. Reads the pairs as JSON from stdin, says what it saw as JSON lines on stdout, all times of
the machine's monotonic clock, and ends with SIGTERM or its parent. Judges nothing.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import namespaces
from lab.ping import _checksum

EVERY_S = 0.02
PATIENCE_S = 5.0  # later than any delay on the way: a busy machine is no lost packet
TELL_EVERY_S = 1.0
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 4 << 20
ECHO, REPLY = 8, 0


@dataclass(slots=True)
class Pair:
    """`open`: when each echo without an answer was sent, by its number; `lost`: (when, why) since it was last told."""

    name: str
    address: str
    link: socket.socket
    identifier: int
    sent: int = 0
    answered: int = 0
    slowest_s: float = 0.0
    open: OrderedDict[int, float] = field(default_factory=OrderedDict)
    lost: list[tuple[float, str]] = field(default_factory=list)

    def send(self) -> None:
        self.sent += 1
        number, now = self.sent & 0xFFFF, time.monotonic()
        body = struct.pack(">HHd", self.identifier, number, now)
        checksum = _checksum(struct.pack(">BBH", ECHO, 0, 0) + body)
        try:
            self.link.sendto(struct.pack(">BBH", ECHO, 0, checksum) + body, (self.address, 0))
        except OSError as error:
            self.lost.append((now, error.strerror or str(error)))
        else:
            self.open[number] = now

    def hear(self) -> None:
        while True:
            try:
                packet, (sender, _) = self.link.recvfrom(2048)
            except BlockingIOError:
                return
            icmp = packet[(packet[0] & 0x0F) * 4 :]
            if sender != self.address or len(icmp) < 8 or icmp[0] != REPLY:
                continue
            identifier, number = struct.unpack_from(">HH", icmp, 4)
            if identifier == self.identifier and (sent := self.open.pop(number, None)) is not None:
                self.answered += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent)

    def expire(self) -> None:
        oldest = time.monotonic() - PATIENCE_S
        while self.open:
            number, sent = next(iter(self.open.items()))
            if sent > oldest:
                return
            del self.open[number]
            self.lost.append((sent, f"no answer within {PATIENCE_S:g} s"))

    def told(self) -> dict[str, Any]:
        slowest_ms, lost = round(self.slowest_s * 1e3, 1), self.lost
        self.slowest_s, self.lost = 0.0, []
        return {
            "pair": self.name,
            "at": time.monotonic(),
            "sent": self.sent,
            "answered": self.answered,
            "slowest_ms": slowest_ms,
            "lost": lost,
        }


def opened(number: int, wish: dict[str, str]) -> Pair:
    link = namespaces.open_socket(Path(wish["netns"]), socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    link.setblocking(False)
    link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    return Pair(wish["name"], wish["address"], link, (os.getpid() + number) & 0xFFFF)


def run(pairs: list[Pair], is_over: list[bool]) -> None:
    """Sends until it is over, and then listens until everything is answered or given up."""
    poll = select.poll()
    by_descriptor = {pair.link.fileno(): pair for pair in pairs}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    due = told_at = time.monotonic()
    while not is_over or any(pair.open for pair in pairs):
        now = time.monotonic()
        if now >= due:
            due = max(due + EVERY_S, now)  # after a pause: not all that was missed at once
            for pair in () if is_over else pairs:
                pair.send()
        for descriptor, _ in poll.poll(max(0.0, (due - time.monotonic()) * 1e3)):
            by_descriptor[descriptor].hear()
        if now - told_at >= TELL_EVERY_S:
            told_at = now
            tell(pairs)
    tell(pairs)


def tell(pairs: list[Pair]) -> None:
    for pair in pairs:
        pair.expire()
        sys.stdout.write(json.dumps(pair.told()) + "\n")
    sys.stdout.flush()


def main() -> None:
    is_over: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    wishes = json.loads(Path(sys.argv[1]).read_text())
    run([opened(number, wish) for number, wish in enumerate(wishes)], is_over)


if __name__ == "__main__":
    main()
