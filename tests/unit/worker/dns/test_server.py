"""The sockets: real ones, with what goes wrong on them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import pytest

from tests.unit.worker.dns.kit import LENGTH, Cluster, over_udp, running, texts, until, upstream
from worker.dns.server import MOST_CONNECTIONS, MOST_WAITING, MOST_WAITING_EACH, PORT_TAKEN, Shares, open_sockets

pytestmark = pytest.mark.anyio
SOURCE = "127.0.0.9"  # as if it were a workload's


def cluster_with_a_workload() -> Cluster:
    cluster = Cluster()
    cluster.add(cluster.add_network("shop"), "web", 9, at=[SOURCE])
    return cluster


def query(name: str = "web") -> bytes:
    return dns.message.make_query(name, "A").to_wire()


def told(wire: bytes) -> list[str]:
    return texts(dns.message.from_wire(wire))


async def test_over_udp_and_tcp_many_questions_on_one_connection(tmp_path: Path) -> None:
    async with running(tmp_path, cluster_with_a_workload()) as server:
        assert told(await over_udp(server.port, query(), source=SOURCE)) == ["127.0.0.9"]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(SOURCE, 0))
        for _ in range(3):
            writer.write(LENGTH.pack(len(query())) + query())
            size = LENGTH.unpack(await reader.readexactly(2))[0]
            assert told(await reader.readexactly(size)) == ["127.0.0.9"]
        writer.close()


async def test_rubbish_ends_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with running(tmp_path, cluster_with_a_workload()) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.connect(("127.0.0.1", server.port))
            for length in (0, 1, 11, 12, 13, 300, 60_000):
                for _ in range(10):
                    with contextlib.suppress(OSError):
                        ours.send(rng.randbytes(length))
        for rubbish in (b"\0", b"\xff\xff", b"\0\0", b"\0\x0c" + bytes(12), b"\xff\xff" + bytes(100)):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(rubbish)
            writer.close()
        assert told(await over_udp(server.port, query(), source=SOURCE)) == ["127.0.0.9"]
        assert server.service.conditions == ()


async def test_five_hundred_at_once_are_all_answered(tmp_path: Path) -> None:
    async with running(tmp_path, cluster_with_a_workload()) as server:
        answers = await asyncio.gather(*(over_udp(server.port, query(), source=SOURCE) for _ in range(500)))
        assert all(told(answer) == ["127.0.0.9"] for answer in answers)


async def test_no_source_takes_all_connections_from_the_others(tmp_path: Path) -> None:
    async with running(tmp_path, cluster_with_a_workload()) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.8", 0))
            stack.callback(writer.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(SOURCE, 0))
        stack.callback(writer.close)
        writer.write(LENGTH.pack(len(query())) + query())
        async with asyncio.timeout(5.0):
            size = LENGTH.unpack(await reader.readexactly(2))[0]
            assert told(await reader.readexactly(size)) == ["127.0.0.9"]


async def test_no_source_takes_all_waiting_places_from_the_others(tmp_path: Path) -> None:
    async with (
        upstream(silent=True) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
            greedy.bind(("127.0.0.8", 0))
            greedy.connect(("127.0.0.1", server.port))
            for number in range(MOST_WAITING + 10):
                greedy.send(query(f"n{number}.example.com"))
            await until(lambda: len(resolver.heard) >= MOST_WAITING_EACH)
        await over_udp(server.port, query("www.example.com"), source=SOURCE)  # the silence of others, told in time


def test_shares_are_bounded_for_each_and_for_all() -> None:
    shares = Shares(most=3, each=2)
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    assert [shares.take(source) for source in ("b", "c")] == [True, False]
    shares.give_back("a")
    assert [shares.take(source) for source in ("c", "b")] == [True, False]


async def test_a_port_that_another_program_has_is_told_and_taken_as_soon_as_it_is_free(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        async with running(tmp_path, cluster_with_a_workload(), port=port) as server:
            assert [c.code for c in server.service.conditions] == [PORT_TAKEN]
            since = server.service.conditions[0].since
            other.close()
            await until(lambda: server.service.is_answering)
            assert server.service.conditions == ()
            assert since > 0
            assert told(await over_udp(port, query(), source=SOURCE)) == ["127.0.0.9"]


async def test_the_address_need_not_be_there_yet(tmp_path: Path) -> None:
    async with running(tmp_path, Cluster(), address=IPv4Address("169.254.53.53")) as server:
        assert server.service.is_answering
    open_sockets("169.254.53.53", 0).close()


async def test_a_fault_in_one_answer_is_that_one_s_alone(tmp_path: Path) -> None:
    cluster = cluster_with_a_workload()
    async with running(tmp_path, cluster) as server:
        sound = cluster.version
        cluster.version = lambda endpoint: 1 // 0  # type: ignore[method-assign,assignment]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await over_udp(server.port, dns.message.make_query("web", "TXT").to_wire(), source=SOURCE)
        cluster.version = sound  # type: ignore[method-assign]
        assert told(await over_udp(server.port, query(), source=SOURCE)) == ["127.0.0.9"]


async def test_whoever_is_still_connected_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with running(tmp_path, cluster_with_a_workload()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.service.is_answering)
    async with asyncio.timeout(2.0):
        assert await reader.read() == b""
    writer.close()
