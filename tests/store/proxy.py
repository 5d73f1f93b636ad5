"""A network between a client and a server, on a unix socket or TCP, that can lose answers, fall silent, and be cut."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

# How long the server gets to do what it was asked, before the connection that lost its answer is cut.
SWALLOW_S = 0.5


class Proxy:
    """`loses`: how many answers to requests that contain one of `losing` are dropped, with their connection.

    `listen`: a unix socket; None: a free port on 127.0.0.1, at `endpoint`. `target`: a unix socket, or `host:port`.
    """

    def __init__(
        self, listen: Path | None, target: Path | str, losing: tuple[bytes, ...] = (b"/v1/store/commit ",)
    ) -> None:
        self._listen = listen
        self._target = target
        self._losing = losing
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoint = ""
        self.loses = 0
        self.is_silent = False

    async def start(self) -> None:
        if self._listen is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self._listen))
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listen is not None:
            self._listen.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            there_reader, there_writer = await self._connect()
            await self._join(reader, writer, there_reader, there_writer)
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        self._writers |= {writer, there_writer}
        is_marked = False

        async def forth() -> None:
            nonlocal is_marked
            while data := await reader.read(65536):
                is_marked = is_marked or any(mark in data for mark in self._losing)
                if not self.is_silent:
                    there_writer.write(data)

        async def back() -> None:
            while data := await there_reader.read(65536):
                if self.loses and is_marked:
                    # The first bytes back need not be the answer (HTTP/2 says other things too): let it be done first.
                    self.loses -= 1
                    await asyncio.sleep(SWALLOW_S)
                    return
                if not self.is_silent:
                    writer.write(data)

        ways = [asyncio.ensure_future(forth()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers -= {writer, there_writer}
            there_writer.transport.abort()
            writer.transport.abort()
