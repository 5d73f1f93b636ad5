"""Just enough HTTP/1.1 for clients of a controller and of Docker's API: over TCP, TLS and unix sockets.

A client library of the usual kind costs a worker 14 MB and a command 35 ms before it does anything, and cannot say the
one thing that matters here: whether any byte of a request had left when it failed. `NotSent` says it had not;
everything later is `Lost`. Every wait is bounded.
Never follows redirects, never repeats a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from kvnet import tls
from kvnet.frames import without_frames
from kvnet.tls import NO_TRUST, Trust

CONNECT_TIMEOUT_S = 5.0
CONNECT_WITH_OTHERS_S = 1.5  # where another target is left to try
# A machine that vanished sends no reset: what it has not acknowledged for so long, it will never answer
# (TCP_USER_TIMEOUT in tcp(7); without it a request waits for its own timeout, and the kernel for a quarter of an hour).
UNACKNOWLEDGED_MS = 3000
# Servers commonly close idle connections after five seconds; one that may be closing is not used for a write.
IDLE_S = 3.0
MAX_IDLE = 8
PROBE_S = 1.0
TLS_ALERT = b"\x15\x03"
MAX_HEAD_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
MAX_LINE_BYTES = 256 * 1024 * 1024  # 500 changes of the greatest values, as the gateway sends them
MAX_INTERIM, FINAL = 8, 200
MAX_TRAILERS = 64
MAX_CHUNK_DIGITS = 16
# Docker answers 304 to what is so already; neither says how long its body is, for there is none.
BODILESS = frozenset({204, 304})


class NotSent(Exception):
    """No byte of the request has left."""


class Untrusted(NotSent):
    """There is no safe connection: trying again will not help. `fix`: what will."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.fix = fix


class Lost(Exception):
    """The request, or a part of it, has left; no complete answer came."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers`: names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a controller listens."""

    authority: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, url: str, trust: Trust = NO_TRUST) -> Self:
        """
        Raises:
            ValueError: not a URL of a controller.
            CertificateUnusable: a file of `trust`.
        """
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return cls("localhost", path=unquote(parts.path))
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"{url!r} is not http://host:port, https://host:port or unix:///path")
        context = trust.context() if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        return cls(parts.netloc.rpartition("@")[2], parts.hostname, port, tls=context)

    @classmethod
    def parse_all(cls, urls: str, trust: Trust = NO_TRUST) -> tuple[Self, ...]:
        """Of one controller or of several, separated by commas.

        Raises:
            ValueError: one of them is not a URL of a controller.
            CertificateUnusable: a file of `trust`.
        """
        return tuple(cls.parse(part.strip(), trust) for part in urls.split(","))

    @property
    def place(self) -> str:
        return self.path or self.authority


class Connection:
    """One connection; used by one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> None:
        self.target = target
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0
        self.is_reusable = True
        self.has_answered = False

    @property
    def is_stale(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.target.authority}", f"content-length: {len(body)}"]
        if body and "content-type" not in headers:
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers, names in lower case."""
        for _ in range(MAX_INTERIM):
            status, headers = await self._one_head()
            if status >= FINAL:
                return status, headers
        raise ValueError("one interim answer after the other, and no final one")

    async def _one_head(self) -> tuple[int, dict[str, str]]:
        raw = await self._reader.readuntil(b"\r\n\r\n")
        self.has_answered = True
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Lost(f"not an HTTP answer: {first[:60]!r}")
        if version == "HTTP/1.0" or headers.get("connection", "").lower() == "close":
            self.is_reusable = False
        return int(rest[:3]), headers

    async def pieces(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _chunk_size(await self._reader.readline()):
                async for piece in self._exactly(size):
                    yield piece
                if await self._reader.readexactly(2) != b"\r\n":
                    raise ValueError("a part of the answer is longer than it says")
            for _ in range(MAX_TRAILERS):
                if await self._reader.readline() in (b"\r\n", b"\n", b""):
                    return
            raise ValueError("the answer does not end")
        if "content-length" not in headers:
            self.is_reusable = False
            while piece := await self._reader.read(READ_BYTES):
                yield piece
            return
        told = headers["content-length"]
        if not (told.isascii() and told.isdigit()):
            raise ValueError(f"an answer of {told[:20]!r} bytes")
        async for piece in self._exactly(int(told)):
            yield piece

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        """In parts, so that it is the reader who decides how much is kept."""
        while size:
            piece = await self._reader.read(min(size, READ_BYTES))
            if not piece:
                raise Lost("the connection was closed in the middle of an answer")
            size -= len(piece)
            yield piece

    def close(self) -> None:
        self.is_reusable = False
        self._writer.close()

    async def until_closed(self) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._writer.wait_closed()


class HttpClient:
    """Requests to any of the targets; one that cannot be connected to, or lost an answer, is left for the next.

    `longest_body`: of an answer to `request`; what is longer counts as lost. None where the other side is trusted.
    """

    def __init__(
        self, targets: tuple[Target, ...], headers: Mapping[str, str], *, longest_body: int | None = None
    ) -> None:
        self._targets = targets
        self._headers = headers
        self._longest_body = longest_body
        self._first = 0
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._closed = False

    async def request(
        self, method: str, path: str, body: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """`headers` are added to those of every request.

        Raises:
            NotSent, Lost
        """
        connection = await self._connection()
        try:
            async with asyncio.timeout(timeout_s):
                await connection.send(method, path, body, {**self._headers, **(headers or {})})
                status, told = await connection.head()
                if status in BODILESS:
                    return Reply(status, b"", told)
                return Reply(status, await self._body(connection, told), told)
        except TimeoutError as error:
            connection.close()
            self._turn_away(connection)
            without_frames(error)
            raise Lost(f"no answer within {timeout_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            connection.close()
            self._turn_away(connection)
            raise await _failure(connection, error) from without_frames(error)
        except BaseException:
            connection.close()
            raise
        finally:
            self._give_back(connection)

    async def _body(self, connection: Connection, headers: Mapping[str, str]) -> bytes:
        read, pieces = 0, []
        async for piece in connection.pieces(headers):
            read += len(piece)
            if self._longest_body is not None and read > self._longest_body:
                raise ValueError(f"the answer has more than {self._longest_body} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def lines(self, path: str, body: bytes, silence_s: float) -> AsyncGenerator[tuple[int, bytes], None]:
        """POST, then each line of the answer with the answer's status, until it ends.

        Raises:
            NotSent, Lost: also when nothing arrives for `silence_s`.
        """
        async with contextlib.aclosing(self.stream("POST", path, body, silence_s, silence_s)) as told:
            async for status, line in told:
                if line is not None:
                    yield status, line

    async def stream(
        self,
        method: str,
        path: str,
        body: bytes,
        answer_s: float,
        silence_s: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[tuple[int, bytes | None], None]:
        """The answer's status alone, as soon as it is there; then each line with it, until the answer ends.

        `silence_s`: None where nothing may come for days; the other side's end is heard all the same.

        Raises:
            NotSent, Lost: also when the status does not come within `answer_s`, a part of the rest within `silence_s`.
        """
        connection = await self._connection(fresh=True)
        waited_s: float | None = answer_s
        try:
            async with asyncio.timeout(answer_s):
                await connection.send(method, path, body, {**self._headers, **(headers or {})})
                status, told = await connection.head()
            yield status, None
            waited_s = silence_s
            pieces = connection.pieces(told)
            begun, length = list[bytes](), 0
            while (piece := await _next_within(pieces, silence_s)) is not None:
                *whole, rest = piece.split(b"\n")
                for line in whole:
                    yield status, b"".join((*begun, line))
                    begun, length = [], 0
                begun.append(rest)
                length += len(rest)
                if length > MAX_LINE_BYTES:
                    raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
            if length:
                yield status, b"".join(begun)
        except TimeoutError as error:
            self._turn_away(connection)
            without_frames(error)
            raise Lost(f"silent for {waited_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self._turn_away(connection)
            raise await _failure(connection, error) from without_frames(error)
        finally:
            connection.close()
            self._open.discard(connection)

    def show(self, trust: Trust) -> None:
        """New connections bear the certificate that is in its file now. Raises: CertificateUnusable."""
        for target in self._targets:
            if target.tls is not None:
                trust.show(target.tls)

    async def close(self) -> None:
        self._closed = True
        open_ones = list(self._open)
        self._open.clear()
        self._idle.clear()
        for connection in open_ones:
            connection.close()
        await asyncio.gather(*(connection.until_closed() for connection in open_ones), return_exceptions=True)

    def _turn_away(self, connection: Connection) -> None:
        """Its target lost an answer: the next request goes to another one, if there is one."""
        if len(self._targets) > 1 and connection.target == self._targets[self._first]:
            self._first = (self._first + 1) % len(self._targets)
            for idle in [one for one in self._idle if one.target == connection.target]:
                self._idle.remove(idle)
                self._open.discard(idle)
                idle.close()

    async def _connection(self, *, fresh: bool = False) -> Connection:
        if self._closed:
            raise NotSent("the client is closed")
        while self._idle and not fresh:
            connection = self._idle.pop()
            await asyncio.sleep(0)  # lets the loop see that the other side has closed it
            if not connection.is_stale and time.monotonic() - connection.idle_since < IDLE_S:
                return connection
            connection.close()
            self._open.discard(connection)
        reasons: list[str] = []
        mistrusted: list[Untrusted] = []
        for offset in range(len(self._targets)):
            index = (self._first + offset) % len(self._targets)
            is_last = offset == len(self._targets) - 1
            try:
                connection = await _connect(
                    self._targets[index], CONNECT_TIMEOUT_S if is_last else CONNECT_WITH_OTHERS_S
                )
            except Untrusted as error:
                mistrusted.append(error)
                reasons.append(str(error))
                continue
            except (OSError, TimeoutError) as error:
                reasons.append(f"{self._targets[index].place}: {_words(error)}")
                continue
            self._first = index
            self._open.add(connection)
            return connection
        if len(mistrusted) == len(self._targets):
            raise Untrusted("; ".join(reasons), mistrusted[0].fix)
        raise NotSent("; ".join(reasons))

    def _give_back(self, connection: Connection) -> None:
        if self._closed or not connection.is_reusable or len(self._idle) >= MAX_IDLE:
            connection.close()
            self._open.discard(connection)
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not line.endswith(b"\n") or not 0 < len(digits) <= MAX_CHUNK_DIGITS or not digits.isalnum():
        raise ValueError("a part of the answer does not say how long it is")
    return int(digits, 16)


async def _next_within(pieces: AsyncIterator[bytes], timeout_s: float | None) -> bytes | None:
    """None at the end."""
    async with asyncio.timeout(timeout_s):
        return await anext(pieces, None)


async def _connect(target: Target, timeout_s: float) -> Connection:
    try:
        async with asyncio.timeout(timeout_s):
            if target.path:
                reader, writer = await asyncio.open_unix_connection(target.path, limit=MAX_HEAD_BYTES)
            else:
                reader, writer = await asyncio.open_connection(
                    target.host, target.port, ssl=target.tls, limit=MAX_HEAD_BYTES
                )
                plain = writer.get_extra_info("socket")
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    except ssl.SSLError as error:
        raise _untrusted(target, tls.explained(error, target.host)) from without_frames(error)
    except OSError as error:
        raise without_frames(error) from None
    return Connection(reader, writer, target)


def _untrusted(target: Target, why: tls.Mistrust) -> Untrusted:
    return Untrusted(f"{target.place}: {why.detail}", why.fix)


async def _failure(connection: Connection, error: Exception) -> NotSent | Lost:
    """What it means that no complete answer came over it.

    With TLS 1.3 a client learns only from its first read that its certificate was refused; and who speaks TLS hangs up
    on who does not. Nobody has looked at the request then.
    """
    target = connection.target
    if connection.has_answered:
        return Lost(_words(error))
    if isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason):
        return _untrusted(target, tls.explained(error, target.host))
    if target.tls is None and not target.path and isinstance(error, (asyncio.IncompleteReadError, ConnectionError)):
        partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
        if partial.startswith(TLS_ALERT) or (not partial and await _speaks_tls(target)):
            return _untrusted(target, tls.SPEAKS_TLS)
    return Lost(_words(error))


async def _speaks_tls(target: Target) -> bool:
    """Sends nothing but a greeting, and trusts nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(target.host, target.port, ssl=context)
            writer.close()
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # an alert is TLS, too
    except (OSError, TimeoutError):
        return False
    return True


def _words(error: BaseException) -> str:
    """asyncio puts the address, which is told anyway, in the place of the system's own words."""
    if isinstance(error, OSError) and error.errno and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
