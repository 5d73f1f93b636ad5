"""Reports of many hosts do not come at once; of few they do, and each says what is so when it is written."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from backends.memory import MemoryStore
from kvnet import codec, keys
from kvnet.model import NetworkObserved, Observed
from worker.log import Log
from worker.ports import Time
from worker.report import FEW_HOSTS, LONGEST_SPREAD_S, Reporter
from worker.settings import Timing
from worker.trust import Trust

pytestmark = pytest.mark.anyio

NETWORK = "00000000000a"


class Trusting:
    """What a reporter needs of it."""

    reported = 0

    def note_report(self, version: int) -> None:
        self.reported = version

    def compare_report(self, entry: object, known: int) -> None:
        return None


class Sleeps:
    """How long somebody slept; wakes when told to."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.over.wait()


class Site:
    def __init__(self, hosts: int) -> None:
        self.store = MemoryStore()
        self.sleeps = Sleeps()
        self.version = 1
        time = Time(sleep=self.sleeps, rng=random.Random(7))
        content = lambda: {NETWORK: NetworkObserved(self.version)}  # noqa: E731 - read again at every report
        trust = cast(Trust, Trusting())
        log = Log(io.StringIO())
        self.reporter = Reporter(
            self.store, "h1", content, trust, time=time, timing=Timing(), log=log, hosts=lambda: hosts
        )

    async def told(self) -> int:
        """The version of the report in the store; 0 if there is none."""
        entry = await self.store.get(keys.observed("h1"))
        return 0 if entry is None else codec.decode(Observed, entry.value).networks[NETWORK].version


@asynccontextmanager
async def reporting(hosts: int) -> AsyncIterator[Site]:
    site = Site(hosts)
    task = asyncio.create_task(site.reporter.run())
    yield site
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_of_few_hosts_each_tells_at_once() -> None:
    async with reporting(FEW_HOSTS - 1) as site:
        site.reporter.changed()
        await settled()

        assert await site.told() == 1


async def test_of_a_thousand_hosts_each_waits_a_moment_of_its_own_and_tells_what_is_so_then() -> None:
    async with reporting(1_000) as site:
        site.reporter.changed()
        await settled()

        assert await site.told() == 0
        assert 0.0 < site.sleeps.asked[0] < LONGEST_SPREAD_S

        site.version = 2
        site.sleeps.over.set()
        await settled()
        assert await site.told() == 2
