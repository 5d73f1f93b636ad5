"""When the store cannot be believed: nothing is removed, and it is said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.memory import MemoryState
from backends.store import Compacted, Delete, Entry, Put
from datapath.objects import DeleteLink
from kvnet import codec, keys
from kvnet.errors import AnotherCluster, HostFenced, StoreBroken, StoreWentBack
from kvnet.marks import Accepted, Cluster
from kvnet.model import Observed
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import Running, World, until, veth
from tests.unit.worker.life import EPOCH, NET

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


@pytest.fixture
async def h1(world: World) -> Running:
    running = await world.start()
    running.host.add_namespace(C1)
    await running.attach("c1", id="e1")
    await asyncio.sleep(5)
    return running


async def codes(worker: Running) -> set[str]:
    return {condition["code"] for condition in (await worker.status())["conditions"]}


async def require_untouched(worker: Running, code: str) -> None:
    await asyncio.sleep(200)
    assert veth("e1") in worker.host.tables.links
    assert f"kvx{NET}" in worker.host.tables.links
    assert {record.endpoint for record in worker.worker.attachments} == {"e1"}
    assert code in await codes(worker)
    with pytest.raises((StoreBroken, StoreWentBack, AnotherCluster, HostFenced)):
        await worker.attach("c1", name="another")


async def test_a_store_that_was_emptied_takes_nothing_away(world: World, h1: Running) -> None:
    client = world.client()
    await client.commit([], [Delete(key) for key in world.state.entries])
    await require_untouched(h1, "cluster-missing")


@pytest.mark.parametrize("sentinel_goes", [0.05, 3.0])
async def test_a_store_that_is_emptied_key_by_key_takes_nothing_away_once_the_sentinel_is_gone(
    world: World, h1: Running, sentinel_goes: float
) -> None:
    """The other keys' end may be told before the sentinel's."""
    tables = h1.worker.view.meta.mirror
    tables._on_change = lambda _: None  # its watch lags behind for ever
    tables._entries = dict(tables._entries)
    client = world.client()
    await client.commit([], [Delete(key) for key in list(world.state.entries)])
    await asyncio.sleep(sentinel_goes)
    assert veth("e1") in h1.host.tables.links
    assert {record.endpoint for record in h1.worker.attachments} == {"e1"}


async def test_another_cluster_takes_nothing_away(world: World, h1: Running) -> None:
    await world.client().commit([], [Put(keys.CLUSTER, codec.encode(Cluster("c-2", EPOCH)))])
    await require_untouched(h1, "another-cluster")


async def test_another_cluster_after_a_restart_takes_nothing_away(world: World, h1: Running) -> None:
    await world.crash()
    world.state = MemoryState()
    await world.found(overlay(), cluster="c-2")
    again = await world.start(ready=False)
    await asyncio.sleep(30)
    await require_untouched(again, "another-cluster")
    assert not any(key.startswith(keys.OBSERVED) for key in world.state.entries)


async def test_an_operator_may_accept_another_cluster(world: World, h1: Running) -> None:
    await world.crash()
    world.state = MemoryState()
    await world.found(overlay(), cluster="c-2")
    again = await world.start(accept_store=True)
    await until(lambda: not again.host.tables.links and not len(again.worker.attachments))


async def test_a_store_restored_from_a_backup_takes_nothing_away(world: World, h1: Running) -> None:
    """Its revisions grow again past what this host had seen; that must not make it believable."""
    await world.crash()
    world.state = MemoryState()
    await world.found(overlay())
    again = await world.start(ready=False)
    await asyncio.sleep(30)
    client = world.client()
    for number in range(200):
        await client.commit([], [Put("pools/x", str(number).encode())])
    await require_untouched(again, "store-went-back")


async def test_a_replica_that_lags_behind_is_waited_for(world: World, h1: Running) -> None:
    await world.crash()
    behind = MemoryState()
    behind.entries, behind.revision = dict(world.state.entries), 1
    ahead = world.state.revision
    world.state = behind
    again = await world.start(ready=False)
    await asyncio.sleep(1)
    assert "store-went-back" in await codes(again)
    behind.revision = ahead + 5
    await world.client().commit([], [Put("pools/x", b"1")])
    await again.until_ready()
    assert veth("e1") in again.host.tables.links


async def test_in_doubt_damage_is_still_repaired(world: World, h1: Running) -> None:
    await world.client().commit([], [Delete(keys.CLUSTER)])
    await asyncio.sleep(5)
    h1.host.meddle(DeleteLink(h1.host.tables.links[f"kvx{NET}"]))
    await until(lambda: f"kvx{NET}" in h1.host.tables.links, seconds=2.0)


async def test_a_damaged_endpoint_does_not_tear_its_network_down(world: World, h1: Running) -> None:
    before = h1.host.state()
    await world.client().commit([], [Put(keys.endpoint(NET, "e1"), b"not json")])
    await asyncio.sleep(200)
    assert h1.host.state() == before
    network = (await h1.status())["networks"][0]
    assert "store-broken" in {condition["code"] for condition in network["conditions"]}


async def test_a_damaged_endpoint_seen_at_the_start_does_not_tear_its_network_down(world: World, h1: Running) -> None:
    before = h1.host.state()
    await world.crash()
    await world.client().commit([], [Put(keys.endpoint(NET, "e1"), b"not json")])
    again = await world.start()
    await asyncio.sleep(200)
    assert again.host.state() == before


async def accept(world: World, name: str, at: float, cluster: str = "c-1") -> None:
    value = codec.encode(Accepted(name, cluster, at, "operator"))
    await world.client().commit([], [Put(keys.ACCEPTED, value)])


async def go_back(world: World, entries: dict[str, Entry], revision: int) -> None:
    """The server is put back to an older snapshot of itself, and every connection to it breaks."""
    world.state.entries = dict(entries)
    world.state.revision = world.state.compacted = revision
    world.state._last.clear()
    for running in world.running.values():
        for watch in list(running.store.inner._watches):
            watch.fail(Compacted("the server was restored"))


async def test_one_acceptance_in_the_store_is_enough_for_a_worker_that_saw_it_go_back(
    world: World, h1: Running
) -> None:
    entries, revision = dict(world.state.entries), world.state.revision
    client = world.client()
    for number in range(50):
        await client.commit([], [Put("pools/x", str(number).encode())])
    await asyncio.sleep(5)
    await go_back(world, entries, revision)
    await asyncio.sleep(30)
    assert "store-went-back" in await codes(h1)
    report = codec.decode(Observed, world.state.entries[keys.observed("h1")].value)
    assert {c.code for c in report.networks[NET].conditions} == {"store-went-back"}

    await accept(world, "a1", EPOCH)

    await until(lambda: h1.worker.source.doubt() is None, seconds=30)
    await h1.until_ready()
    assert veth("e1") in h1.host.tables.links
    h1.host.add_namespace("/run/netns/c2")
    await h1.attach("c2", name="c2")
    await asyncio.sleep(5)
    report = codec.decode(Observed, world.state.entries[keys.observed("h1")].value)
    assert report.networks[NET].conditions == ()
    assert 0 < report.networks[NET].version <= world.state.revision


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.2, 0.3, 0.4])
@pytest.mark.parametrize("is_paused", [False, True])
async def test_what_is_built_counts_as_built_soon_after_an_acceptance(
    world: World, h1: Running, after_s: float, *, is_paused: bool
) -> None:
    """Also where all is read anew so quickly that nobody sees the doubt."""
    if is_paused:
        await h1.worker.pause.pause({"seconds": 3600})
    await asyncio.sleep(after_s)
    accepted = world.state.revision

    await accept(world, "a1", EPOCH)

    def is_told() -> bool:
        report = codec.decode(Observed, world.state.entries[keys.observed("h1")].value)
        return report.networks[NET].version > accepted

    await until(is_told, seconds=5)


async def test_an_endpoint_that_the_accepted_store_does_not_know_is_taken_away(world: World, h1: Running) -> None:
    entries = {k: e for k, e in world.state.entries.items() if not k.startswith((keys.ENDPOINTS, keys.LOCAL))}
    await go_back(world, entries, 3)
    await asyncio.sleep(30)
    assert veth("e1") in h1.host.tables.links

    await accept(world, "a1", EPOCH)

    await until(lambda: veth("e1") not in h1.host.tables.links, seconds=60)
    assert not len(h1.worker.attachments)


async def test_a_worker_that_was_down_during_the_restore_takes_the_acceptance_at_its_start(
    world: World, h1: Running
) -> None:
    await world.crash()
    world.state = MemoryState()
    await world.found(overlay())
    await accept(world, "a1", EPOCH)
    again = await world.start(ready=False)
    await again.until_ready()
    assert "store-went-back" not in await codes(again)


async def test_an_acceptance_that_was_taken_before_accepts_nothing_more(world: World, h1: Running) -> None:
    await accept(world, "a1", EPOCH)
    await asyncio.sleep(5)
    await accept(world, "a2", EPOCH + 60)
    await asyncio.sleep(5)
    entries, revision = dict(world.state.entries), world.state.revision
    client = world.client()
    for number in range(9):
        await client.commit([], [Put("pools/x", str(number).encode())])
    await asyncio.sleep(5)
    await go_back(world, entries, revision)
    await asyncio.sleep(5)
    await accept(world, "a1", EPOCH)
    await require_untouched(h1, "store-went-back")


async def test_an_acceptance_of_another_cluster_is_none(world: World, h1: Running) -> None:
    await go_back(world, dict(world.state.entries), 3)
    await accept(world, "a1", EPOCH, cluster="c-2")
    await require_untouched(h1, "store-went-back")


async def test_a_sentinel_that_is_written_anew_is_doubted(world: World, h1: Running) -> None:
    await world.client().commit([], [Put(keys.CLUSTER, codec.encode(Cluster("c-1", EPOCH)))])
    await require_untouched(h1, "store-went-back")


async def test_a_worker_that_was_told_its_cluster_claims_nothing_in_another(world: World) -> None:
    await world.client().commit([], [Put(keys.CLUSTER, codec.encode(Cluster("c-9", EPOCH)))])
    before = dict(world.state.entries)
    with pytest.raises(AnotherCluster):
        await world.start(cluster="c-1", ready=False)
    assert world.state.entries == before
    assert not world.state.leases


async def test_a_worker_that_was_told_its_cluster_waits_for_it_and_writes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    again = await world.start(cluster="c-1", ready=False)
    await asyncio.sleep(30)
    assert not world.state.entries
    assert not world.state.leases
    await world.found(overlay())
    await again.until_ready()
    await world.close()


async def test_an_own_report_older_than_what_was_acknowledged_proves_that_the_store_went_back(
    world: World, h1: Running
) -> None:
    """Restored from a backup, and written since: its revisions are higher than ever, and it does not know e1."""
    key = keys.observed("h1")
    known = world.state.entries[key]
    world.state.entries[key] = Entry(key, known.value, known.version - 1)  # nobody is told: as it was in the backup
    client = world.client()
    gone = [one for one in world.state.entries if one.startswith((keys.ENDPOINTS, keys.LOCAL, keys.ADDRESSES))]

    await client.commit([], [Delete(one) for one in gone])

    await require_untouched(h1, "store-went-back")
    assert world.state.entries[key].version == known.version - 1, "no report covers the proof up"
