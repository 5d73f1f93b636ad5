"""One question to the worker and its answer: a line of JSON each way over its unix socket.

Bounded in time. Never repeats a question: whoever asked knows what a second one would do.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping

DEFAULT_SOCKET = "/run/kvnet/worker.sock"
# Longer than the worker gives itself for one operation: it gives up first, and says why.
ANSWER_S = 130.0
MAX_LINE = 64 << 10  # the worker reads no more
MAX_ANSWER = 16 << 20
CHUNK = 1 << 16
MAX_CALLERS = 8
MAX_KEPT = 1_000


class Away(Exception):
    """The worker did not answer. `is_unknown`: it had been asked, so it may have done it."""

    def __init__(self, detail: str, *, is_unknown: bool = False) -> None:
        super().__init__(detail)
        self.is_unknown = is_unknown


class Refused(Exception):
    """The worker answered with a problem of its own instead of doing it."""


def socket_path(configured: object) -> str:
    if isinstance(configured, str) and configured:
        return configured
    return os.environ.get("KVNET_SOCKET") or DEFAULT_SOCKET


def read_question() -> bytes:
    """All of standard input.

    Raises:
        ValueError: more than the worker would read.
    """
    found = bytearray()
    while True:
        chunk = os.read(0, CHUNK)
        if not chunk:
            break
        found += chunk
        if len(found) > MAX_LINE:
            raise ValueError(f"it has more than {MAX_LINE} bytes")
    return bytes(found)


def object_of(text: bytes) -> dict[str, object]:
    """
    Raises:
        ValueError: not a JSON object.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def kept() -> list[int]:
    """The sockets of the processes that started this one, and of theirs, by number: the runtime is one of them.

    Podman keeps the host ports of a container itself while it starts that; the worker must not take it for a stranger,
    and has not the rights to see whose a socket is. Whoever was started by the runtime has.
    """
    found: list[int] = []
    pid, callers = os.getppid(), 0
    while pid > 1 and callers < MAX_CALLERS:
        callers += 1
        found += _sockets(f"/proc/{pid}/fd")
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return found[:MAX_KEPT]


def _sockets(folder: str) -> list[int]:
    found: list[int] = []
    try:
        names = os.listdir(folder)
    except OSError:
        return found  # it ended, or is not ours to look at
    for name in names:
        try:
            kind, _, number = os.readlink(f"{folder}/{name}").partition(":[")
        except OSError:
            continue  # it was closed
        if kind == "socket":
            found.append(int(number.rstrip("]")))
    return found


def ask(path: str, question: Mapping[str, object]) -> dict[str, object]:
    """
    Raises:
        Away: says why, and whether it may have been done.
        Refused: with the worker's own words.
        ValueError: more than the worker would read.
    """
    line = json.dumps(question, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"as a request it has more than {MAX_LINE} bytes")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(path)
        except OSError as error:
            raise Away(f"no worker answers at {path}: {error.strerror or error}") from error
        try:
            connection.sendall(line)
            answer = _line(connection)
        except OSError as error:
            raise Away(f"the worker at {path} went away: {error.strerror or error}", is_unknown=True) from error
    return _result(answer, path)


def say(output: object) -> None:
    """On standard output; None is nothing."""
    if output is not None:
        rest = memoryview(json.dumps(output).encode() + b"\n")
        while rest:
            rest = rest[os.write(1, rest) :]


def _line(connection: socket.socket) -> bytes:
    found = bytearray()
    while not found.endswith(b"\n") and len(found) <= MAX_ANSWER:
        chunk = connection.recv(CHUNK)
        if not chunk:
            break
        found += chunk
    return bytes(found)


def _result(line: bytes, path: str) -> dict[str, object]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise Away(f"the answer of the worker at {path} was lost", is_unknown=True) from error
    if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        result: dict[str, object] = answer["result"]
        return result
    problem = answer.get("error") if isinstance(answer, dict) else None
    detail = problem.get("detail") if isinstance(problem, dict) else None
    raise Refused(str(detail or f"what answers at {path} is not a kvnet worker"))
