"""What is said to ZooKeeper: transactions, and reads of many nodes in one request.

kazoo has no MultiRead, tells no zxid of a created node and does not know whether a request had left when the connection
broke; these requests do. Pure but for that mark: no I/O, and nothing is interpreted here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kazoo.protocol.serialization import read_buffer, write_buffer, write_string

NO_NODE, BAD_VERSION, NODE_EXISTS, NOT_EMPTY, NO_AUTH = -101, -103, -110, -111, -102
ROLLED_BACK, NOT_TRIED = 0, -2
ANY_VERSION = -1
PLAIN, SEQUENCE = 0, 2

_HEADER = struct.Struct("!i?i")
_INT = struct.Struct("!i")
_END = _HEADER.pack(-1, True, -1)


class Stat(NamedTuple):
    """What is used of a node's stat. `version` is the data's, `mzxid` the last change's transaction; `ctime` in ms."""

    czxid: int
    mzxid: int
    ctime: int
    version: int
    children: int
    pzxid: int


_STAT = struct.Struct("!qqq8xi20xiq")  # between: the time of the last change; counters, the owner and the length


class Node(NamedTuple):
    data: bytes
    stat: Stat


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind`: create, set, check or delete."""

    kind: str
    path: str
    data: bytes = b""
    version: int = ANY_VERSION
    flags: int = PLAIN


Result = Stat | int | None
Read = Node | list[str] | int


def _stat(buffer: bytes, offset: int) -> Stat:
    return Stat._make(_STAT.unpack_from(buffer, offset))


class Request:
    """What kazoo sends: it calls `serialize` right before it writes, so what was never serialized was never sent."""

    type = 0
    is_write = False

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.was_sent = False

    def serialize(self) -> bytes:
        self.was_sent = True
        return self._body

    def deserialize(self, buffer: bytes, offset: int) -> Any:
        raise NotImplementedError


class Multi(Request):
    """All operations or none. The answer: a stat for each `set`, None for others; where one failed, a code for each.

    The stat of a created node cannot be had: ZooKeeper 3.8 answers Create2 as Create within a transaction.
    """

    type = 14
    is_write = True

    def __init__(self, operations: Sequence[Operation], acl: bytes) -> None:
        super().__init__(b"".join(part for one in operations for part in _written(one, acl)) + _END)

    def deserialize(self, buffer: bytes, offset: int) -> list[Result]:
        results: list[Result] = []
        while True:
            kind, is_end, _ = _HEADER.unpack_from(buffer, offset)
            offset += _HEADER.size
            if is_end:
                return results
            if kind == -1:
                results.append(_INT.unpack_from(buffer, offset)[0])
                offset += _INT.size
                continue
            if kind == 1:
                offset += _INT.size + _INT.unpack_from(buffer, offset)[0]
            if kind == 5:
                results.append(_stat(buffer, offset))
                offset += _STAT.size
            else:
                results.append(None)


def _written(one: Operation, acl: bytes) -> tuple[bytes, ...]:
    path = write_string(one.path)
    if one.kind == "create":
        header = _HEADER.pack(1, False, -1)
        return header, path, write_buffer(one.data), acl, _INT.pack(one.flags)
    if one.kind == "set":
        return _HEADER.pack(5, False, -1), path, write_buffer(one.data), _INT.pack(one.version)
    return _HEADER.pack({"check": 13, "delete": 2}[one.kind], False, -1), path, _INT.pack(one.version)


def write_acl(scheme: str, identity: str, permissions: int = 31) -> bytes:
    """One identity's permissions (31: all) as the ACL of new nodes."""
    return b"".join((_INT.pack(1), _INT.pack(permissions), write_string(scheme), write_string(identity)))


class MultiRead(Request):
    """Nodes (`Node`) and the names below nodes (`list`), as of one moment; a code for what cannot be read.

    ZooKeeper 3.6 or newer.
    """

    type = 22

    def __init__(self, paths: Iterable[str], children_of: Iterable[str] = ()) -> None:
        get, children = _HEADER.pack(4, False, -1), _HEADER.pack(8, False, -1)
        parts = [part for path in paths for part in (get, write_string(path), b"\0")]
        parts += [part for path in children_of for part in (children, write_string(path), b"\0")]
        super().__init__(b"".join(parts) + _END)

    def deserialize(self, buffer: bytes, offset: int) -> list[Read]:
        found: list[Read] = []
        while True:
            kind, is_end, _ = _HEADER.unpack_from(buffer, offset)
            offset += _HEADER.size
            if is_end:
                return found
            if kind == -1:
                found.append(_INT.unpack_from(buffer, offset)[0])
                offset += _INT.size
            elif kind == 8:
                names, offset = _names(buffer, offset)
                found.append(names)
            else:
                data, offset = read_buffer(buffer, offset)
                found.append(Node(data or b"", _stat(buffer, offset)))
                offset += _STAT.size


def _names(buffer: bytes, offset: int) -> tuple[list[str], int]:
    count = _INT.unpack_from(buffer, offset)[0]
    offset += _INT.size
    names = []
    for _ in range(count):
        length = _INT.unpack_from(buffer, offset)[0]
        offset += _INT.size
        names.append(str(buffer[offset : offset + length], "utf-8"))
        offset += length
    return names, offset


class Get(Request):
    """One node; `watcher` is called once when it changes."""

    type = 4

    def __init__(self, path: str, watcher: Any = None) -> None:
        super().__init__(write_string(path) + (b"\1" if watcher else b"\0"))
        self.path = path
        self.watcher = watcher

    def deserialize(self, buffer: bytes, offset: int) -> Node:
        data, offset = read_buffer(buffer, offset)
        return Node(data or b"", _stat(buffer, offset))


class Exists(Get):
    """The node's stat, or None; `watcher` also waits for its creation."""

    type = 3

    def deserialize(self, buffer: bytes, offset: int) -> Any:
        return _stat(buffer, offset)


class Children(Request):
    """The names below a node, and its stat."""

    type = 12

    def __init__(self, path: str) -> None:
        super().__init__(write_string(path) + b"\0")

    def deserialize(self, buffer: bytes, offset: int) -> tuple[list[str], Stat]:
        names, offset = _names(buffer, offset)
        return names, _stat(buffer, offset)


class Remove(Request):
    """Delete one node."""

    type = 2

    def __init__(self, path: str) -> None:
        super().__init__(write_string(path) + _INT.pack(ANY_VERSION))

    def deserialize(self, buffer: bytes, offset: int) -> None:
        return None
