"""A host with a network of ours and a workload that publishes a port, kept right; and another host as the world."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from datapath.desired import desired
from datapath.plan import plan
from kvnet.model import Driver, PublishedPort
from lab import namespaces
from tests.lab.coexistence import programs
from tests.lab.kernel.bed import CONNECT_SECONDS, Bed, network, open_bed

OUTSIDE = "198.18.0.2"
HOST = "198.18.0.1"
PORT = 8080


@dataclass(slots=True)
class Shared:
    """One host, `h1`, that other programs work on too."""

    bed: Bed
    listener: socket.socket
    failures: list[str]

    @property
    def netns(self) -> Path:
        return self.bed.netns["h1"]

    async def keep(self) -> None:
        """What the worker does: a pass at first, and one for each hint."""
        kernel = self.bed.kernels["h1"]
        hints = kernel.hints()
        waiting = asyncio.ensure_future(anext(hints))
        try:
            while True:
                wanted = desired(self.bed.view("h1"))
                failures = await kernel.apply(plan(wanted, await kernel.read()).operations)
                self.failures += [failure.reason for failure in failures]
                await asyncio.wait([waiting])
                waiting.result()
                waiting = asyncio.ensure_future(anext(hints))
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
            await hints.aclose()

    async def paths(self) -> dict[str, bool]:
        """The three ways that somebody else's rules may close."""
        address = str(self.bed.endpoints[network(1).id]["w2-n1"].addresses[0])
        return {
            "out": await self.bed.ping("w1", OUTSIDE, timeout_s=0.3),
            "within the network": await self.bed.ping("w1", address, timeout_s=0.3),
            "to a published port": await self._is_published(),
        }

    async def _is_published(self) -> bool:
        loop = asyncio.get_running_loop()
        with namespaces.open_socket(self.bed.netns["h2"], socket.AF_INET, socket.SOCK_STREAM, 0) as caller:
            caller.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.sock_connect(caller, (HOST, PORT))
                    made, _ = await loop.sock_accept(self.listener)
            except (TimeoutError, OSError):
                return False
            made.close()
            return True

    async def until_all_pass(self, seconds: float) -> None:
        found: dict[str, bool] = {}
        try:
            async with asyncio.timeout(seconds):
                while not found or not all(found.values()):
                    found = await self.paths()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {found}; failures: {self.failures}") from None


@pytest.fixture(scope="session")
def wrappers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs.make_wrappers(tmp_path_factory.mktemp("programs"))


@pytest.fixture
async def shared(wrappers: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    monkeypatch.setenv("PATH", f"{wrappers / 'bin'}:{os.environ['PATH']}")
    async with open_bed(hosts=2) as bed:
        plain = replace(network(1), driver=Driver.BRIDGE, vni=None)
        publishing = bed.add(plain, "w1", "h1", 11)
        bed.endpoints[plain.id][publishing.id] = replace(publishing, ports=(PublishedPort(PORT, "tcp", PORT),))
        bed.add(plain, "w2", "h1", 12)
        with namespaces.open_socket(bed.workloads["w1"], socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
            listener.bind(("", PORT))
            listener.listen()
            listener.setblocking(False)
            yield Shared(bed, listener, [])


@contextlib.asynccontextmanager
async def kept(shared: Shared) -> AsyncIterator[None]:
    keeping = asyncio.ensure_future(shared.keep())
    try:
        yield
        if keeping.done():
            keeping.result()
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
