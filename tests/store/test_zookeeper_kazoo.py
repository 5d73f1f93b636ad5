"""kazoo's own traps: its threads, its log, its session, its pipe and its answers, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.connection import _SESSION_EXPIRED

from backends.store import (
    Absent,
    Put,
    Unavailable,
    Unchanged,
    Unknown,
)
from backends.url import parse_server_url
from backends.zookeeper import ZookeeperMedium, connect
from kvnet.errors import StoreUnavailable
from tests.servers.cluster import Cluster
from tests.store import zookeeper_kit as kit
from tests.store.proxy import Proxy
from tests.store.watching import until
from tests.store.zookeeper_kit import connected, following

pytestmark = pytest.mark.anyio
cluster = kit.cluster
url = kit.url
medium = kit.medium


async def test_closing_ends_all_threads(url: str) -> None:
    before = set(threading.enumerate())
    async with connected(url):
        ours = [thread for thread in set(threading.enumerate()) - before if "asyncio" not in thread.name]
        assert len(ours) == 3
    await until(lambda: not any(thread.is_alive() for thread in ours))


async def test_kazoo_logs_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected(url) as medium:
        await medium.commit([], [Put("secret", b"in-a-value")])
    with pytest.raises(StoreUnavailable):
        await connect(parse_server_url("zk://someone:a-password@127.0.0.1:1/kvnet", {}))

    assert not [record for record in caplog.records if "kazoo" in record.name]
    assert "in-a-value" not in caplog.text
    assert "a-password" not in caplog.text


async def test_a_lost_zookeeper_session_loses_nothing_here(medium: ZookeeperMedium) -> None:
    revision = await medium.commit([], [Put("a", b"")])
    async with following(medium) as follower:
        client: KazooClient = medium._bridge._client
        session = client.client_id
        client._call(_SESSION_EXPIRED, client.handler.async_result())  # what kazoo tests itself with
        await until(lambda: isinstance(follower.error, Unavailable))

    async with following(medium, revision) as follower:
        await medium.commit([Unchanged("a", revision)], [Put("a", b"2")])
        await until(lambda: follower.told == {"a": b"2"})
    assert client.client_id != session


async def test_an_answer_that_nobody_takes_any_more_is_no_noise(cluster: Cluster) -> None:
    """The head and the next entries are asked for together; when the first fails, nobody wants the others.

    An exception that nobody took would fail the test here (and be a traceback in a log elsewhere).
    """
    proxy = Proxy(None, cluster.endpoints[0])
    await proxy.start()
    async with connected(f"zk://{proxy.endpoint}/test/{uuid.uuid4().hex}") as medium:
        await medium.commit([], [Put("a", b"")])
        proxy.is_silent = True
        asked = [medium._log._look(lambda _: None, 1), medium._overview(), medium.read(["a"])]
        asking = [asyncio.ensure_future(one) for one in asked]
        await until(lambda: len(medium._bridge._client._pending) >= 7)
        await proxy.stop()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        del asked, asking, outcomes
        gc.collect()


async def test_more_requests_than_kazoos_pipe_holds_do_not_block_the_loop(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        await medium.commit([], [Put("a", b"")])
        await cluster.members[0].freeze()
        calls: list[asyncio.Future[Any]] = [asyncio.create_task(medium.read(["a"])) for _ in range(1000)]
        calls += [asyncio.create_task(medium.commit([Absent(f"k{i}")], [Put(f"k{i}", b"")])) for i in range(1000)]
        began = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0)
        assert time.monotonic() - began < 2
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} <= {Unavailable, Unknown}
        assert Unknown in {type(outcome) for outcome in outcomes[1000:]}
