"""The HTTP/1.1 server that Docker calls, on a unix socket that may be older than the worker.

A socket that systemd passed is used as it is and never unlinked: Docker waits at it while the worker restarts. Bounded
in size, number and time, but for the pause between two requests of a connection: Docker repeats a request that it lost
with an empty body, so a connection is not closed before Docker's own 30 s are over. Knows no method.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h11

from kvnet.errors import PortInUse, Unfit
from worker.log import Log
from worker.runtimes.docker.members import failure
from worker.server import listen

MAX_HEAD = 64 << 10
MAX_BODY = 1 << 20
MAX_CONNECTIONS = 512
READ_BYTES = 64 << 10
IDLE_S = 300.0
RECEIVE_S = 10.0
WRITE_S = 10.0
GRACE_S = 5.0  # for what is being answered when the worker stops
CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"
FIRST_PASSED = 3  # sd_listen_fds(3)
NAME = "docker"  # of the descriptor: FileDescriptorName= in the socket unit


@dataclass(frozen=True, slots=True)
class Request:
    verb: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


Answer = Callable[[Request], Awaitable[Reply]]


class TooLarge(Exception):
    """A body of more than `MAX_BODY` bytes."""


async def listen_for_docker(path: Path, environment: Mapping[str, str] = os.environ) -> socket.socket:
    """The socket that systemd passed, else one of our own at `path`; what a dead worker left there is replaced.

    Raises:
        PortInUse: another worker serves Docker here.
        MissingCapability, Unfit: it cannot be made there.
    """
    passed = passed_socket(environment, path)
    if passed is not None:
        return passed
    try:
        return await listen(path)
    except PortInUse as error:
        raise PortInUse(
            f"another driver answers Docker at {path}",
            fix="stop that one, or choose another path with --docker-plugin, or --docker off",
        ) from error


def passed_socket(environment: Mapping[str, str], path: Path) -> socket.socket | None:
    """The descriptor of the name `docker`, or a nameless one that is bound to `path`; None: none was passed to us.

    Raises:
        Unfit: what was passed under that name is not a listening unix socket.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()) or not environment.get("LISTEN_FDS", "").isdigit():
        return None
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for number in range(int(environment["LISTEN_FDS"])):
        name = names[number] if number < len(names) else ""
        if name == NAME:
            return _adopted(FIRST_PASSED + number)
        if name in ("", "unknown") and _is_at(FIRST_PASSED + number, path):
            return _adopted(FIRST_PASSED + number)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.family == socket.AF_UNIX and found.getsockname() == str(path)
    except OSError:
        return False


def _adopted(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError as error:
        raise Unfit(f"the socket that systemd passed cannot be used: {error.strerror}", fix=_UNIT) from error
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        found.detach()
        raise Unfit("the socket that systemd passed is not a listening unix stream socket", fix=_UNIT)
    found.setblocking(False)
    return found


_UNIT = f"give it by ListenStream=/run/docker/plugins/kvnet.sock and FileDescriptorName={NAME}"


class HttpServer:
    """Each request is answered by `answer`, which never raises and takes no longer than it may."""

    def __init__(self, listening: socket.socket, answer: Answer, *, log: Log) -> None:
        self._listening = listening
        self._answer = answer
        self._log = log
        self._idle: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; then what was begun is finished."""
        # A duplicate, so that whoever opened the socket is the one who closes it.
        server = await asyncio.start_server(self._serve, sock=self._listening.dup(), limit=READ_BYTES)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await self._finish()

    async def _finish(self) -> None:
        for task in self._idle:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=GRACE_S)
        rest = [*self._idle, *self._busy]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._idle.add(task)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            while await self._one(connection, reader, writer, task):
                connection.start_next_cycle()
        except (OSError, TimeoutError, asyncio.CancelledError, h11.LocalProtocolError):
            pass  # the caller went away, or we do
        except Exception as error:  # noqa: BLE001 - a fault in one connection must not end the others
            self._log.error("docker-connection-failed", detail=f"{type(error).__name__}: {error}")
        finally:
            self._idle.discard(task)
            self._busy.discard(task)
            writer.close()

    async def _one(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: asyncio.Task[None],
    ) -> bool:
        """One request; False when the connection is over."""
        try:
            request = await _received(connection, reader)
        except h11.RemoteProtocolError as error:
            await _refuse(connection, writer, error.error_status_hint, f"not HTTP/1.1 as Docker speaks it: {error}")
            return False
        except TooLarge:
            await _refuse(connection, writer, 413, f"a request of more than {MAX_BODY} bytes")
            return False
        if request is None:
            return False
        if len(self._idle) + len(self._busy) > MAX_CONNECTIONS:
            await _refuse(connection, writer, 503, f"kvnet serves {MAX_CONNECTIONS} connections already; repeat it")
            return False
        self._idle.discard(task)
        self._busy.add(task)
        await _send(connection, writer, await self._answer(request))
        self._busy.discard(task)
        self._idle.add(task)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _received(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next whole request; None when the other side has closed."""
    head: h11.Request | None = None
    body = bytearray()
    wait_s = IDLE_S if not connection.trailing_data[0] else RECEIVE_S
    async with asyncio.timeout(wait_s) as limit:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                piece = await reader.read(READ_BYTES)
                if wait_s == IDLE_S:  # it has begun: from here on it may not dawdle
                    wait_s = RECEIVE_S
                    limit.reschedule(asyncio.get_running_loop().time() + wait_s)
                connection.receive_data(piece)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise TooLarge
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return Request(head.method.decode(), head.target.decode("latin-1"), bytes(body))
            else:
                return None


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, reply: Reply) -> None:
    headers = [(b"Content-Type", CONTENT_TYPE), (b"Content-Length", str(len(reply.body)).encode())]
    events = (h11.Response(status_code=reply.status, headers=headers), h11.Data(reply.body), h11.EndOfMessage())
    writer.write(b"".join(connection.send(event) or b"" for event in events))
    async with asyncio.timeout(WRITE_S):
        await writer.drain()


async def _refuse(connection: h11.Connection, writer: asyncio.StreamWriter, status: int, text: str) -> None:
    with contextlib.suppress(h11.LocalProtocolError):
        await _send(connection, writer, Reply(status, failure(text)))
