"""Many streams, slow streams, and streams that nobody reads: bounded, resumable, and no reason to stay up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from controller.api.outlet import LOW_WATER, TRANSPORT, Outlet
from tests.api.under_test import DEADLINE_S, Api, SseEvent, parse, problem_of, running, until

pytestmark = pytest.mark.anyio

MERGE = {"Content-Type": "application/merge-patch+json"}
MANY = 200


async def connected(api: Api, stack: AsyncExitStack, query: str = "", rcvbuf: int = 0) -> socket.socket:
    """A client that asks for the stream, and reads when it is told to."""
    one = stack.enter_context(socket.socket())
    one.setblocking(False)
    if rcvbuf:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    loop = asyncio.get_running_loop()
    host, _, port = api.url.removeprefix("http://").partition(":")
    await loop.sock_connect(one, (host, int(port)))
    await loop.sock_sendall(one, f"GET /v1/events{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return one


async def lines(one: socket.socket) -> AsyncIterator[str]:
    """What a chunked answer says, until it ends; by hand, because that is how a slow client is slow."""
    reader, writer = await asyncio.open_connection(sock=one.dup())
    try:
        await reader.readuntil(b"\r\n\r\n")
        text = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            text += await reader.readexactly(size)
            await reader.readexactly(2)
            *whole, text = text.split(b"\n")
            for line in whole:
                yield line.decode()
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


async def changed(api: Api, network: str, times: int) -> list[int]:
    """Large changes, one after another: their revisions."""
    made = []
    for i in range(times):
        labels = {f"k{n}": f"{i}-" + "x" * 200 for n in range(60)}
        answer = await api.http.patch(f"/v1/networks/{network}", json={"labels": labels}, headers=MERGE)
        made.append(int(answer.json()["version"]))
    return made


async def test_a_slow_reader_is_dropped_and_goes_on_from_the_position_told_without_a_gap_or_a_repeat() -> None:
    async with running("memory://", event_queue=20) as api, AsyncExitStack() as stack:
        made = await api.network()
        network = made["id"]
        slow = await connected(api, stack, f"?since={made['version']}", rcvbuf=4096)
        revisions: list[int] = []
        async with asyncio.timeout(60):
            while not (await dropped(api)):
                revisions += await changed(api, network, 20)
        told: list[SseEvent] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                told = [event async for event in parse(lines(slow))]

        before = [event.id for event in told if event.type == "change" and event.id is not None]
        gone = told[-1]
        assert (gone.type, gone.id) == ("gone", before[-1])
        assert f"{gone.id}" in gone.data["fix"]
        async with api.events(**{"Last-Event-ID": str(gone.id)}) as events:
            after = await until(events, lambda e: e.id == revisions[-1])
    assert before + [event.id for event in after if event.type == "change" and event.id is not None] == revisions


async def dropped(api: Api) -> bool:
    lines = (await api.get("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("kvnet_sse_dropped_total")) > 0


async def test_two_hundred_streams_some_of_them_stuck_do_not_hold_the_server_up() -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        async with running("memory://") as api:
            network = (await api.network())["id"]
            for _ in range(10):
                await connected(api, stack, rcvbuf=4096)
            readers = [await connected(api, stack) for _ in range(MANY)]
            ends = [asyncio.create_task(_drained(one)) for one in readers]
            await changed(api, network, 40)
            asked_at = loop.time()
            api.stop.set()
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*ends)
        assert loop.time() - asked_at < 2.0


async def _drained(one: socket.socket) -> int:
    loop, total = asyncio.get_running_loop(), 0
    while data := await loop.sock_recv(one, 1 << 16):
        total += len(data)
    return total


async def test_a_position_that_is_still_to_come_is_refused_before_the_stream(api: Api) -> None:
    newest = (await api.get("/v1/status")).json()["revision"]
    told = problem_of(await api.get(f"/v1/events?since={newest + 100_000}"), 410, "gone")

    assert told["revision"] >= newest


class Connection:
    """A transport with as much unread as a test says."""

    def __init__(self) -> None:
        self.unread, self.is_aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.is_aborted = True


async def test_who_reads_a_little_is_slow_and_who_reads_nothing_is_stuck() -> None:
    connection, now = Connection(), 0.0
    outlet = Outlet({TRANSPORT: connection}, lambda: now, stuck_s=10.0)
    assert not outlet.is_full()
    connection.unread = 3 * LOW_WATER
    for _ in range(5):
        now += 9.0
        assert (outlet.is_full(), outlet.is_stuck()) == (True, False)
        connection.unread -= 1
    now += 10.0

    assert (outlet.is_stuck(), outlet.unread) == (False, connection.unread)
    now += 10.0
    assert outlet.is_stuck()
    outlet.abort()
    assert connection.is_aborted
    connection.unread = LOW_WATER
    assert (outlet.is_full(), outlet.is_stuck()) == (False, False)
