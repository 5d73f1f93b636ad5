"""Asks the host's resolvers what is not ours to say, and hands their answers on as they are.

From the host, so that a resolver on its loopback works too. Over UDP for who asked over UDP: an answer too long for
that comes back cut, and whoever gets it asks again over TCP. Every wait is bounded; a resolver that kept silent is
asked last for a while. Never asks ourselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.ports import Time

PORT = 53
MOST_RESOLVERS = 3  # as libc: MAXNS of resolv.h
PATIENCE_S = 2.0  # for all of it
TURN_S = 0.5  # before the next one is asked too
HURRY_S = 0.6  # for all of it while all of them kept silent a moment ago
SILENT_S = 5.0
LOOK_S = 0.5  # between two looks at the file
MOST_BYTES = 65_535
HEADER, ID, QR, RCODE_PLACE, RCODE = 12, 2, 0x80, 3, 0x0F
HELPLESS = (2, 5)  # SERVFAIL, REFUSED: another one may know better
LENGTH = struct.Struct("!H")

Place = tuple[int, Any]  # family, socket address


@dataclass(slots=True)
class Resolvers:
    """The nameservers of a resolv.conf, read again when the file is another. `own`: where we answer ourselves."""

    path: Path
    own: Collection[tuple[str, int]]
    clock: Callable[[], float]
    port: int = PORT
    _places: list[Place] = field(default_factory=list)
    _mark: tuple[int, int, int] | None = None
    _looked_at: float = float("-inf")

    def current(self) -> list[Place]:
        now = self.clock()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        return self._places

    def _look(self) -> None:
        try:
            found = os.stat(self.path)
            mark = (found.st_mtime_ns, found.st_ino, found.st_size)
            if mark != self._mark:
                text = self.path.read_text(errors="replace")
                self._places = [
                    p for n in nameservers(text) if (n, self.port) not in self.own and (p := self._place(n))
                ]
                self._mark = mark
        except OSError:
            self._places, self._mark = [], None

    def _place(self, name: str) -> Place | None:
        try:
            found = socket.getaddrinfo(name, self.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return None
        family, _, _, _, address = found[0]
        return family, address


def nameservers(text: str) -> list[str]:
    """Of a resolv.conf's text, in its order."""
    words = (line.split() for line in text.splitlines())
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return list(dict.fromkeys(found))[:MOST_RESOLVERS]


class Forwarder:
    def __init__(self, resolvers: Resolvers, time: Time) -> None:
        self._resolvers = resolvers
        self._time = time
        self._silent_until: dict[Place, float] = {}

    @property
    def is_silent(self) -> bool:
        """There is no resolver, or none that did not keep silent a moment ago."""
        now = self._time.monotonic()
        return all(self._silent_until.get(place, 0.0) > now for place in self._resolvers.current())

    async def ask(self, data: bytes, *, over_tcp: bool = False, patience_s: float = PATIENCE_S) -> bytes | None:
        """The answer of the first resolver that has one, else any that came; None: nobody answered in time."""
        places = self._in_order()
        if not places:
            return None
        patience = min(patience_s, HURRY_S) if self.is_silent else patience_s
        last: bytes | None = None
        waiting, asking = [*places, *places], set[asyncio.Task[bytes | None]]()
        try:
            async with asyncio.timeout(patience):
                while waiting or asking:
                    if waiting:
                        asking.add(asyncio.create_task(self._one(waiting.pop(0), data, over_tcp=over_tcp)))
                    turn_s = TURN_S if waiting else None
                    done, asking = await asyncio.wait(asking, timeout=turn_s, return_when=asyncio.FIRST_COMPLETED)
                    for answer in (task.result() for task in done):
                        if answer is not None and answer[RCODE_PLACE] & RCODE not in HELPLESS:
                            return answer
                        last = answer or last
        except TimeoutError:
            pass
        finally:
            for task in asking:
                task.cancel()
        return last

    def _in_order(self) -> list[Place]:
        now, places = self._time.monotonic(), self._resolvers.current()
        return sorted(places, key=lambda place: self._silent_until.get(place, 0.0) > now)

    async def _one(self, place: Place, data: bytes, *, over_tcp: bool) -> bytes | None:
        """Under an id of our own, from a port of its own: whoever wants to answer in its stead has to guess both."""
        number = LENGTH.pack(self._time.rng.getrandbits(16))
        exchange = _over_tcp if over_tcp else _over_udp
        began, answer = self._time.monotonic(), None
        try:
            with contextlib.suppress(OSError):
                answer = await exchange(place, number + data[ID:])
        finally:
            now = self._time.monotonic()
            if answer is not None:
                self._silent_until.pop(place, None)
            elif now - began >= TURN_S:
                self._silent_until[place] = now + SILENT_S
        return None if answer is None else data[:ID] + answer[ID:]


async def _over_udp(place: Place, data: bytes) -> bytes | None:
    loop, (family, address) = asyncio.get_running_loop(), place
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ours:
        ours.connect(address)
        await loop.sock_sendall(ours, data)
        while True:
            answer = await loop.sock_recv(ours, MOST_BYTES)
            if is_answer(answer, data):
                return answer


async def _over_tcp(place: Place, data: bytes) -> bytes | None:
    loop, (family, address) = asyncio.get_running_loop(), place
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ours:
        await loop.sock_connect(ours, address)
        await loop.sock_sendall(ours, LENGTH.pack(len(data)) + data)
        head = await _exactly(ours, LENGTH.size)
        answer = await _exactly(ours, LENGTH.unpack(head)[0])
        return answer if is_answer(answer, data) else None


async def _exactly(ours: socket.socket, size: int) -> bytes:
    """Raises: ConnectionResetError: the other side ended too early."""
    loop, parts, missing = asyncio.get_running_loop(), list[bytes](), size
    while missing:
        part = await loop.sock_recv(ours, missing)
        if not part:
            raise ConnectionResetError("the resolver hung up")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def is_answer(answer: bytes, data: bytes) -> bool:
    """Whether it is one to that question. One that tells a failure need not repeat the question."""
    if len(answer) < HEADER or answer[:ID] != data[:ID] or not answer[ID] & QR:
        return False
    end = HEADER
    while end < len(data) and data[end]:
        end += data[end] + 1
    end += 5  # the last label, type and class
    is_bare = answer[4:6] == b"\0\0" and bool(answer[RCODE_PLACE] & RCODE)
    return is_bare or answer[HEADER:end].lower() == data[HEADER:end].lower()
