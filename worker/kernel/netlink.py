"""A netlink socket that packs many requests into one send and waits once.

A library call per entry costs 40 to 130 times as much (docs/decisions). The kernel works inside `send`, also on a
non-blocking socket, so this belongs into the kernel thread and never onto the event loop. Knows the framing and
nothing of what the messages mean.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from worker.kernel.namespaces import entered

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1

HEADER = Struct("=IHHII")
ATTRIBUTE = Struct("=HH")
ERRNO = Struct("=i")
HEADER_SIZE = HEADER.size
TYPE_MASK = 0x3FFF
PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

RECEIVE_BYTES = 1 << 17
SOCKET_BUFFER = 4 << 20
# One send's answers must fit into the receive buffer even if every message of it fails.
BATCH_BYTES = 64 << 10
BATCH_MESSAGES = 1024
ANSWER_TIMEOUT_S = 15.0
DUMP_ATTEMPTS = 20
SEND_ATTEMPTS = 10
SEND_PAUSE_S = 0.01
ANSWER_LOST = "the kernel's answer was lost"
NOT_UNDERSTOOD = "what the kernel told is not understood"


class Message(NamedTuple):
    """A request: its type, its NLM_F_ flags beyond REQUEST and ACK, and what follows the header."""

    type: int
    flags: int
    body: bytes


class Refusal(NamedTuple):
    """The kernel's no to one message of a batch. `place` is the message's place in it; `text` its words, if any."""

    place: int
    errno: int
    text: str


def open_socket(protocol: int, namespace: int | None = None, groups: int = 0) -> socket.socket:
    """A bound netlink socket that lives in the namespace (a descriptor) for its whole life."""
    with entered(namespace):
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        made.bind((0, groups))
    except OSError:
        made.close()
        raise
    return made


def widen(made: socket.socket, size: int) -> None:
    """Raise both buffers beyond the host's limit where we may, up to it where not."""
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            made.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, plain, size)


class Netlink:
    """Requests and dumps over one socket. Not thread-safe: one thread owns it."""

    def __init__(self, protocol: int = NETLINK_ROUTE, namespace: int | None = None, *, small: bool = False) -> None:
        self._socket = open_socket(protocol, namespace)
        self._sequence = 0
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        if not small:
            widen(self._socket, SOCKET_BUFFER)
        self._socket.settimeout(ANSWER_TIMEOUT_S)

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message]) -> list[Refusal]:
        """Send all, in order; a refused one does not stop the rest. Returns the refusals.

        A message whose answer was lost is reported with ENOBUFS: it may or may not have been done.
        """
        refusals: list[Refusal] = []
        start = 0
        while start < len(messages):
            end, packed = self._pack(messages, start)
            self._exchange(packed, start, end, refusals)
            start = end
        return refusals

    def one(self, message: Message) -> Refusal | None:
        return next(iter(self.request((message,))), None)

    def get(self, message: Message) -> bytes | None:
        """Ask for a single object: its body, or None where there is no such object."""
        self._sequence += 1
        wanted = self._sequence
        length = HEADER_SIZE + len(message.body)
        header = HEADER.pack(length, message.type, message.flags | NLM_F_REQUEST, wanted, 0)
        self._send(header + message.body)
        while True:
            data = self._receive()
            if data is None:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            length, kind, _, sequence, _ = HEADER.unpack_from(data, 0)
            if sequence != wanted:
                continue
            if kind != NLMSG_ERROR:
                return data[HEADER_SIZE:length]
            number = -ERRNO.unpack_from(data, HEADER_SIZE)[0]
            if number in (errno.ENODEV, errno.ENOENT):
                return None
            raise OSError(number, os.strerror(number))

    def dump(self, message: Message) -> list[bytes]:
        """All objects that the request selects, as message bodies, from one consistent pass of the kernel.

        Raises:
            OSError: the kernel refused, does not answer (ETIMEDOUT), or its tables changed at every attempt (EBUSY).
        """
        for _ in range(DUMP_ATTEMPTS):
            bodies = self._dump_once(message)
            if bodies is not None:
                return bodies
        raise OSError(errno.EBUSY, "the kernel's tables changed each time they were read")

    def _pack(self, messages: Sequence[Message], start: int) -> tuple[int, bytes]:
        pieces: list[bytes] = []
        size = 0
        pack = HEADER.pack
        sequence = self._sequence
        end = min(len(messages), start + BATCH_MESSAGES)
        index = start
        while index < end and size < BATCH_BYTES:
            kind, flags, body = messages[index]
            sequence += 1
            index += 1
            length = HEADER_SIZE + len(body)
            pieces.append(pack(length, kind, flags | NLM_F_REQUEST, sequence, 0))
            pieces.append(body)
            pieces.append(PADDING[length & 3])
            size += length
        # Only the last one asks for an acknowledgement: a refusal is told anyway, and this one ends the wait.
        pieces[-3] = pack(length, kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, 0)
        self._sequence = sequence
        return index, b"".join(pieces)

    def _exchange(self, packed: bytes, start: int, end: int, refusals: list[Refusal]) -> None:
        last = self._sequence
        first = last - (end - start) + 1
        self._send(packed)
        while True:
            data = self._receive()
            if data is None:
                self._drain()
                answered = {refusal.place for refusal in refusals}
                refusals += [Refusal(i, errno.ENOBUFS, ANSWER_LOST) for i in range(start, end) if i not in answered]
                return
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
                if length < HEADER_SIZE:
                    raise OSError(errno.EBADMSG, NOT_UNDERSTOOD)
                if kind == NLMSG_ERROR and first <= sequence <= last:
                    number = -ERRNO.unpack_from(data, offset + HEADER_SIZE)[0]
                    if number:
                        text = extended_text(data, offset, length, flags)
                        refusals.append(Refusal(start + sequence - first, number, text))
                    if sequence == last:
                        return
                offset += (length + 3) & ~3

    def _dump_once(self, message: Message) -> list[bytes] | None:
        self._sequence += 1
        wanted = self._sequence
        flags = message.flags | NLM_F_REQUEST | NLM_F_DUMP
        length = HEADER_SIZE + len(message.body)
        self._send(HEADER.pack(length, message.type, flags, wanted, 0) + message.body)
        bodies: list[bytes] = []
        append = bodies.append
        unpack = HEADER.unpack_from
        interrupted = 0
        while True:
            data = self._receive()
            if data is None:
                self._drain()
                return None
            offset, size = 0, len(data)
            while offset < size:
                length, kind, flags, sequence, _ = unpack(data, offset)
                if length < HEADER_SIZE:
                    raise OSError(errno.EBADMSG, NOT_UNDERSTOOD)
                if sequence == wanted:
                    interrupted |= flags
                    if kind in (NLMSG_DONE, NLMSG_ERROR):
                        number = -ERRNO.unpack_from(data, offset + HEADER_SIZE)[0]
                        if number:
                            raise OSError(number, extended_text(data, offset, length, flags) or os.strerror(number))
                        return None if interrupted & NLM_F_DUMP_INTR else bodies
                    append(data[offset + HEADER_SIZE : offset + length])
                offset += (length + 3) & ~3

    def _send(self, data: bytes) -> None:
        """The kernel takes all of it or nothing. Raises: OSError, ENOBUFS if it has no room for long."""
        for _ in range(SEND_ATTEMPTS):
            try:
                self._socket.send(data)
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                time.sleep(SEND_PAUSE_S)
        raise OSError(errno.ENOBUFS, "the kernel has no memory for requests; nothing of this one was done")

    def _receive(self) -> bytes | None:
        """One datagram; None when the kernel dropped answers for want of room."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"the kernel did not answer within {ANSWER_TIMEOUT_S:g} s") from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return None

    def _drain(self) -> None:
        """Forget what is still queued; answers to come are told from new ones by their sequence number."""
        self._socket.settimeout(0)
        try:
            while True:
                self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        finally:
            self._socket.settimeout(ANSWER_TIMEOUT_S)


def extended_text(data: bytes, offset: int, length: int, flags: int) -> str:
    """The kernel's words in an error message ("" where it has none)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    place = offset + HEADER_SIZE + ERRNO.size
    if data[offset + 4] == NLMSG_ERROR:
        echoed = HEADER_SIZE if flags & NLM_F_CAPPED else HEADER.unpack_from(data, place)[0]
        place += (echoed + 3) & ~3
    while place + ATTRIBUTE.size <= offset + length:
        size, kind = ATTRIBUTE.unpack_from(data, place)
        if size < ATTRIBUTE.size:
            break
        if kind & TYPE_MASK == NLMSGERR_ATTR_MSG:
            return data[place + ATTRIBUTE.size : place + size - 1].decode("utf-8", "replace")
        place += (size + 3) & ~3
    return ""


def attribute(kind: int, value: bytes) -> bytes:
    length = len(value) + 4
    return ATTRIBUTE.pack(length, kind) + value + PADDING[length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(attributes))


def attribute_list(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """All attributes from `offset` on, in order: for lists, where a type repeats."""
    size = len(data)
    while offset + 4 <= size:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """All attributes from `offset` on, by type. For the few and large messages; the numerous ones are cut by hand."""
    found: dict[int, bytes] = {}
    unpack = ATTRIBUTE.unpack_from
    size = len(data)
    while offset + 4 <= size:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        found[kind & TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
