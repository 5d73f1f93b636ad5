"""Who makes the seals, and when: one chain whatever the replicas believe, trimmed with its knowledge, and gone on with
after a restore. On real stores where asked (`--stores`)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.open import open_store
from backends.store import Delete, Put, Store
from controller import snapshot
from controller.audit.reading import look
from controller.audit.seal import Seal
from controller.audit.verify import Verdict
from controller.cluster import Cluster
from controller.restore import Restore
from kvnet import codec, keys
from tests import stores
from tests.unit.controller.kit import ME, FakeTime, eventually, network, opened

if TYPE_CHECKING:
    from tests.store.real import Clusters

pytestmark = pytest.mark.anyio

NETWORKS = 12


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def any_store(store_name: str, tmp_path: Path, clusters: Clusters, anyio_backend: str) -> AsyncIterator[Store]:
    async with await open_store(await stores.fresh_url(store_name, tmp_path, clusters)) as store:
        yield store


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


async def written(cluster: Cluster, time: FakeTime, count: int, prefix: str = "n") -> None:
    """So many networks, each in a commit of its own, and the journal's mirror has them."""
    for i in range(count):
        time.pass_by(1.0)
        await cluster.networks.create(network(f"{prefix}{i}"), ME)
    version = cluster.networks.get(f"{prefix}{count - 1}").version
    await eventually(lambda: cluster.events.revision >= version)


async def seals(store: Store) -> list[Seal]:
    return [codec.decode(Seal, entry.value) for entry in (await store.list(keys.SEALS)).entries]


def fits(verdict: Verdict) -> bool:
    assert verdict.ok, verdict.misfits
    return True


async def test_what_is_written_is_sealed_and_fits(any_store: Store, time: FakeTime) -> None:
    async with opened(any_store, time) as cluster:
        await written(cluster, time, 3)
        assert await cluster.sealing.seal() == 1
        await written(cluster, time, 3, "m")
        assert await cluster.sealing.seal() == 1
        assert await cluster.sealing.seal() == 0, "nothing new, nothing written"

        verdict = await cluster.audit()

        assert fits(verdict)
        assert verdict.unsealed == 0
        assert verdict.last is not None
        assert verdict.last.number == 2
        assert fits(await cluster.audit(verdict.last.head))


async def test_two_leaders_at_once_make_one_chain(any_store: Store, time: FakeTime) -> None:
    async with opened(any_store, time) as one, opened(any_store, time, seed=2) as two:

        async def write(cluster: Cluster, prefix: str) -> None:
            for i in range(NETWORKS):
                await cluster.networks.create(network(f"{prefix}{i}"), ME)

        async def lead(cluster: Cluster) -> None:
            while True:
                await cluster.sealing.seal()
                await asyncio.sleep(0)

        leading = [asyncio.create_task(lead(one)), asyncio.create_task(lead(two))]
        await asyncio.gather(write(one, "a"), write(two, "b"))
        newest = (await any_store.list(keys.JOURNAL)).entries
        await eventually(
            lambda: (
                one._state.chain.head is not None and one._state.chain.head.revision >= max(e.version for e in newest)
            )
        )
        for task in leading:
            task.cancel()
        await asyncio.gather(*leading, return_exceptions=True)

        verdict = await look(any_store, one._state.chain.seen)

        assert fits(verdict)
        assert verdict.unsealed == 0
        assert verdict.entries == len(newest)


async def test_a_burst_takes_a_seal_for_so_many_keys_and_not_one_for_each(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as cluster:
        note = (await store.list(keys.JOURNAL)).entries[0].value
        for i in range(1200):
            await store.commit([], [Put(keys.journal(time.now(), f"{i:012x}"), note)])
        await eventually(lambda: len(cluster._state.journal.entries) > 1200)

        assert await cluster.sealing.seal() == 3
        assert fits(await cluster.audit())


async def test_trimming_goes_from_seal_to_seal_and_is_not_missed(any_store: Store, time: FakeTime) -> None:
    async with opened(any_store, time, journal_entries=5) as cluster:
        for i in range(NETWORKS):
            await written(cluster, time, 1, f"n{i}-")
            await cluster.sealing.seal()

        await eventually_sweep(cluster)

        kept = [e for e in (await any_store.list(keys.JOURNAL)).entries if e.key != keys.JOURNAL_FLOOR]
        assert len(kept) <= 6
        verdict = await cluster.audit()
        assert fits(verdict)
        assert verdict.trimmed
        there = await seals(any_store)
        assert there[0].number == there[-1].anchor > 1, "seals of what is trimmed are gone but for the anchor"


async def eventually_sweep(cluster: Cluster) -> None:
    await cluster._state.reached(cluster._state.journal.revision, *cluster._state.tables)
    await eventually(lambda: cluster._state.is_in_step)
    assert (await cluster.upkeep.sweep()).done["journal"]


async def test_what_is_removed_past_the_controllers_is_found_though_the_journal_is_trimmed_later(
    store: MemoryStore, time: FakeTime
) -> None:
    async with opened(store, time, journal_entries=8) as cluster:
        for i in range(NETWORKS):
            await written(cluster, time, 1, f"n{i}-")
            await cluster.sealing.seal()
        await eventually_sweep(cluster)
        newest = (await store.list(keys.JOURNAL)).entries[-2]
        await store.commit([], [Delete(newest.key)])
        await written(cluster, time, 1, "later")
        await cluster.sealing.seal()

        verdict = await cluster.audit()

        assert not verdict.ok
        assert "0 entries where 1 were sealed" in verdict.misfits[0].what


async def test_a_head_that_is_removed_under_a_running_replica_is_not_replaced_silently(
    store: MemoryStore, time: FakeTime
) -> None:
    async with opened(store, time) as cluster:
        for name in ("a", "b"):
            await written(cluster, time, 1, name)
            await cluster.sealing.seal()
        await store.commit([], [Delete(keys.seal(2))])
        await eventually(lambda: keys.seal(2) not in cluster._state.seals.entries)
        await written(cluster, time, 1, "c")
        await cluster.sealing.seal()

        assert [seal.number for seal in await seals(store)] == [1, 3]
        assert "seal 2 is missing" in [m.what for m in (await cluster.audit()).misfits]
        assert not (await look(store, {})).ok, "whoever saw nothing of it finds it too"


async def test_a_store_without_seals_is_taken_over_with_what_is_in_it(any_store: Store, time: FakeTime) -> None:
    async with opened(any_store, time) as cluster:
        await written(cluster, time, 4)
    assert await seals(any_store) == []

    async with opened(any_store, time, seed=2) as cluster:
        assert await cluster.sealing.seal() == 1
        verdict = await cluster.audit()

    assert fits(verdict)
    assert verdict.begins == "begun"
    assert verdict.unsealed == 0


async def test_the_elected_replica_seals_by_itself(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, upkeep=True) as cluster:
        await cluster.networks.create(network(), ME)
        version = cluster.networks.get("my-net").version
        await eventually(lambda: (head := cluster._state.chain.head) is not None and head.revision >= version)
        assert fits(await cluster.audit())


async def test_after_a_restore_a_new_chain_says_so_and_follows_the_one_in_the_backup(
    any_store: Store, time: FakeTime
) -> None:
    async with MemoryStore() as old, opened(old, time) as cluster:
        await written(cluster, time, 3)
        await cluster.sealing.seal()
        last = (await seals(old))[-1]
        lines = list(snapshot.pack(await old.list(""), "memory", time.now()))

    await Restore(any_store, snapshot.unpack(lines), actor="root@h", clock=time.clock).run()

    async with opened(any_store, time, seed=2) as cluster:
        await cluster.sealing.seal()
        there = await seals(any_store)
        verdict = await cluster.audit()
    assert fits(verdict)
    assert there[0].begins == verdict.begins == "restored"
    assert (there[0].number, there[0].previous) == (last.number + 1, last.hash)


async def test_a_chain_made_anew_under_a_running_replica_is_found_by_it(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as cluster:
        await written(cluster, time, 2)
        await cluster.sealing.seal()
        (seal,) = (await store.list(keys.SEALS)).entries
        await store.commit([], [Delete(seal.key)])
        time.pass_by(1.0)
        async with opened(store, time, seed=2) as forger:
            await forger.sealing.seal()
            assert fits(await forger.audit())

        assert "made anew" in (await cluster.audit()).misfits[0].what


async def test_a_value_changed_in_the_file_itself_is_found(tmp_path: Path, time: FakeTime) -> None:
    file = tmp_path / "kvnet.db"
    async with await open_store(f"sqlite://{file}") as store, opened(store, time) as cluster:
        await written(cluster, time, 3)
        await cluster.sealing.seal()
        with sqlite3.connect(file) as raw:
            tables = [name for (name,) in raw.execute("select name from sqlite_master where type = 'table'")]
            changed = sum(
                raw.execute(f"update {table} set value = replace(value, 'tester', 'nobody')").rowcount
                for table in tables
                if "value" in {row[1] for row in raw.execute(f"pragma table_info({table})")}
            )
        raw.close()
        assert changed

        verdict = await cluster.audit()

    assert "is not what was sealed" in verdict.misfits[0].what


async def test_a_replica_whose_mirror_lags_seals_no_more_than_it_has_seen() -> None:
    """Nothing is claimed to be all there is before it is known to be."""
    state, time = MemoryState(), FakeTime()
    async with MemoryStore(state) as store, opened(store, time) as cluster:
        await written(cluster, time, 2)
        mirror = cluster._state.journal
        newest = max(e.version for e in mirror.entries.values())
        late = {key: e for key, e in mirror.entries.items() if e.version < newest}
        hidden = dict(mirror._entries)
        mirror._entries.clear()
        mirror._entries.update(late)

        await cluster.sealing.seal()
        mirror._entries.update(hidden)
        assert fits(await cluster.audit())
        await cluster.sealing.seal()

        verdict = await cluster.audit()
        assert fits(verdict)
        assert verdict.unsealed == 0
