"""When the store cannot be believed: nothing is removed, and it is said."""

from __future__ import annotations

import asyncio

import pytest

from backends.memory import MemoryState
from backends.store import Delete, Put
from datapath.objects import DeleteLink
from kvnet import codec, keys
from kvnet.errors import StoreBroken
from kvnet.model import Cluster
from tests.unit.worker.kit import EPOCH, NET, Running, World, overlay, until, veth

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
    with pytest.raises(StoreBroken):
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
