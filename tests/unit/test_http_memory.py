"""What is left of connections that broke: nothing, also where garbage is seldom looked for, as in a worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from kvnet.http import HttpClient, Lost, NotSent, Target
from kvnet.tls import Trust
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.anyio

WARMING_UP, TIMES = 3, 20
# A connection has 256 KB of buffers; asyncio itself keeps one now and then that was reset while it was being closed.
KEPT_OF_EACH = 64 << 10
DEADLINE_S = 10.0
SILENCE_S = 0.1
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n"

Break = Callable[[socket.socket, ssl.SSLContext], None]


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def in_the_handshake(connection: socket.socket, _: ssl.SSLContext) -> None:
    connection.recv(16)
    reset(connection)


def without_a_handshake(connection: socket.socket, _: ssl.SSLContext) -> None:
    connection.recv(65536)
    connection.close()


def before_the_answer(connection: socket.socket, context: ssl.SSLContext) -> None:
    with context.wrap_socket(connection, server_side=True) as secured:
        secured.recv(65536)
        reset(secured)


def in_the_answer(connection: socket.socket, context: ssl.SSLContext) -> None:
    with context.wrap_socket(connection, server_side=True) as secured:
        secured.recv(65536)
        secured.sendall(BEGUN)
        reset(secured)


def by_silence(connection: socket.socket, context: ssl.SSLContext) -> None:
    with context.wrap_socket(connection, server_side=True) as secured:
        while secured.recv(65536):
            pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@contextlib.contextmanager
def serving(certificates: Certificates, broken: Break) -> Iterator[str]:
    """Not by asyncio: what of its TLS is alive is the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.cert, certificates.server.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        broken(connection, context)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    server.join(DEADLINE_S)


async def until_no_more_than(kept: int) -> None:
    """What is closed is freed by the loop's next turns."""
    async with asyncio.timeout(DEADLINE_S):
        while tracemalloc.get_traced_memory()[0] > kept:  # noqa: ASYNC110 - nothing tells of what is freed
            await asyncio.sleep(0.01)


async def request(client: HttpClient) -> None:
    await client.request("POST", "/", b"{}", SILENCE_S)


async def watch(client: HttpClient) -> None:
    async for _ in client.lines("/", b"{}", SILENCE_S):
        pass


@pytest.mark.parametrize("ask", [request, watch])
@pytest.mark.parametrize(
    "broken", [in_the_handshake, without_a_handshake, before_the_answer, in_the_answer, by_silence]
)
async def test_connections_that_broke_take_no_memory(
    certificates: Certificates,
    no_garbage_collector: None,
    broken: Break,
    ask: Callable[[HttpClient], Awaitable[None]],
) -> None:
    with serving(certificates, broken) as url:
        client = HttpClient(Target.parse_all(url, Trust(str(certificates.ca))), {})
        for _ in range(WARMING_UP):
            with pytest.raises((NotSent, Lost)):
                await ask(client)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(TIMES):
            with pytest.raises((NotSent, Lost)):
                await ask(client)
        await until_no_more_than(before + TIMES * KEPT_OF_EACH)
        await client.close()
