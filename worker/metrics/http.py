"""Where metrics are asked for: `GET /metrics`, `/livez` and `/readyz`, and nothing else, on an address of this host.

No more than HTTP needs for that. Whatever a caller sends can end its own connection at most: requests are bounded in
size, number and time, and a scrape is made at most four times a second, however many ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from kvnet.errors import Invalid, MissingCapability, PortInUse
from worker.metrics.text import CONTENT_TYPE
from worker.ports import Time

MAX_HEAD = 8 << 10
MAX_CONNECTIONS = 32
HEAD_S = 5.0
WRITE_S = 10.0
KEPT_S = 0.25
PLAIN = "text/plain; charset=utf-8"
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    kind: str = PLAIN


def bind(listen: str) -> socket.socket:
    """
    Raises:
        Invalid: not HOST:PORT of this host.
        PortInUse, MissingCapability: the port cannot be had.
    """
    host, port = _parsed(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except OSError as error:
        raise Invalid.field(
            "/metrics", f"{host!r} is not an address: {error.strerror}", "like 127.0.0.1:7482"
        ) from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(MAX_CONNECTIONS)
    except OSError as error:
        made.close()
        raise _refused(listen, error) from error
    made.setblocking(False)
    return made


def _parsed(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_wrong = not colon or not bare or (":" in bare and bare == host)
    if is_wrong or not port.isascii() or not port.isdigit() or int(port) > 65535:
        fix = "like 127.0.0.1:7482 or [::]:7482"
        raise Invalid.field("/metrics", f"{listen[:80]!r} is not an address to listen on", fix)
    return bare, int(port)


def _refused(listen: str, error: OSError) -> PortInUse | MissingCapability | Invalid:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{listen} is in use by another program", fix="choose another one with --metrics HOST:PORT")
    if error.errno in (errno.EACCES, errno.EPERM):
        return MissingCapability(f"{listen} may not be listened on", fix="choose a port above 1023 with --metrics")
    return Invalid.field("/metrics", f"{listen} cannot be listened on: {error.strerror}", "an address of this host")


class MetricsServer:
    """`render` makes a scrape; `unready` says why this host is not ready, "" if it is."""

    def __init__(
        self, listening: socket.socket, render: Callable[[], str], unready: Callable[[], str], *, time: Time
    ) -> None:
        self._listening = listening
        self._render = render
        self._unready = unready
        self._time = time
        self._kept, self._kept_until = "", float("-inf")
        self._connections = 0

    async def run(self) -> None:
        """Until cancelled."""
        server = await asyncio.start_server(self._serve, sock=self._listening, limit=MAX_HEAD)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                await self._exchange(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return  # the caller went away, or speaks something else
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = b""
            with contextlib.suppress(asyncio.LimitOverrunError):
                head = await reader.readuntil(b"\r\n\r\n")
        method, path = _asked(head)
        answer = self.answer(method, path)
        body = answer.body.encode()
        lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}", f"Content-Type: {answer.kind}"]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        lines += ["Allow: GET, HEAD"] if answer.status == 405 else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body))
        async with asyncio.timeout(WRITE_S):
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def answer(self, method: str, path: str) -> Answer:
        if not method:
            return Answer(400, "not a request\n")
        if path not in ("/metrics", "/livez", "/readyz"):
            return Answer(404, "there are /metrics, /livez and /readyz\n")
        if method not in ("GET", "HEAD"):
            return Answer(405, "only GET\n")
        if path == "/metrics":
            return Answer(200, self._scrape(), CONTENT_TYPE)
        why = self._unready() if path == "/readyz" else ""
        return Answer(503, f"{why}\n") if why else Answer(200, "ok\n")

    def _scrape(self) -> str:
        now = self._time.monotonic()
        if now >= self._kept_until:
            self._kept, self._kept_until = self._render(), now + KEPT_S
        return self._kept


def _asked(head: bytes) -> tuple[str, str]:
    """Method and path; ("", "") of what is no request."""
    parts = head.partition(b"\r\n")[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        return "", ""
    return parts[0].decode("latin-1"), parts[1].partition(b"?")[0].decode("latin-1")
