"""A Consul that is away, half gone, or without a leader, and answers that get lost, on real servers of 1.8."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from pathlib import Path

import pytest

from backends.consul import connect
from backends.store import (
    Put,
    Unavailable,
    Unknown,
)
from backends.url import parse_server_url
from kvnet.errors import StoreUnavailable
from tests.servers.cluster import Cluster
from tests.store import consul_kit as kit
from tests.store.consul_kit import committed, following, next_step, opened, roots, told_until

pytestmark = pytest.mark.anyio
server = kit.server


async def test_a_lost_answer_is_unknown_and_the_transaction_is_not_sent_again(server: Cluster) -> None:
    """aiohttp repeats a PUT when a kept connection breaks."""
    sent: list[bytes] = []
    target, _, port = server.endpoints[0].rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target, int(port))
        while head := await _head(reader):
            length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
            body = await reader.readexactly(length)
            if base64.b64encode(b"lost") in body:
                sent.append(body)
                break
            back.write(head + body)
            answer = await there.readuntil(b"\r\n\r\n")
            size = next(int(h.split(b":")[1]) for h in answer.split(b"\r\n") if h.lower().startswith(b"content-length"))
            writer.write(answer + await there.readexactly(size))
        writer.close()
        back.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as between:
        own_port = between.sockets[0].getsockname()[1]
        async with opened(f"consul://127.0.0.1:{own_port}/lost{next(roots)}") as medium:
            await medium.commit([], [Put("k", b"kept")])
            with pytest.raises(Unknown):
                await medium.commit([], [Put("k", b"lost")])
            await medium.commit([], [Put("k", b"after")])

    assert len(sent) == 1


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def test_nobody_there_is_unavailable_and_no_error_where_none_must_answer() -> None:
    url = "consul://127.0.0.1:1,127.0.0.1:2/kvnet"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        async with opened(url):
            pass
    async with opened(url, must_answer=False) as medium:
        for asked in (medium.read(["k"]), medium.commit([], [Put("k", b"")]), medium.revision(), medium.scan("")):
            with pytest.raises(Unavailable):
                await asked


async def test_an_endpoint_that_refuses_is_passed_over(server: Cluster) -> None:
    url = server.url(f"passed{next(roots)}").replace("consul://", "consul://127.0.0.1:1,")
    async with opened(url) as medium, following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("k", b"")])
        assert (await next_step(steps)).revision == revision


async def test_a_half_open_connection_is_noticed_within_15_s_and_costs_once(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster:
        follower = next(index for index in range(3) if index != 0)
        leader = await cluster.leader()
        frozen = next(index for index in range(3) if index != leader)
        others = [endpoint for index, endpoint in enumerate(cluster.endpoints) if index != frozen]
        url = f"consul://{','.join([cluster.endpoints[frozen], *others])}/kvnet"
        assert follower
        async with opened(url) as medium, following(medium) as steps:
            await next_step(steps)
            await cluster.members[frozen].freeze()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await next_step(steps, 15)
            assert time.monotonic() - began < 15
            revision = await medium.commit([], [Put("k", b"")])
            async with following(medium, 0) as again:
                assert await told_until(again, revision) == {"k": b""}
            began = time.monotonic()
            await medium.read(["k"])
            assert time.monotonic() - began < 2
            await cluster.members[frozen].thaw()


async def test_nothing_acknowledged_is_lost_over_a_killed_leader_and_followers_hear_all(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        acknowledged: dict[str, int] = {}
        start = await medium.commit([], [Put("start", b"")])
        for number in range(60):
            if number == 20:
                await cluster.members[await cluster.leader()].kill()
            key = f"k{number:02}"
            acknowledged[key] = await committed(medium, Put(key, b""))
        async with opened(cluster.url()) as other:
            snapshot = await other.scan("k")
            assert acknowledged.keys() <= {entry.key for entry in snapshot.entries}
            async with following(other, start) as steps:
                told = await told_until(steps, max(acknowledged.values()))
            assert acknowledged.keys() <= told.keys()


async def test_a_cluster_without_a_leader_is_waited_for_at_start(tmp_path: Path) -> None:
    async with Cluster("consul", tmp_path, members=3) as cluster:
        await asyncio.gather(*(cluster.members[index].kill() for index in (1, 2)))
        starting = asyncio.create_task(connect(parse_server_url(cluster.url(), {}), rng=random.Random(1)))
        await asyncio.sleep(0)
        await cluster.members[1].start()
        async with asyncio.timeout(30):
            medium = await starting
        await committed(medium, Put("k", b""))
        await medium.close()
