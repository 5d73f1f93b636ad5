"""ZooKeepers that die, freeze, say nothing, come back, and come back empty."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from backends.store import (
    Absent,
    Compacted,
    Conflict,
    Present,
    Put,
    Snapshot,
    Unavailable,
    Unchanged,
    Unknown,
)
from backends.url import parse_server_url
from backends.zookeeper import ZookeeperMedium, connect
from backends.zookeeper_bridge import FORGET_AFTER_S, SESSION_S
from backends.zookeeper_socket import PATIENCE_S
from kvnet.errors import StoreUnavailable
from tests.servers.cluster import Cluster
from tests.store import zookeeper_kit as kit
from tests.store.proxy import Proxy
from tests.store.watching import plain, until
from tests.store.zookeeper_kit import Follower, connected, following

pytestmark = pytest.mark.anyio
cluster = kit.cluster
url = kit.url


async def test_nothing_is_lost_or_told_twice_over_a_killed_server(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        acknowledged: list[int] = []
        uncertain: set[int] = set()
        told: list[int] = []
        is_over = asyncio.Event()

        async def write() -> None:
            for number in range(100_000):
                if is_over.is_set():
                    return
                try:
                    await medium.commit([], [Put(f"n/{number:06d}", b"")])
                    acknowledged.append(number)
                except Unknown:
                    uncertain.add(number)
                except Unavailable:
                    await asyncio.sleep(0.05)

        async def follow() -> None:
            after: int | None = 0
            while True:
                try:
                    async for step in medium.follow(after, lambda key: True):
                        after = step.revision
                        told.extend(int(change.key[2:]) for change in step.changes)
                except Unavailable:
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(write()), asyncio.create_task(follow())]
        await until(lambda: len(told) > 50)
        await cluster.members[0].kill()
        await cluster.members[0].start()
        await cluster.until_healthy()
        seen = len(acknowledged)
        # kazoo's default back-off sleeps up to a minute; ours is back within a second or two.
        await until(lambda: len(acknowledged) > seen + 50)
        is_over.set()
        await tasks[0]
        await until(lambda: told[-1:] == acknowledged[-1:])
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)

        assert len(told) == len(set(told))
        assert set(acknowledged) <= set(told) <= set(acknowledged) | uncertain
        assert {int(entry.key[2:]) for entry in (await medium.scan("n/")).entries} == set(told)


async def test_a_server_that_takes_connections_and_says_nothing_costs_two_seconds_and_the_next_serves(
    cluster: Cluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kazoo would wait for a session's length, divided by the number of addresses."""
    silent = Proxy(None, cluster.endpoints[0])
    await silent.start()
    silent.is_silent = True
    monkeypatch.setattr("kazoo.protocol.connection.random.shuffle", lambda hosts: None)  # the silent one comes first
    began = time.monotonic()
    async with connected(url.replace("://", f"://{silent.endpoint},")) as medium:
        took = time.monotonic() - began
        await medium.commit([], [Put("a", b"")])
    await silent.stop()

    assert PATIENCE_S <= took < PATIENCE_S + 2


async def test_a_server_that_says_nothing_at_first_is_served_by_at_its_next_chance(cluster: Cluster) -> None:
    """One that is being killed, or that does not serve yet, takes connections; one address is no reason to wait."""
    proxy = Proxy(None, cluster.endpoints[0])
    await proxy.start()
    proxy.is_silent = True
    async with connected(f"zk://{proxy.endpoint}/test/{uuid.uuid4().hex}", must_answer=False) as medium:
        began = time.monotonic()
        await until(lambda: bool(medium._bridge.troubles))
        assert "said nothing" in medium._bridge.troubles[0].reason
        proxy.is_silent = False
        await until(lambda: medium._bridge.is_connected)
        assert time.monotonic() - began < PATIENCE_S + 2
        assert medium._bridge._client._session_timeout == SESSION_S * 1000
    await proxy.stop()


async def test_a_frozen_server_is_noticed_within_15_s_and_does_not_hold_up_closing(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster:
        medium = await connect(parse_server_url(cluster.url(), {}))
        await medium.commit([], [Put("a", b"")])
        async with following(medium) as follower:
            await cluster.members[0].freeze()
            began = time.monotonic()
            with pytest.raises(Unknown):
                await medium.commit([], [Put("a", b"2")])
            await until(lambda: isinstance(follower.error, Unavailable), deadline_s=15 - (time.monotonic() - began))
        before = time.monotonic()
        await medium.close()
        assert time.monotonic() - before < 6
        with pytest.raises(Unavailable):
            await medium.read(["a"])


async def test_what_is_asked_while_no_server_is_there_was_surely_not_sent(tmp_path: Path) -> None:
    """kazoo would keep it and send it later."""
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        revision = await medium.commit([], [Put("a", b"")])
        await cluster.members[0].kill()
        with pytest.raises((Unavailable, Unknown)):
            await medium.commit([Unchanged("a", revision)], [Put("a", b"")])
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("late", b"")])
        before = time.monotonic()
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("late", b"")])
        assert time.monotonic() - before < 1
        await cluster.members[0].start()
        await cluster.until_healthy()
        await until(lambda: medium._bridge.is_connected)

        assert await medium.read(["late"]) == [None]


async def test_a_store_that_is_away_can_be_opened_and_serves_when_it_comes(tmp_path: Path) -> None:
    cluster = Cluster("zookeeper", tmp_path)
    with pytest.raises(StoreUnavailable, match="refused"):
        await connect(parse_server_url(cluster.url(), {}))
    async with connected(cluster.url(), must_answer=False) as medium:
        with pytest.raises(Unavailable):
            await medium.read(["a"])
        async with cluster:
            await until(lambda: medium._bridge.is_connected)
            await medium.commit([], [Put("a", b"")])


async def test_a_leader_without_followers_serves_no_reads(tmp_path: Path) -> None:
    """A read behind `sync` alone would be answered from the past (ZOOKEEPER-1675)."""
    async with Cluster("zookeeper", tmp_path, members=3) as cluster:
        leader = await cluster.leader()
        alone = parse_server_url(cluster.url(), {})
        medium = await connect(replace(alone, endpoints=(alone.endpoints[leader],)))
        await medium.commit([], [Put("a", b"")])
        for index in {0, 1, 2} - {leader}:
            await cluster.members[index].freeze()
        with pytest.raises(Unavailable):
            await medium.read(["a"])
        await medium.close()


async def test_a_killed_leader_costs_some_seconds_and_no_acknowledged_commit(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, members=3) as cluster, connected(cluster.url()) as medium:
        await medium.commit([], [Put("a", b"1")])
        await cluster.members[await cluster.leader()].kill()

        async def write() -> int:
            async with asyncio.timeout(30):
                while True:
                    try:
                        return await medium.commit([Present("a")], [Put("b", b"")])
                    except (Unavailable, Unknown):
                        await asyncio.sleep(0.1)

        assert await write() > 2**32, "the new leader's zxids begin with its epoch"
        assert plain(await medium.scan("")) == {"a": b"1", "b": b""}


async def test_a_zookeeper_that_was_wiped_is_met_again_without_its_past(tmp_path: Path) -> None:
    """A server hangs up on a client that has seen later transactions than itself, and says nothing."""
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        for number in range(50):
            reached = await medium.commit([], [Put("k", str(number).encode())])
        follower = Follower(medium, reached)
        await until(lambda: bool(follower.steps))
        await cluster.wipe_all()

        refused = await until_compacted(medium, reached)
        assert isinstance(follower.error, Unavailable)
        assert "went back in time" in str(refused) or "wiped" in str(refused)
        with pytest.raises(Conflict):
            await medium.commit([Unchanged("k", reached)], [Put("k", b"decided before")])
        assert await medium.scan("") == Snapshot((), await medium.revision())
        await medium.commit([Absent("k")], [Put("k", b"anew")])


async def test_a_zookeeper_set_up_anew_is_told_from_the_old_one_whatever_its_revisions(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path) as cluster, connected(cluster.url()) as medium:
        reached = await medium.commit([], [Put("k", b"1")])
        follower = Follower(medium, reached)
        await until(lambda: bool(follower.steps))
        await cluster.wipe_all()
        async with connected(cluster.url()) as other:
            for number in range(50):
                assert await other.commit([], [Put("k", str(number).encode())]) > 0
            assert await other.revision() > reached

        assert "wiped" in str(await until_compacted(medium, reached))


async def until_compacted(medium: ZookeeperMedium, after: int) -> Compacted:
    async with asyncio.timeout(4 * FORGET_AFTER_S):
        while True:
            follower = Follower(medium, after)
            await asyncio.wait([follower.task], timeout=1.0)
            follower.task.cancel()
            if isinstance(follower.error, Compacted):
                return follower.error
            await asyncio.sleep(0.1)
