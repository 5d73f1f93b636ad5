"""Attach and detach, as a caller of the worker's socket sees them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from datapath.fabric import Path
from datapath.objects import CreateLink, DeleteLink, Veth
from kvnet.errors import (
    AlreadyAttached,
    Conflicting,
    ControllerUnreachable,
    IdTaken,
    KernelRefused,
    NamespaceNotFound,
    NotFound,
    OutcomeUnknown,
    StateUnusable,
    StoreUnavailable,
)
from kvnet.wire import Endpoint, EndpointBody
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import World, until, veth
from tests.unit.worker.life import NET
from worker.attachments import Phase

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


async def test_when_attach_returns_the_interface_is_there_and_every_peer_is_known(world: World) -> None:
    await world.register("h2")
    peer = await world.create_endpoint("peer", "h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)

    answer = await h1.attach("c1", id="e1")

    assert answer["interface"] == "eth0"
    assert answer["netns"] == C1
    assert answer["endpoint"]["id"] == "e1"
    assert "eth0" in h1.host.tables.namespaces[C1]
    neighbours = {n.address for n in h1.host.state(NET).neighbours}
    assert {address.packed for address in peer.addresses} <= neighbours
    assert not h1.host.failures


async def test_workloads_on_two_hosts_reach_each_other(world: World) -> None:
    h1, h2 = await world.start("h1"), await world.start("h2")
    h1.host.add_namespace(C1)
    h2.host.add_namespace("/run/netns/c2")
    await h1.attach("c1")
    c2 = await h2.attach("c2", name="c2")

    def is_reached() -> bool:
        target = h2.worker.view.tables(NET)
        assert target is not None
        endpoint = target.endpoints.items[c2["endpoint"]["id"]]
        return all(isinstance(world.fabric.reaches("h1", C1, a.packed), Path) for a in endpoint.addresses)

    await until(is_reached)


async def test_the_interface_gets_the_first_free_name(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    names = [(await h1.attach("c1", name=f"n{i}"))["interface"] for i in range(3)]
    assert names == ["eth0", "eth1", "eth2"]
    with pytest.raises(Conflicting, match="has an interface eth1"):
        await h1.attach("c1", name="n4", interface="eth1")
    assert len(world.endpoints()) == 3


async def test_many_attaches_into_one_namespace_at_once_get_different_names(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    answers = await asyncio.gather(*(h1.attach("c1", name=f"n{i}") for i in range(8)))
    assert len({answer["interface"] for answer in answers}) == 8


async def test_the_same_workload_twice_is_refused_and_told_what_is_there(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    first = await h1.attach("c1")
    with pytest.raises(AlreadyAttached) as refusal:
        await h1.attach("c1")
    assert refusal.value.context["endpoint"] == first["endpoint"]["id"]
    assert len(world.endpoints()) == 1


async def test_the_same_id_again_is_the_same_attachment(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    first, second = await asyncio.gather(h1.attach("c1", id="e1"), h1.attach("c1", id="e1"))
    assert first["endpoint"] == second["endpoint"]
    with pytest.raises(IdTaken):
        await h1.attach("c1", name="other", id="e1")
    assert world.endpoints() == {"e1"}


async def test_an_unknown_namespace_changes_nothing(world: World) -> None:
    h1 = await world.start()
    with pytest.raises(NamespaceNotFound):
        await h1.attach("nowhere")
    assert not h1.controller.requests
    assert not len(h1.worker.attachments)


async def test_a_refusal_by_the_controller_leaves_no_intent(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with pytest.raises(NotFound):
        await h1.attach("c1", network="no-such-net")
    assert not h1.state.names("attachments")
    assert h1.controller.requests == [request for request in h1.controller.requests if request.startswith("create")]


async def test_an_id_of_somebody_else_is_not_deleted(world: World) -> None:
    await world.register("h2")
    await world.create_endpoint("x", "h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with pytest.raises(IdTaken):
        await h1.attach("c1", id="e-x")
    await asyncio.sleep(60)
    assert world.endpoints() == {"e-x"}


async def test_when_the_kernel_refuses_everything_is_undone(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    h1.kernel.refuses = lambda operation: isinstance(operation, CreateLink) and isinstance(operation.link, Veth)
    with pytest.raises(KernelRefused, match="Input/output error"):
        await h1.attach("c1")
    await asyncio.sleep(30)
    assert not world.endpoints()
    assert not h1.veths()
    assert not h1.state.names("attachments")


async def test_a_lost_answer_is_undone_once_the_store_shows_what_came_of_it(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    world.outages.answers_lost = True
    with pytest.raises(OutcomeUnknown):
        await h1.attach("c1")
    world.outages.answers_lost = False
    await until(lambda: not world.endpoints() and not h1.veths() and not h1.state.names("attachments"))


async def test_an_endpoint_of_one_controller_is_undone_where_the_next_one_refused_to_make_it(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await asyncio.sleep(30)  # what a start reminds of is over: nothing else may happen on this host any more
    create = h1.controller.create_endpoint

    async def made_and_refused(network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint:
        """The first one dies of it, and its answer with it; the second one has no store."""
        await create(network, body, wait_s=wait_s)
        await until(lambda: "e1" in h1.worker.view.local.items)
        for _ in range(50):  # whoever was told of it has looked
            await asyncio.sleep(0)
        raise StoreUnavailable("nobody there")

    h1.controller.create_endpoint = made_and_refused  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await h1.attach("c1", id="e1")
    await until(lambda: not world.endpoints())


async def test_an_endpoint_that_may_still_be_made_is_remembered_beyond_a_power_failure(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    world.outages.controller = True
    synced, sync = list[str](), h1.state.sync
    h1.state.sync = lambda name: (synced.append(name), sync(name))  # type: ignore[method-assign, assignment]
    with pytest.raises(ControllerUnreachable):
        await h1.attach("c1", id="e1")
    world.outages.controller = False
    await until(lambda: "given-up.json" in synced)


async def test_while_the_controller_is_away_an_attach_is_refused_and_nothing_stays(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    world.outages.controller = True
    with pytest.raises(ControllerUnreachable):
        await h1.attach("c1", id="e1")
    world.outages.controller = False
    answer = await h1.attach("c1", id="e1")
    assert answer["endpoint"]["id"] == "e1"
    await asyncio.sleep(60)
    assert world.endpoints() == {"e1"}
    assert h1.veths() == {veth("e1")}


async def test_detach_takes_interface_endpoint_and_network_away(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    assert await h1.detach(name="c1") == {"detached": ["e1"], "queued": []}
    assert not h1.veths()
    await until(lambda: not h1.host.tables.links, seconds=1.0)
    assert not world.endpoints()
    assert not h1.state.names("attachments")


@pytest.mark.parametrize(
    "what",
    [{"id": "e1"}, {"netns": "c1"}, {"netns": C1}, {"name": "c1", "network": NET}, {"name": "c1", "network": "my-net"}],
)
async def test_what_is_to_be_detached_may_be_named_in_many_ways(world: World, what: dict[str, str]) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    assert (await h1.detach(**{**what, "network": what.get("network", "")}))["detached"] == ["e1"]


async def test_detach_of_what_is_gone_is_fine(world: World) -> None:
    h1 = await world.start()
    assert await h1.detach(id="never-was") == {"detached": [], "queued": []}


async def test_a_detach_while_the_controller_is_away_is_finished_when_it_is_back(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    world.outages.controller = True
    assert await h1.detach(id="e1") == {"detached": [], "queued": ["e1"]}
    assert not h1.veths(), "the interface does not wait for the controller"
    assert [record.phase for record in h1.worker.attachments] == [Phase.DETACHING]
    await asyncio.sleep(300)
    world.outages.controller = False
    await until(lambda: not world.endpoints() and not h1.state.names("attachments"), seconds=30)


async def test_queued_detaches_go_on_as_soon_as_a_worker_that_began_without_the_store_hears_it(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    for number in range(12):
        await h1.attach("c1", id=f"e{number}", name=f"c{number}", interface=f"eth{number}")
    world.outages.controller = world.outages.store = True
    for number in range(12):
        await h1.detach(id=f"e{number}")
    await world.crash()
    h1 = await world.start(ready=False)
    await asyncio.sleep(300)
    world.outages.controller = world.outages.store = False

    async def is_live() -> bool:
        return bool((await h1.status())["mode"] == "live")

    assert not await is_live()
    await until(is_live)
    await until(lambda: not world.endpoints(), seconds=1.0)


async def test_an_endpoint_that_somebody_removes_takes_its_interface_along(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    controller = h1.controller
    await controller.delete_endpoint(NET, "e1")
    await until(lambda: not h1.host.tables.links and not h1.state.names("attachments"), seconds=1.0)


async def test_a_namespace_that_ends_releases_its_endpoint_within_a_second(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.host.remove_namespace(C1)
    await until(lambda: not world.endpoints() and not h1.state.names("attachments"), seconds=1.0)


async def test_a_new_namespace_under_the_same_path_does_not_inherit_the_interface(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.host.remove_namespace(C1)
    h1.host.add_namespace(C1)
    await until(lambda: not world.endpoints(), seconds=1.0)
    assert not h1.host.tables.namespaces[C1]


async def test_an_interface_deleted_by_hand_is_made_again(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.host.meddle(DeleteLink(h1.host.tables.links[veth("e1")]))
    assert not h1.host.tables.namespaces[C1]
    await until(lambda: "eth0" in h1.host.tables.namespaces[C1], seconds=1.0)
    assert world.endpoints() == {"e1"}


async def test_a_full_disk_refuses_attaches_and_leaves_the_rest_alone(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.state.is_full = True
    with pytest.raises(StateUnusable):
        await h1.attach("c1", name="other")
    with pytest.raises(StateUnusable):
        await h1.detach(id="e1")
    assert world.endpoints() == {"e1"}
    assert veth("e1") in h1.veths()
    await world.register("h2")
    peer = await world.create_endpoint("peer", "h2")
    await until(lambda: peer.addresses[0].packed in {n.address for n in h1.host.state(NET).neighbours}, seconds=1.0)
    h1.host.remove_namespace(C1)
    await asyncio.sleep(30)
    assert not h1.task.done()
    h1.state.is_full = False
    await until(lambda: world.endpoints() == {"e-peer"}, seconds=5.0)


async def test_a_disk_that_fills_up_during_an_attach_leaks_nothing(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    create = h1.controller.create_endpoint

    async def create_and_fill(network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint:
        h1.state.is_full = True
        return await create(network, body, wait_s=wait_s)

    h1.controller.create_endpoint = create_and_fill  # type: ignore[method-assign]
    with pytest.raises(StateUnusable):
        await h1.attach("c1", id="e1")
    assert not world.endpoints()
    assert not h1.veths()


async def test_an_endpoint_told_before_its_host_is_not_claimed_as_known(world: World) -> None:
    world.host("h2")
    await world.create_endpoint("peer", "h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    attach = asyncio.ensure_future(h1.attach("c1"))
    await asyncio.sleep(0.1)
    assert not attach.done()
    await world.register("h2")
    answer = await attach
    assert answer["timing_ms"]["total"] < 300
    assert h1.host.state(NET).vteps


async def test_a_peer_that_stays_unknown_does_not_hold_up_an_attach_for_long(world: World) -> None:
    world.host("h2")
    await world.create_endpoint("peer", "h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    answer = await h1.attach("c1")
    assert answer["timing_ms"]["total"] < 1000
    assert {c["code"] for c in (await h1.status())["networks"][0]["conditions"]} == {"peer-unknown"}


async def test_a_network_that_cannot_be_built_here_is_not_reported_as_attached(world: World) -> None:
    await world.found(replace(overlay(), vni=None))
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with pytest.raises(KernelRefused, match="VNI"):
        await h1.attach("c1")
    assert not world.endpoints()
