"""Nobody needs to ask: a journal that does not fit its seals any more is told in log, status and metrics."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic

import pytest

from backends.memory import MemoryStore
from backends.open import open_store
from backends.store import Delete, Entry, Put, Store
from controller.audit.vigil import MEMORY_S, STORE_S
from controller.cluster import Cluster
from controller.settings import Clock
from kvnet import keys
from tests.api.under_test import eventually as eventually_asked
from tests.security.admitted import guarded
from tests.unit.controller.kit import ME, FakeTime, eventually, network, opened
from worker.doctor import gather_services
from worker.doctor.checks_services import check_controller

pytestmark = pytest.mark.anyio


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


async def sealed(cluster: Cluster, time: FakeTime, count: int = 3) -> None:
    for i in range(count):
        time.pass_by(1.0)
        await cluster.networks.create(network(f"n{i}"), ME)
    version = cluster.networks.get(f"n{count - 1}").version
    await eventually(lambda: cluster.events.revision >= version)
    await cluster.sealing.seal()


async def entries(store: Store) -> list[Entry]:
    return [e for e in (await store.list(keys.JOURNAL)).entries if e.key != keys.JOURNAL_FLOOR]


async def looked(cluster: Cluster, time: FakeTime) -> str:
    """What it says after the next look."""
    time.pass_by(MEMORY_S + 1)
    await cluster.vigil.round()
    return cluster.vigil.broken.detail if cluster.vigil.broken is not None else ""


async def test_a_journal_that_fits_is_not_broken_however_much_comes_and_is_trimmed(
    store: MemoryStore, time: FakeTime
) -> None:
    async with opened(store, time, journal_entries=4) as cluster:
        assert await looked(cluster, time) == ""
        for _ in range(3):
            await sealed(cluster, time)
            assert await looked(cluster, time) == ""
            await cluster.upkeep.sweep()
            assert await looked(cluster, time) == ""
            for i in range(3):
                await cluster.networks.delete(f"n{i}", ME)


def removed(entry: Entry) -> list[Delete | Put]:
    return [Delete(entry.key)]


def changed(entry: Entry) -> list[Delete | Put]:
    return [Put(entry.key, entry.value.replace(b"tester", b"nobody"))]


@pytest.mark.parametrize("tamper", [removed, changed])
async def test_what_is_done_to_the_journal_past_everybody_is_told_within_a_minute_by_every_replica(
    store: MemoryStore, time: FakeTime, tamper: Callable[[Entry], list[Delete | Put]], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(store, time) as one, opened(store, time, seed=2) as two:
        await sealed(one, time)
        assert await looked(one, time) == await looked(two, time) == ""
        victim = (await entries(store))[1]
        revision = await store.commit([], tamper(victim))
        for cluster in (one, two):
            await cluster._state.journal.until(revision, 5.0)

        with caplog.at_level(logging.ERROR, "kvnet.audit"):
            for cluster in (one, two):
                assert "were sealed" in await looked(cluster, time)
        assert [one.message for one in caplog.records] == ["audit-broken"] * 2
        assert one.vigil.broken is not None
        since = one.vigil.broken.since
        await looked(one, time)
        assert one.vigil.broken.since == since, "found once"


async def test_a_chain_made_anew_is_told(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as cluster:
        await sealed(cluster, time)
        (seal,) = (await store.list(keys.SEALS)).entries
        await store.commit([], [Delete(seal.key)])
        async with opened(store, time, seed=2) as forger:
            time.pass_by(1.0)
            await forger.sealing.seal()
        await eventually(lambda: seal.key in cluster._state.seals.entries)

        assert "made anew" in await looked(cluster, time)


async def test_what_is_changed_beneath_the_store_the_elected_replica_finds(tmp_path: Path, time: FakeTime) -> None:
    file = tmp_path / "kvnet.db"
    async with await open_store(f"sqlite://{file}") as store, opened(store, time) as cluster:
        await sealed(cluster, time)
        cluster.vigil._is_leader = lambda: True
        assert await looked(cluster, time) == ""
        with sqlite3.connect(file) as raw:
            sql = "update entries set value = replace(value, 'tester', 'nobody') where key like 'journal/%'"
            assert raw.execute(sql).rowcount
        raw.close()

        time.pass_by(STORE_S * 1.3)
        assert "is not what was sealed" in await looked(cluster, time)


async def test_what_fits_again_is_not_told_any_more(store: MemoryStore, time: FakeTime) -> None:
    """As when it was trimmed: status and metrics are of now, the log has what was."""
    async with opened(store, time) as cluster:
        await sealed(cluster, time)
        added = keys.seal(7)
        await store.commit([], [Put(added, b"{}")])
        await eventually(lambda: added in cluster._state.seals.entries)
        assert "no seal that can be read" in await looked(cluster, time)
        await store.commit([], [Delete(added)])

        assert await looked(cluster, time) == ""


async def test_a_store_that_does_not_answer_is_no_broken_chain(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as cluster:
        await sealed(cluster, time)
        cluster.vigil._is_leader = lambda: True
        await store.close()

        assert await looked(cluster, time) == ""


def hurried() -> Clock:
    """A minute is over in some milliseconds, and nobody sleeps for long."""
    return Clock(sleep=lambda seconds: asyncio.sleep(min(seconds, 0.05)), monotonic=lambda: monotonic() * 1000)


async def test_status_and_metrics_say_it_and_who_sees_some_networks_only_is_not_told() -> None:
    held = MemoryStore()

    async def opener(_url: str) -> Store:
        return held

    async with guarded("memory://", opener=opener, clock=hurried()) as site:
        scoped = await site.make("red", "viewer", scope={"team": "red"})
        assert "kvnet_audit_broken 0.0" in (await site.admin.get("/metrics")).text
        assert (await site.admin.get("/v1/status")).json()["warnings"] == []
        await held.commit([], [Put(keys.seal(900), b"{}")])

        async def is_told() -> bool:
            return "kvnet_audit_broken 1.0" in (await site.admin.get("/metrics")).text

        await eventually_asked(is_told)
        (warning,) = (await site.admin.get("/v1/status")).json()["warnings"]
        assert warning["code"] == "audit-broken"
        assert "kvnet audit verify" in warning["fix"]
        async with site.client(scoped) as red:
            assert (await red.get("/v1/status")).json()["warnings"] == []

        assert await told_by_doctor(site.api.url, site.token) == warning["detail"]
        assert await told_by_doctor(site.api.url, scoped) == ""
        host = await site.make("h1", "host", host="h1")
        in_short = await told_by_doctor(site.api.url, host)
        assert in_short.startswith("the journal does not fit its seals since ")
        assert warning["detail"].startswith(f"{in_short}: "), "nothing of what is in it"


async def told_by_doctor(url: str, token: str) -> str:
    """By a worker's, too, whose credential is its host's."""
    found, _ = await gather_services.controller(url, token)
    checks = {check.id: check for check in check_controller(found, own="0.1.0")}
    if "controller.audit" not in checks:
        return ""
    assert "kvnet audit verify" in checks["controller.audit"].fix
    return checks["controller.audit"].found
