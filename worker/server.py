"""The worker's unix socket: one JSON object per line each way, for root only.

Every request is bounded in length, number and time, and every answer is a result or a problem; what a caller sends can
end its own connection at most. Every request has an id (`request_id`, else a new one), which goes along to the
controller and into the log. What the operations do is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from kvnet.codec import is_request_id
from kvnet.errors import Invalid, KvnetError, MissingCapability, PortInUse, Unfit, WorkerUnreachable
from kvnet.problems import to_problem
from kvnet.request import asked_by
from kvnet.spans import UNTOLD, Tracer
from worker.log import Log

MAX_LINE = 64 << 10
MAX_CONNECTIONS = 256
IDLE_S = 30.0
OPERATION_S = 120.0
WRITE_S = 10.0
BACKLOG = 128

Operation = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Server:
    """`operations` by name; each gets the request and returns the result."""

    def __init__(
        self, listening: socket.socket, operations: Mapping[str, Operation], *, log: Log, tracer: Tracer = UNTOLD
    ) -> None:
        self._tracer = tracer
        self._listening = listening
        self._operations = operations
        self._log = log
        self._connections = 0

    async def run(self) -> None:
        server = await asyncio.start_unix_server(self._serve, sock=self._listening, limit=MAX_LINE)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > MAX_CONNECTIONS:
                await _send(writer, _problem(_busy()))
                return
            while await self._one(reader, writer):
                pass
        except (OSError, TimeoutError):
            return  # the caller went away
        finally:
            self._connections -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is over."""
        try:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readline()
        except ValueError:
            await _send(writer, _problem(Invalid(f"a request of more than {MAX_LINE} bytes", fix="send less")))
            return False
        if not line.endswith(b"\n"):
            return False
        await _send(writer, await self._answer(line))
        return True

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            name, message = _parsed(line)
            operation = self._operations.get(name)
            if operation is None:
                raise Invalid.field("/op", f"no operation {name[:64]!r}", f"known are: {', '.join(self._operations)}")
            request_id, asked = _named(message)
            with self._tracer.span(f"worker {name}", request_id=request_id) as span, asked_by(request_id, span.trace):
                return await self._done(operation, asked)
        except KvnetError as error:
            return _problem(error)

    async def _done(self, operation: Operation, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(OPERATION_S):
                return {"ok": True, "result": await operation(message)}
        except KvnetError as error:
            return _problem(error)
        except TimeoutError:
            return _problem(WorkerUnreachable(f"not done within {OPERATION_S:g} s", fix="see 'kvnet status'"))
        except Exception as error:  # noqa: BLE001 - a fault in one operation must not end the worker
            self._log.error("operation-failed", detail=f"{type(error).__name__}: {error}")
            return _problem(KvnetError(f"the worker failed: {type(error).__name__}", fix="see its log"))


async def listen(path: Path) -> socket.socket:
    """The worker's socket, mode 0600. A socket that a dead worker left is replaced.

    Raises:
        PortInUse: a worker answers there.
        MissingCapability, Unfit: it cannot be made there.
    """
    try:
        is_there = _is_socket(path)
        if is_there and await _is_answered(path):
            raise PortInUse(
                f"a worker is answering at {path}", fix="stop that one, or choose another path with --socket"
            )
        return _bound(path, replace=is_there)
    except PermissionError as error:
        raise MissingCapability(f"the socket {path} may not be made: {error.strerror}", fix="run it as root") from error
    except OSError as error:
        raise Unfit(
            f"the socket {path} cannot be made: {error.strerror or error}", fix="choose another path with --socket"
        ) from error


def _bound(path: Path, *, replace: bool) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    if replace:
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o177)  # the file must not be open to others even for a moment
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(former)
    made.listen(BACKLOG)
    made.setblocking(False)
    return made


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


async def _is_answered(path: Path) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.close()
            return True
    return False


def _parsed(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("the request is not JSON", fix='one object per line: {"op": "status"}') from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise Invalid("the request is not an object with an 'op'", fix='one object per line: {"op": "status"}')
    return message["op"], message


def _named(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The request's id, the caller's own or a new one, and the request without it."""
    given = message.get("request_id")
    if given is not None and not (isinstance(given, str) and is_request_id(given)):
        fix = "1 to 128 letters, digits or any of . _ : / = + -, a letter or digit first"
        raise Invalid.field("/request_id", "not a request id", fix)
    return given or secrets.token_hex(8), {name: value for name, value in message.items() if name != "request_id"}


def _problem(error: KvnetError) -> dict[str, Any]:
    return {"ok": False, "error": to_problem(error)}


def _busy() -> KvnetError:
    return WorkerUnreachable(f"the worker serves {MAX_CONNECTIONS} callers already", fix="repeat it in a moment")


async def _send(writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
    writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
    async with asyncio.timeout(WRITE_S):
        await writer.drain()
