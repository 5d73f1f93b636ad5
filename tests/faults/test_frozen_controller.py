"""A controller that was frozen does not begin, when it goes on, what its callers have given up meanwhile.

They asked elsewhere, and may have deleted since what they got there. Only real processes and sockets show it: the
requests wait in the kernel, together with the ends of their connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
DEADLINE_S = 20.0


class Controller:
    """In a process of its own, on a socket in a directory."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "controller.sock"
        self._store = f"sqlite://{directory}/kvnet.db"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "cli.main", "controller", "--store", self._store]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--listen",
            "",
            "--listen-unix",
            str(self.socket),
            env={**os.environ, "KVNET_LOG_LEVEL": "warning"},
        )
        async with asyncio.timeout(DEADLINE_S):
            while not await self._is_ready():  # noqa: ASYNC110 - a process has no event to wait on
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        await asyncio.wait_for(self._process.wait(), DEADLINE_S)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _is_ready(self) -> bool:
        try:
            return (await self.ask("GET", "/readyz"))[0] == 200
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
            writer.write(_request(method, path, body, keep=False))
            answer = await reader.read()
            await _ended(writer)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.socket))


def _request(method: str, path: str, body: object, *, keep: bool) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: kvnet", f"content-length: {len(content)}"]
    lines += ["content-type: application/json"] if content else []
    lines += [] if keep else ["connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + content


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    started = Controller(tmp_path)
    await started.start()
    yield started
    await started.stop()


async def _ended(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def _names(controller: Controller) -> list[str]:
    _, found = await controller.ask("GET", "/v1/networks")
    return sorted(network["name"] for network in found["items"])


@pytest.mark.parametrize("is_new", [True, False], ids=["of a new connection", "of one that was there"])
async def test_what_was_given_up_while_it_was_frozen_is_not_begun(controller: Controller, is_new: bool) -> None:
    given_up = [{"name": f"late{number}"} for number in range(5)]
    there = [await controller.connection() for _ in given_up]
    for reader, writer in there:
        writer.write(_request("GET", "/readyz", None, keep=True))
        await reader.readuntil(b"\r\n\r\n")

    controller.signal(signal.SIGSTOP)
    for body, (_, old) in zip(given_up, there, strict=True):
        writer = (await controller.connection())[1] if is_new else old
        writer.write(_request("POST", "/v1/networks", body, keep=True))
        await writer.drain()
        await _ended(writer)
        await _ended(old)
    controller.signal(signal.SIGCONT)

    assert (await controller.ask("POST", "/v1/networks", {"name": "after"}))[0] == 201
    assert await _names(controller) == ["after"]


async def test_what_somebody_still_waits_for_is_done_when_it_goes_on(controller: Controller) -> None:
    controller.signal(signal.SIGSTOP)
    waiting = asyncio.create_task(controller.ask("POST", "/v1/networks", {"name": "patient"}))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    controller.signal(signal.SIGCONT)

    assert (await waiting)[0] == 201
    assert await _names(controller) == ["patient"]
