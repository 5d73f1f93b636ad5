"""What a new life of the worker takes over, and what it lives on when the store is away."""

from __future__ import annotations

import asyncio

import pytest

from datapath.objects import CreateLink, DeleteLink
from kvnet import keys
from kvnet.errors import ControllerUnreachable, StoreUnavailable
from tests.unit.worker.kit import World, until, veth
from tests.unit.worker.life import NET

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


async def attached(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    await asyncio.sleep(5)


async def test_a_restart_rebuilds_nothing(world: World) -> None:
    await attached(world)
    before = world.hosts["h1"].state()
    await world.crash()
    h1 = await world.start()
    assert h1.kernel.applied == []
    assert h1.host.state() == before
    assert [record.endpoint for record in h1.worker.attachments] == ["e1"]
    assert (await h1.attach("c1", id="e1"))["endpoint"]["id"] == "e1"


async def test_what_changed_while_the_worker_was_away_is_caught_up(world: World) -> None:
    await attached(world)
    await world.crash()
    await world.register("h2")
    peer = await world.create_endpoint("peer", "h2")
    h1 = await world.start()
    assert peer.addresses[0].packed in {n.address for n in h1.host.state(NET).neighbours}


async def test_a_namespace_that_ended_while_the_worker_was_away_is_released(world: World) -> None:
    await attached(world)
    await world.crash()
    world.hosts["h1"].remove_namespace(C1)
    await world.start()
    await until(lambda: not world.endpoints(), seconds=2.0)


async def test_after_a_reboot_nothing_of_before_is_left(world: World) -> None:
    await attached(world)
    await world.crash()
    world.hosts["h1"].reboot()
    world.hosts["h1"].add_namespace(C1)  # the same path, another namespace
    h1 = await world.start()
    await until(lambda: not world.endpoints() and not h1.host.tables.links, seconds=2.0)
    assert not h1.host.tables.namespaces[C1]


async def test_while_the_store_is_away_a_boot_restores_the_last_known_state(world: World) -> None:
    await world.register("h2")
    peer = await world.create_endpoint("peer", "h2")
    await attached(world)
    await world.crash()
    world.outages.store = world.outages.controller = True
    host = world.hosts["h1"]
    host.meddle(*(DeleteLink(link) for link in list(host.tables.links.values())))
    h1 = await world.start(ready=False)
    await until(lambda: veth("e1") in h1.host.tables.links or bool(h1.host.tables.links), seconds=10)
    assert peer.addresses[0].packed in {n.address for n in h1.host.state(NET).neighbours}
    with pytest.raises(ControllerUnreachable):
        await h1.attach("c1", name="other")
    world.outages.store = world.outages.controller = False
    await h1.until_ready()


async def test_with_a_store_of_its_own_the_refusal_names_the_store(world: World) -> None:
    world.outages.store = True
    h1 = await world.start(ready=False, store="etcd://somewhere")
    h1.host.add_namespace(C1)
    with pytest.raises(StoreUnavailable):
        await h1.attach("c1")


async def test_the_last_known_state_removes_nothing_that_is_newer(world: World) -> None:
    await attached(world)
    h1 = world.running["h1"]
    h1.host.add_namespace("/run/netns/c2")
    await world.register("h2")
    await h1.attach("c2", name="c2", id="e2")
    await world.create_endpoint("late", "h2")
    await asyncio.sleep(0.2)  # less than until the next snapshot
    before = h1.host.state()
    await world.crash()
    world.outages.store = world.outages.controller = True
    h1 = await world.start(ready=False)
    await asyncio.sleep(120)
    assert h1.host.state() == before
    assert not [op for op in h1.kernel.applied if isinstance(op, CreateLink | DeleteLink)]


async def test_a_store_that_goes_away_later_changes_nothing(world: World) -> None:
    await attached(world)
    h1 = world.running["h1"]
    before = h1.host.state()
    world.outages.store = world.outages.controller = True
    await asyncio.sleep(600)
    assert h1.host.state() == before
    assert world.endpoints() == {"e1"}
    world.outages.store = world.outages.controller = False
    await h1.until_ready()
    assert h1.host.state() == before


async def test_damage_is_repaired_while_the_store_is_away(world: World) -> None:
    await attached(world)
    h1 = world.running["h1"]
    before = h1.host.state()
    world.outages.store = True
    await asyncio.sleep(60)
    h1.host.meddle(DeleteLink(h1.host.tables.links[f"kvx{NET}"]))
    await until(lambda: f"kvx{NET}" in h1.host.tables.links, seconds=1.0)
    await asyncio.sleep(1)
    assert h1.host.state() == before


async def test_a_stopped_worker_leaves_the_networks_and_its_proof_of_life(world: World) -> None:
    await attached(world)
    before = world.hosts["h1"].state()
    await world.stop()
    assert world.hosts["h1"].state() == before
    assert keys.alive("h1") in world.state.entries
    h1 = await world.start()
    assert h1.kernel.applied == []
