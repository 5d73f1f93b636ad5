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

from tests.unit.worker.dns.kit import LENGTH, Cluster, over_udp, running, texts, until
from worker.dns.server import PORT_TAKEN, open_sockets

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
