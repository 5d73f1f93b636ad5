"""A network between a client and a unix socket that can lose answers, fall silent, and be cut."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path


class Proxy:
    """`loses`: how many answers to requests that contain `losing` are dropped, with their connection."""

    def __init__(self, listen: Path, target: Path, losing: bytes = b"/v1/store/commit ") -> None:
        self._listen = listen
        self._target = target
        self._losing = losing
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.loses = 0
        self.is_silent = False

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self._listen))

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listen.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
            await self._join(reader, writer, there_reader, there_writer)
        writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        self._writers |= {writer, there_writer}
        marked = False

        async def forth() -> None:
            nonlocal marked
            while data := await reader.read(65536):
                marked = marked or self._losing in data
                if not self.is_silent:
                    there_writer.write(data)

        async def back() -> None:
            while data := await there_reader.read(65536):
                if self.loses and marked:
                    self.loses -= 1
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
