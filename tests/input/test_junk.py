"""Strangers by the thousand beside one who works: the work goes on, and nothing grows without a bound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest

from backends.open import open_store
from backends.store import Put
from controller.api import patience
from kvnet import codec, keys
from kvnet.model import Host

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

READY = re.compile(rb"ready: (http://\S+?),? ")
DEADLINE_S = 30.0
JUNK_S = 10.0
RATE = 10_000
SILENT = 1000
# Of a creation beside the flood, on a machine whose processors the flood itself takes.
P99_S = 3.0
MOST_GROWTH_KB = 80_000


@dataclass(frozen=True)
class Controller:
    url: str
    port: int
    pid: int
    token: str

    def resident_kb(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self.url, timeout=DEADLINE_S, headers={"authorization": f"Bearer {self.token}"}
        )


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    token = tmp_path / "token"
    async with a_process(
        "-m", "cli.main", "controller", "--store", f"sqlite://{tmp_path}/kvnet.db", "--listen", "127.0.0.1:0",
        "--bootstrap-token-file", str(token),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        url = ""
        async with asyncio.timeout(DEADLINE_S):
            while not url:
                line = await process.stderr.readline()
                found = READY.search(line)
                url = found[1].decode() if found else ""
                assert line, (await process.stdout.read()).decode()
        port, secret = int(url.rpartition(":")[2]), token.read_text().strip()
        async with await open_store(url, token=secret) as store:
            host = Host("h1", ip_address("192.0.2.1"), 1500)
            await store.commit([], [Put(keys.host("h1"), codec.encode(host))])
        drained = [asyncio.create_task(pipe.read()) for pipe in (process.stdout, process.stderr)]
        yield Controller(url, port, process.pid, secret)
        for task in drained:
            task.cancel()


@asynccontextmanager
async def a_process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def worked(http: httpx2.AsyncClient, until: float) -> list[float]:
    """Creations one after the other, each with its time; every one has to succeed."""
    took: list[float] = []
    while time.monotonic() < until:
        began = time.monotonic()
        made = await http.post("/v1/networks/work/endpoints", json={"host": "h1", "name": f"e{len(took)}"})
        took.append(time.monotonic() - began)
        assert made.status_code == 201, made.text
    return sorted(took)


async def test_work_goes_on_beside_ten_thousand_junk_requests_a_second(controller: Controller) -> None:
    async with controller.client() as http:
        made = await http.post("/v1/networks", json={"name": "work", "subnets": [{"cidr": "10.64.0.0/16"}]})
        assert made.status_code == 201, made.text
        alone = await worked(http, time.monotonic() + 2)
        before = controller.resident_kb()
        async with a_process(
            "-m", "tests.input.junk", str(controller.port), "--rate", str(RATE), "--seconds", str(JUNK_S)
        ) as junk:
            took = await worked(http, time.monotonic() + JUNK_S)
            assert junk.stdout is not None
            told = json.loads(await junk.stdout.read())
        grown = controller.resident_kb() - before
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"alone: p50 {alone[len(alone) // 2]:.4f} s; beside {told}: {len(took)} creations, {p50=:.4f} {p99=:.4f}")
    assert not [status for status in told["answered"] if status.startswith("5")], told
    assert sum(told["answered"].values()) > 1000, told
    assert p99 < P99_S
    assert grown < MOST_GROWTH_KB


async def test_a_thousand_silent_connections_stop_nobody_and_are_let_go(controller: Controller) -> None:
    before = controller.resident_kb()
    silent = [socket.create_connection(("127.0.0.1", controller.port)) for _ in range(SILENT)]
    try:
        for one in silent[::2]:
            one.send(b"POST /v1/networks HTTP/1.1\r\ncontent-le")
        async with controller.client() as http:
            made = await http.post("/v1/networks", json={"name": "work", "subnets": [{"cidr": "10.64.0.0/16"}]})
            assert made.status_code == 201, made.text
            took = await worked(http, time.monotonic() + 2)
            assert took[len(took) * 99 // 100] < P99_S
        assert controller.resident_kb() - before < MOST_GROWTH_KB

        async def is_let_go(one: socket.socket) -> None:
            one.setblocking(False)
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(one, 1) == b""

        async with asyncio.timeout(patience.REQUEST_S + 20):
            await asyncio.gather(*map(is_let_go, silent))
    finally:
        for one in silent:
            one.close()


async def test_a_byte_a_second_is_no_way_to_stay(controller: Controller) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", controller.port)
    drip = b"POST /v1/networks HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n" + b" " * 999

    async def dripped() -> None:
        for byte in drip:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.25)

    dripping = asyncio.create_task(dripped())
    try:
        async with asyncio.timeout(patience.REQUEST_S + 20):
            with contextlib.suppress(ConnectionError):
                await reader.read()  # to the end of the connection
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
