"""An etcd that is away, frozen, full, or without a majority, on real servers of 3.4 and 3.5."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from backends.etcd import EtcdMedium, connect
from backends.store import (
    Absent,
    Broken,
    Put,
    Unavailable,
    Unknown,
)
from backends.url import parse_server_url
from kvnet.errors import (
    StoreBroken,
    StoreUnavailable,
)
from tests.servers.binaries import Kind
from tests.servers.cluster import Cluster
from tests.store import etcd_kit as kit
from tests.store.etcd_kit import DEADLINE_S, everything, following, next_step, opened
from tests.store.watching import until

pytestmark = pytest.mark.anyio
kind = kit.kind


async def test_a_server_that_is_away_is_unavailable_at_once_and_again_there_later(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster:
        await cluster.kill_all()
        with pytest.raises(StoreUnavailable, match="Connection refused"):
            async with opened(cluster.url()):
                pass
        async with opened(cluster.url(), must_answer=False) as medium:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await medium.commit([], [Put("k", b"1")])
            assert time.monotonic() - began < 3.0
            await cluster.start()
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    with suppress(Unavailable):
                        await medium.commit([Absent("k")], [Put("k", b"1")])
                        break
                    await asyncio.sleep(0.05)


async def test_a_commit_whose_answer_is_lost_is_unknown(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium:
        await medium.commit([], [Put("k", b"1")])
        await cluster.members[0].freeze()
        writing = asyncio.ensure_future(medium.commit([], [Put("k", b"2")]))
        reading = asyncio.ensure_future(medium.read(["k"]))
        await asyncio.wait([writing, reading], timeout=0.2)
        await cluster.members[0].kill()

        with pytest.raises(Unknown):
            await writing
        with pytest.raises(Unavailable):
            await reading


async def test_a_frozen_server_costs_a_commit_its_bound_and_the_next_are_not_even_sent(
    kind: Kind, tmp_path: Path
) -> None:
    async with Cluster(kind, tmp_path) as cluster, opened(cluster.url()) as medium, following(medium) as steps:
        await cluster.members[0].freeze()
        began = time.monotonic()
        watching = asyncio.ensure_future(next_step(steps, 20.0))
        with pytest.raises(Unknown):
            await medium.commit([], [Put("k", b"1")])
        assert time.monotonic() - began < 6.0
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("k", b"2")])
        assert time.monotonic() - began < 10.0
        with pytest.raises(Unavailable):
            await watching
        assert time.monotonic() - began < 15.0


async def test_closing_ends_what_is_under_way_without_cancelling_who_waits(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path) as cluster:
        medium = await connect(parse_server_url(cluster.url(), {}), rng=random.Random(7))
        steps = medium.follow(None, everything)
        await next_step(steps)
        await cluster.members[0].freeze()
        under_way = [
            asyncio.ensure_future(medium.commit([], [Put("k", b"1")])),
            asyncio.ensure_future(medium.revision()),
            asyncio.ensure_future(next_step(steps)),
        ]
        await asyncio.wait(under_way, timeout=0.2)
        await medium.close()
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [Unknown, Unavailable, Unavailable]
        with pytest.raises(Unavailable):
            await medium.revision()
        await medium.close()


async def fill(medium: EtcdMedium) -> None:
    for i in range(100):
        await medium.commit([], [Put(f"k/{i}", bytes(200_000))])


async def test_a_full_etcd_says_what_to_do_and_still_reads(kind: Kind, tmp_path: Path) -> None:
    options = [f"--quota-backend-bytes={4 << 20}"]
    async with Cluster(kind, tmp_path, options=options) as cluster, opened(cluster.url()) as medium:
        with pytest.raises(Broken, match="compact"):
            await fill(medium)

        assert len((await medium.scan("k/")).entries) > 5
        with pytest.raises(StoreBroken, match="defrag"):
            async with opened(cluster.url()):
                pass
        async with opened(cluster.url(), must_answer=False) as another:
            assert await another.revision() > 0


# --- three members ---


async def test_a_frozen_member_costs_a_few_seconds_and_only_once(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        in_use = medium.cluster._order()[0].name
        member = next(member for member in cluster.members if member.endpoint == in_use)
        await member.freeze()
        began = time.monotonic()
        await asyncio.gather(*(medium.read(["k"]) for _ in range(64)))
        assert time.monotonic() - began < 5.0
        began = time.monotonic()
        for _ in range(20):
            await medium.commit([], [Put("k", b"1")])
        assert time.monotonic() - began < 5.0
        async with following(medium) as steps:
            revision = await medium.commit([], [Put("k", b"2")])
            assert (await next_step(steps)).revision == revision


async def test_a_dead_member_costs_nothing_that_was_not_under_way(kind: Kind, tmp_path: Path) -> None:
    async with Cluster(kind, tmp_path, members=3) as cluster, opened(cluster.url()) as medium:
        leader = await cluster.leader()
        in_use = next(m for m in cluster.members if m.endpoint == medium.cluster._order()[0].name)
        if in_use.index == leader:  # the loss of the leader is another test
            medium.cluster.leave(medium.cluster._order()[0])
            in_use = next(m for m in cluster.members if m.endpoint == medium.cluster._order()[0].name)
        await in_use.kill()
        await until(lambda: not medium.cluster._order()[0].is_connected)

        for i in range(20):
            await medium.commit([], [Put("k", b"%d" % i)])


async def test_without_a_majority_nobody_hangs(kind: Kind, tmp_path: Path) -> None:
    """A member without a leader says so: also to watches, which would otherwise look quiet for ever."""
    async with (
        Cluster(kind, tmp_path, members=3) as cluster,
        opened(cluster.url()) as medium,
        following(medium) as steps,
    ):
        await medium.commit([], [Put("k", b"1")])
        await next_step(steps)
        in_use = medium.cluster._order()[0].name
        others = [member for member in cluster.members if member.endpoint != in_use]
        await asyncio.gather(*(member.kill() for member in others))

        with pytest.raises(Unavailable):
            await next_step(steps, 15.0)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await medium.commit([], [Put("k", b"2")])
        assert time.monotonic() - began < 2.0
        await asyncio.gather(*(member.start() for member in others))
        await cluster.until_healthy()
        [entry] = await medium.read(["k"])
        assert entry is not None
        assert entry.value == b"1"
