"""What two networks had established ends when they are no longer peers; what does not go between networks goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import Lab, until
from tests.lab.worker.bench import attached, until_answers, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
PORT = 9000
SECONDS = 5.0
ROUND_TRIP_S = 0.4


class Conversation:
    """One TCP connection that lives: each side may say something that the other hears."""

    def __init__(self, caller: socket.socket, called: socket.socket) -> None:
        self._ends = caller, called
        self._number = 0

    async def goes_on(self) -> bool:
        """Whether a new byte comes across, both ways, soon."""
        try:
            async with asyncio.timeout(ROUND_TRIP_S):
                for one, other in (self._ends, self._ends[::-1]):
                    self._number = self._number % 255 + 1
                    word = bytes([self._number])
                    await asyncio.get_running_loop().sock_sendall(one, word)
                    while await asyncio.get_running_loop().sock_recv(other, 1) != word:
                        pass
        except (TimeoutError, OSError):
            return False
        return True


@contextlib.asynccontextmanager
async def talking(lab: Lab, caller: str, called: str, address: str, port: int = PORT) -> AsyncIterator[Conversation]:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        opened = [
            namespaces.open_socket(lab.netns_of(w), socket.AF_INET, socket.SOCK_STREAM, 0) for w in (called, caller)
        ]
        listening, calling = (stack.enter_context(one) for one in opened)
        for one in opened:
            one.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", PORT))
        listening.listen(1)
        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(calling, (address, port))
            answering, _ = await loop.sock_accept(listening)
        stack.enter_context(answering)
        conversation = Conversation(calling, answering)
        assert await conversation.goes_on()
        yield conversation


async def until_over(conversation: Conversation) -> None:
    async def is_over() -> bool:
        return not await conversation.goes_on()

    await until(is_over, "the conversation is cut", seconds=SECONDS)
    for _ in range(3):
        assert not await conversation.goes_on(), "and stays cut"


@pytest.mark.parametrize("home", ["h1", "h2"])
async def test_no_longer_peers_means_no_longer_talking(tmp_path: Path, home: str) -> None:
    async with workers(tmp_path, outside=True) as lab:
        for name in ("front", "back"):
            await lab.client.create_network({"name": name})
        await lab.client.peer_networks("front", "back")
        await attached(lab, "front", {"web": "h1", "web2": home})
        await attached(lab, "back", {"db": home})
        there = lab.address_of("db", "back")
        await until_answers(lab, "web", there)
        async with (
            talking(lab, "web", "db", there) as across,
            talking(lab, "web", "web2", lab.address_of("web2", "front")) as within,
            talking(lab, "web", "outside", str(lab.around["outside"].address)) as beyond,
        ):
            await lab.client.unpeer_networks("front", "back")
            await until_over(across)
            assert await within.goes_on()
            assert await beyond.goes_on()
            await lab.client.peer_networks("front", "back")
            await until_answers(lab, "web", there)
            async with talking(lab, "db", "web", lab.address_of("web", "front")) as again:
                assert await again.goes_on()


async def test_a_published_port_is_not_a_peer_and_goes_on(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1) as lab:
        for name in ("front", "back"):
            await lab.client.create_network({"name": name, "driver": "bridge"})
        await lab.client.peer_networks("front", "back")
        await attached(lab, "front", {"web": "h1"})
        await attached(lab, "back", {"db": "h1"}, ports=[{"port": PORT, "host_port": 9100}])
        async with talking(lab, "web", "db", str(lab.hosts["h1"].port.underlay), 9100) as published:
            await lab.client.unpeer_networks("front", "back")

            async def is_apart() -> bool:
                return not await lab.answers("web", lab.address_of("db", "back"))

            await until(is_apart, "they are no peers any more", seconds=SECONDS)
            assert await published.goes_on()
