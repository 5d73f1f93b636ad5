"""When the worker looks, and what it does about what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from datapath.objects import (
    CreateLink,
    DeleteLink,
    Failure,
    Foreign,
    Operation,
    RemoveVtep,
    ReplaceNeighbour,
    Veth,
    VtepEntry,
)
from kvnet.errors import ForeignObject
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import World, until
from tests.unit.worker.life import NET, NET2

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


async def test_an_overlay_appears_with_its_first_endpoint_and_goes_with_its_last(world: World) -> None:
    h1 = await world.start()
    await world.register("h2")
    await world.create_endpoint("peer", "h2")
    await asyncio.sleep(5)
    assert not h1.host.tables.links
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    assert f"kvx{NET}" in h1.host.tables.links
    await h1.detach(id="e1")
    await until(lambda: not h1.host.tables.links, seconds=1.0)
    assert not h1.worker.view.network_ids


async def test_a_store_change_is_planned_without_reading_the_kernel(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await world.register("h2")
    await asyncio.sleep(5)
    h1.host._hint.clear()
    reads = h1.host.reads
    peer = await world.create_endpoint("peer", "h2")
    await until(lambda: peer.addresses[0].packed in {n.address for n in h1.host.state(NET).neighbours}, seconds=0.02)
    assert h1.host.reads == reads


async def test_own_changes_come_back_as_hints_and_end_there(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(10)
    applied, reads = len(h1.kernel.applied), h1.host.reads
    await asyncio.sleep(40)
    assert len(h1.kernel.applied) == applied
    assert h1.host.reads <= reads + 2


async def test_an_entry_deleted_by_hand_is_back_within_a_second(world: World) -> None:
    await world.register("h2")
    await world.create_endpoint("peer", "h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    before = h1.host.state()
    entry = next(iter(before.vteps))
    h1.host.meddle(RemoveVtep(VtepEntry(*entry)))
    assert h1.host.state() != before
    await until(lambda: h1.host.state() == before, seconds=1.0)


async def test_damage_right_after_a_repair_is_mended_at_once_too(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    before = h1.host.state()
    for _ in range(5):
        for name in (f"kvx{NET}", f"kvb{NET}"):
            h1.host.meddle(DeleteLink(h1.host.tables.links[name]))
            await until(lambda: h1.host.state() == before, seconds=0.3)
            await asyncio.sleep(0.05)


async def test_a_burst_of_store_changes_is_gathered_into_few_passes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register("h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    began: list[float] = []
    apply = h1.host.apply

    async def slow(operations: Sequence[Operation]) -> list[Failure]:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1)
        return await apply(operations)

    monkeypatch.setattr(h1.host, "apply", slow)
    before = asyncio.get_running_loop().time()
    for number in range(50):
        await world.create_endpoint(f"peer{number}", "h2")
        await asyncio.sleep(0.02)
    await until(lambda: len(h1.host.state().vteps) == 50, seconds=2.0)
    assert began[0] - before < 0.02, "the first does not wait"
    assert all(later - earlier > 0.14 for earlier, later in pairwise(began)), "each is left alone for a moment"


async def test_lost_events_lead_to_a_look_at_everything(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    before = h1.host.state()
    h1.host.tables.routes.clear()  # nobody is told
    await asyncio.sleep(0.5)
    assert h1.host.state() != before
    h1.host.lose_events()
    await until(lambda: h1.host.state() == before, seconds=1.0)


async def test_a_change_that_nobody_was_told_of_is_found_by_the_periodic_pass(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    before = h1.host.state()
    h1.host.tables.routes.clear()
    await until(lambda: h1.host.state() == before, seconds=61.0)


async def test_whoever_fights_us_is_answered_ever_more_slowly(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    h1.kernel.applied.clear()

    async def fight() -> None:
        while True:
            link = h1.host.tables.links.get(f"kvx{NET}")
            if link is not None:
                h1.host.meddle(DeleteLink(link))
            await asyncio.sleep(0.01)

    fighter = asyncio.create_task(fight())
    await asyncio.sleep(60)
    fighter.cancel()
    repairs = [op for op in h1.kernel.applied if isinstance(op, CreateLink)]
    assert 5 < len(repairs) < 40
    await until(lambda: f"kvx{NET}" in h1.host.tables.links, seconds=10)


async def test_different_damage_in_a_row_is_no_fight_and_each_is_mended_within_a_second(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    before = h1.host.state()
    for _ in range(3):
        for name in (f"kvx{NET}", f"kvb{NET}", next(n for n in before.links if n.startswith("kve"))):
            h1.host.meddle(DeleteLink(h1.host.tables.links[name]))
            await until(lambda: h1.host.state() == before, seconds=1.0)


async def test_a_foreign_device_is_left_alone_and_told_and_the_rest_goes_on(world: World) -> None:
    await world.found(overlay(), overlay(NET2, "other", vni=4343, octet=2))
    h1 = await world.start()
    h1.host.add_namespace(C1)
    h1.host.add_foreign(Foreign(f"kvb{NET}", "bridge"))
    with pytest.raises(ForeignObject, match="is not kvnet's"):
        await h1.attach("c1")
    assert not world.endpoints()
    await h1.attach("c1", network="other", name="c2")
    assert f"kvb{NET2}" in h1.host.tables.links
    firewall = h1.host.tables.firewall
    assert firewall is not None
    assert firewall.bridges == {f"kvb{NET2}"}
    await world.create_endpoint("here", "h1")
    await asyncio.sleep(1)
    status = await h1.status()
    assert "foreign-object" in {c["code"] for n in status["networks"] for c in n["conditions"]}
    h1.host.remove_foreign(f"kvb{NET}")
    await until(lambda: f"kvb{NET}" in h1.host.tables.links, seconds=20)
    await until(lambda: h1.host.tables.firewall is not None and f"kvb{NET}" in h1.host.tables.firewall.bridges)


async def test_what_the_kernel_refuses_is_told_and_tried_again_with_growing_pauses(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await world.register("h2")
    await asyncio.sleep(5)
    h1.kernel.applied.clear()
    h1.kernel.refuses = lambda operation: isinstance(operation, ReplaceNeighbour)
    peer = await world.create_endpoint("peer", "h2")
    await asyncio.sleep(60)
    attempts = [op for op in h1.kernel.applied if isinstance(op, ReplaceNeighbour)]
    assert 6 <= len(attempts) <= 100
    network = (await h1.status())["networks"][0]
    assert {condition["code"] for condition in network["conditions"]} == {"kernel-refused"}
    assert network["version"] < network["wanted_version"]
    h1.kernel.refuses = lambda _: False
    await until(lambda: peer.addresses[0].packed in {n.address for n in h1.host.state(NET).neighbours}, seconds=20)
    await until(lambda: h1.worker.reconciler.observed()[NET].conditions == ())


async def test_a_plan_says_what_would_be_done_and_does_nothing(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    assert await h1.plan() == []
    veth = next(link for link in h1.host.tables.links.values() if isinstance(link, Veth))
    h1.kernel.refuses = lambda _: True
    h1.host.meddle(DeleteLink(veth))
    lines = await h1.plan()
    assert any(line.startswith(f"create interface {veth.name}") and "eth0 in /run/netns/c1" in line for line in lines)
    assert veth.name not in h1.host.tables.links
    h1.kernel.refuses = lambda _: False


async def test_an_endpoint_that_moves_in_a_burst_ends_where_the_store_says(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await world.register("h2")
    peers = [await world.create_endpoint(f"p{number}", "h2") for number in range(50)]
    for peer in peers[:25]:
        await h1.controller.delete_endpoint(NET, peer.id)
    wanted = {a.packed for peer in peers[25:] for a in peer.addresses}
    unwanted = {a.packed for peer in peers[:25] for a in peer.addresses}

    def is_so() -> bool:
        there = {n.address for n in h1.host.state(NET).neighbours}
        return wanted <= there and not unwanted & there

    await until(is_so, seconds=1.0)
    assert await h1.plan() == []
