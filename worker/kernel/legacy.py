"""Reads the FORWARD chain of iptables-legacy, without a process: it tells no event, so it is looked at often.

The tables of that flavour are one block of bytes behind a socket option. Asking for a table that is not there would
make the kernel create it, so /proc is asked first. Never writes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

# linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h
GET_INFO, GET_ENTRIES = 64, 65
FORWARD = 2  # NF_INET_FORWARD
INFO = Struct("=32sI5I5III")  # name, valid hooks, hook entries, underflows, number of entries, size
REQUEST = Struct("=32sI4x")
OFFSETS = Struct("=HH")  # of the target, of the next rule
MATCH = Struct("=H29sB")  # size, name, revision
MARK_MATCH = Struct("=IIB")  # mark, mask, invert
VERDICT = Struct("=H29sBi")
ACCEPT = -2  # -NF_ACCEPT - 1
NAMES = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}
ATTEMPTS = 5  # the size may change between the two questions
TABLE = b"filter"

_libc = ctypes.CDLL(None, use_errno=True)


class Layout(NamedTuple):
    """`head`: what addresses and devices a rule is for, all zero where for any. `entry`: where its matches begin."""

    socket_family: int
    level: int
    head: int
    offsets: int
    entry: int


LAYOUTS = {
    4: Layout(socket.AF_INET, socket.IPPROTO_IP, head=84, offsets=88, entry=112),
    6: Layout(socket.AF_INET6, socket.IPPROTO_IPV6, head=136, offsets=140, entry=168),
}


def has_legacy_filter(family: int) -> bool:
    try:
        with open(NAMES[family], "rb") as names:
            return TABLE in names.read().split()
    except (FileNotFoundError, PermissionError):  # no such flavour here
        return False


def is_open_in_legacy(family: int, comment: str, mark: int) -> bool:
    """Whether the chain has a rule that accepts this mark, with this comment, and asks for nothing else."""
    layout = LAYOUTS[family]
    return any(_is_ours(rule, layout, comment.encode(), mark) for rule in _forward(layout))


def _forward(layout: Layout) -> Iterator[bytes]:
    with socket.socket(layout.socket_family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made:
        for _ in range(ATTEMPTS):
            info = INFO.unpack(_ask(made, layout.level, GET_INFO, TABLE, INFO.size))
            start, end, size = info[2 + FORWARD], info[7 + FORWARD], info[13]
            try:
                answer = _ask(made, layout.level, GET_ENTRIES, REQUEST.pack(TABLE, size), REQUEST.size + size)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                continue
            data = answer[REQUEST.size :]
            while start < end:  # at `end` is the policy
                following = OFFSETS.unpack_from(data, start + layout.offsets)[1]
                yield data[start : start + following]
                start += following
            return
    raise OSError(errno.EAGAIN, "the table of iptables-legacy changes faster than it can be read")


def _ask(made: socket.socket, level: int, option: int, request: bytes, size: int) -> bytes:
    """As `socket.getsockopt`, which cannot ask about a table."""
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    if _libc.getsockopt(made.fileno(), level, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, f"iptables-legacy: {os.strerror(number)}")
    return buffer.raw


def _is_ours(rule: bytes, layout: Layout, comment: bytes, mark: int) -> bool:
    if any(rule[: layout.head]):
        return False
    target = OFFSETS.unpack_from(rule, layout.offsets)[0]
    _, name, _, verdict = VERDICT.unpack_from(rule, target)
    if name.rstrip(b"\0") or verdict != ACCEPT:
        return False
    matches: dict[bytes, bytes] = {}
    place = layout.entry
    while place + MATCH.size <= target:
        size, kind, _ = MATCH.unpack_from(rule, place)
        if size < MATCH.size:
            return False
        matches[kind.rstrip(b"\0")] = rule[place + MATCH.size : place + size]
        place += size
    if matches.keys() != {b"mark", b"comment"}:
        return False
    return MARK_MATCH.unpack_from(matches[b"mark"]) == (mark, mark, 0) and _text(matches[b"comment"]) == comment


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]
