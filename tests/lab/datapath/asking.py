"""Asks the real kernel where packets end: sends all of them from where they start, and hears at every place at once.

A datagram bears its question's number, and its round's: one that waited for a neighbour may come in the next. Who hears
them has a raw socket for each family, so no port has to be open, and sees whom a packet comes from. The fabric's cables
are listened to as well: which hosts a packet was brought to, in whatever envelope.

Blocking: for a thread of its own.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from lab import namespaces

MAGIC = b"kvnet asks "
STAMP = struct.Struct("!II")  # round, number
QUIET_SECONDS = 0.15  # after so long without a packet nobody expects one
CONNECT_SECONDS = 0.4
CONNECTIONS = 1000  # at a time
BATCH = 150  # questions between two looks at what has come: sockets' buffers are small
MOST_BYTES = 2048
BUFFER = 4 << 20
ALL = 3  # ETH_P_ALL
UDP = socket.IPPROTO_UDP
VXLAN_PORT = 4789
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Question(NamedTuple):
    """`start`: the place that sends. `mark`: on the sender's socket, for its routes."""

    start: str
    to: str
    port: int
    mark: int = 0

    @property
    def version(self) -> int:
        return 6 if ":" in self.to else 4


class Arrival(NamedTuple):
    at: str
    source: str
    port: int


@dataclass(slots=True)
class Answer:
    """`arrivals`: without repetition. `brought_to`: the hosts whose cables it went out of."""

    arrivals: set[Arrival] = field(default_factory=set)
    brought_to: set[str] = field(default_factory=set)


class Asker:
    """Places, with everything that hears open. `cables`: host -> the end of its cable in the namespace "fabric"."""

    def __init__(self, places: Mapping[str, Path], cables: Mapping[str, str]) -> None:
        self._places = places
        self._stack = ExitStack()
        self._ears: dict[socket.socket, tuple[str, int]] = {}
        self._taps: dict[socket.socket, str] = {}
        self._poll = select.epoll()
        self._by_number: dict[int, socket.socket] = {}
        self._round = 0
        self._stack.callback(self._poll.close)
        for place in places:
            if place != "fabric":
                for version in FAMILIES:
                    self._ears[self._open(place, FAMILIES[version], socket.SOCK_RAW, UDP)] = (place, version)
        for host, cable in cables.items():
            tap = self._open("fabric", socket.AF_PACKET, socket.SOCK_RAW, 0)
            tap.bind((cable, ALL))
            self._taps[tap] = host

    def close(self) -> None:
        self._stack.close()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """All at once; each answer is where the packet of its question was heard."""
        answers = [Answer() for _ in questions]
        self._drain([], 0.0)
        self._round += 1
        with ExitStack() as stack:
            senders: dict[tuple[str, int, int], socket.socket] = {}
            for number, question in enumerate(questions):
                key = (question.start, question.version, question.mark)
                if key not in senders:
                    senders[key] = stack.enter_context(self._sender(question, socket.SOCK_DGRAM))
                with contextlib.suppress(OSError):  # no route: it does not arrive, which is the answer
                    senders[key].sendto(MAGIC + STAMP.pack(self._round, number), (question.to, question.port))
                if number % BATCH == BATCH - 1:
                    self._drain(answers, 0.0)
            self._drain(answers, QUIET_SECONDS)
        return answers

    def converse(self, questions: Sequence[Question]) -> list[bool]:
        """Whether a connection is answered (nobody listens, so the answer is a refusal): both ways work."""
        found: list[bool] = []
        for first in range(0, len(questions), CONNECTIONS):
            found += self._connect(questions[first : first + CONNECTIONS])
        return found

    def _connect(self, questions: Sequence[Question]) -> list[bool]:
        answered = [False] * len(questions)
        with ExitStack() as stack, contextlib.closing(select.epoll()) as poll:
            places: dict[int, tuple[int, socket.socket]] = {}
            for number, question in enumerate(questions):
                caller = stack.enter_context(self._sender(question, socket.SOCK_STREAM))
                error = caller.connect_ex((question.to, question.port))
                answered[number] = error == errno.ECONNREFUSED
                if error == errno.EINPROGRESS:
                    places[caller.fileno()] = number, caller
                    poll.register(caller, select.EPOLLOUT)
            while ready := poll.poll(CONNECT_SECONDS):
                for descriptor, _ in ready:
                    number, caller = places.pop(descriptor)
                    answered[number] = caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
                    poll.unregister(caller)
        return answered

    def _open(self, place: str, family: int, kind: int, protocol: int) -> socket.socket:
        made = self._stack.enter_context(namespaces.open_socket(self._places[place], family, kind, protocol))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._by_number[made.fileno()] = made
        self._poll.register(made, select.EPOLLIN)
        return made

    def _sender(self, question: Question, kind: int) -> socket.socket:
        made = namespaces.open_socket(self._places[question.start], FAMILIES[question.version], kind, 0)
        made.setblocking(False)
        if question.mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, question.mark)
        return made

    def _drain(self, answers: list[Answer], quiet_s: float) -> None:
        """Until nothing came for so long."""
        last = time.monotonic()
        while True:
            ready = self._poll.poll(max(0.0, last + quiet_s - time.monotonic()))
            if not ready:
                return
            for number, _ in ready:
                if self._take_all(self._by_number[number], answers):
                    last = time.monotonic()

    def _take_all(self, ear: socket.socket, answers: list[Answer]) -> bool:
        """Whether one was of these questions."""
        found = False
        for data, sender in _received(ear):
            number = _number_of(data, self._round)
            if number is None or number >= len(answers):
                continue
            host = self._taps.get(ear)
            if host is not None:
                if sender[2] == socket.PACKET_OUTGOING:
                    answers[number].brought_to.add(host)
                    found = True
                continue
            place, version = self._ears[ear]
            header = (data[0] & 15) * 4 if version == 4 else 0
            (port,) = struct.unpack_from("!H", data, header + 2)
            if port != VXLAN_PORT:
                source = str(ip_address(data[12:16])) if version == 4 else sender[0].split("%")[0]
                answers[number].arrivals.add(Arrival(place, source, port))
                found = True
        return found


def _received(ear: socket.socket) -> Iterator[tuple[bytes, tuple[str, int, int]]]:
    while True:
        try:
            yield ear.recvfrom(MOST_BYTES)
        except OSError:
            return


def _number_of(data: bytes, in_round: int) -> int | None:
    at = data.find(MAGIC)
    if at < 0 or len(data) < at + len(MAGIC) + STAMP.size:
        return None
    asked_in, number = STAMP.unpack_from(data, at + len(MAGIC))
    return int(number) if asked_in == in_round else None
