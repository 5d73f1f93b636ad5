"""Endpoints whose interface another program moves: as the runtime that calls, and as the workload that gets it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

import pytest

from datapath.names import handed_name, macvlan_name
from datapath.objects import CreateLink, DeleteLink, Macvlan, Operation, Uplink, Veth
from kvnet.errors import Conflicting, ControllerUnreachable, KernelRefused, NotFound, PortTaken
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import Running, World, a_world, until, veth
from tests.unit.worker.life import NET
from tests.unit.worker.test_kill_points import LAN
from worker.attachments import Phase, Record

pytestmark = pytest.mark.anyio
C1, C2 = "/run/docker/netns/c1", "/run/docker/netns/c2"
DNS = "169.254.53.53/32"
PACKED_DNS = (ip_address("169.254.53.53").packed, 32, b"")


async def claimed(worker: Running, name: str = "c1", network: str = NET) -> Record:
    return await worker.workloads.claim(network, {"name": name}, runtime="docker")


async def moved(worker: Running, path: str = C1, interface: str = "eth0", name: str = "c1") -> Record:
    """Claimed, handed over, and where Docker takes it."""
    record = await claimed(worker, name)
    record = await worker.workloads.hand_over(record.endpoint, path)
    worker.host.move(record.interface, path, interface)
    return record


@pytest.fixture
async def h1(world: World) -> Running:
    made = await world.start()
    made.host.add_namespace(C1)
    made.host.add_namespace(C2)
    return made


async def test_a_claim_is_an_endpoint_without_an_interface(world: World, h1: Running) -> None:
    record = await claimed(h1)

    assert record.phase is Phase.CLAIMED
    assert record.answer["addresses"]
    assert world.endpoints() == {record.endpoint}
    await asyncio.sleep(5)
    assert not h1.veths()
    assert not h1.host.waiting()


async def test_a_handed_over_interface_waits_on_the_host_and_every_peer_is_known(world: World, h1: Running) -> None:
    await world.register("h2")
    peer = await world.create_endpoint("peer", "h2")
    record = await claimed(h1)

    record = await h1.workloads.hand_over(record.endpoint, C1)

    assert record.interface == handed_name(record.endpoint)
    assert h1.host.waiting() == {record.interface}
    assert h1.veths() == {veth(record.endpoint)}
    assert {address.packed for address in peer.addresses} <= {n.address for n in h1.host.state(NET).neighbours}
    assert not h1.host.failures


async def test_before_it_is_known_where_it_went_it_is_not_made_again(h1: Running) -> None:
    record = await moved(h1)
    await asyncio.sleep(5)
    assert h1.host.side_of(C1, "eth0").mac
    h1.host.meddle(DeleteLink(Veth(veth(record.endpoint), 0, "")))
    await asyncio.sleep(60)
    assert not h1.veths()
    assert not h1.host.waiting()


async def test_once_settled_it_is_repaired_where_it_is_with_all_its_ways(h1: Running) -> None:
    record = await claimed(h1)
    record = await h1.workloads.hand_over(record.endpoint, C1, [DNS])
    with pytest.raises(NotFound):
        await h1.workloads.settle(record.endpoint)
    h1.host.move(record.interface, C1, "eth7")
    record = await h1.workloads.settle(record.endpoint)
    assert (record.interface, record.is_handed_over) == ("eth7", False)
    assert await h1.plan() == []

    h1.host.meddle(DeleteLink(Veth(veth(record.endpoint), 0, "")))
    await until(lambda: "eth7" in h1.host.tables.namespaces[C1], seconds=1.0)

    side = h1.host.side_of(C1, "eth7")
    assert [address for address, _ in side.addresses] == [
        ip_address(text).packed for text in record.answer["addresses"]
    ]
    assert side.gateways
    assert PACKED_DNS in side.routes


async def test_a_route_that_is_added_later_is_repaired_too(h1: Running) -> None:
    record = await moved(h1)
    await h1.workloads.add_route(record.endpoint, DNS)
    assert PACKED_DNS in h1.host.side_of(C1, "eth0").routes
    h1.host.meddle(DeleteLink(Veth(veth(record.endpoint), 0, "")))
    await until(lambda: "eth0" in h1.host.tables.namespaces[C1], seconds=1.0)
    assert PACKED_DNS in h1.host.side_of(C1, "eth0").routes


async def test_taken_back_it_is_claimed_and_can_be_handed_over_again(world: World, h1: Running) -> None:
    record = await moved(h1)
    await h1.workloads.settle(record.endpoint)
    h1.host.move_back(C1, "eth0", handed_name(record.endpoint))

    await h1.workloads.take_back(record.endpoint)
    await h1.workloads.take_back(record.endpoint)

    assert not h1.veths()
    assert not h1.host.waiting()
    assert world.endpoints() == {record.endpoint}
    again = await h1.workloads.hand_over(record.endpoint, C2)
    assert h1.host.waiting() == {again.interface}
    assert again.phase is Phase.ATTACHED


async def test_a_repeated_hand_over_gives_the_same_and_another_namespace_is_refused(h1: Running) -> None:
    record = await claimed(h1)
    first = await h1.workloads.hand_over(record.endpoint, C1)
    assert await h1.workloads.hand_over(record.endpoint, C1) == first
    with pytest.raises(Conflicting):
        await h1.workloads.hand_over(record.endpoint, C2)


async def test_what_the_kernel_refuses_leaves_the_claim_as_it_was(world: World, h1: Running) -> None:
    def is_veth(operation: Operation) -> bool:
        return isinstance(operation, CreateLink) and isinstance(operation.link, Veth)

    record = await claimed(h1)
    h1.kernel.refuses = is_veth
    with pytest.raises(KernelRefused):
        await h1.workloads.hand_over(record.endpoint, C1)
    left = h1.workloads.record(record.endpoint)
    assert left is not None
    assert (left.phase, left.interface, left.netns, left.is_handed_over) == (Phase.CLAIMED, "", "", False)
    assert world.endpoints() == {record.endpoint}
    h1.kernel.refuses = lambda _: False
    await h1.workloads.hand_over(record.endpoint, C1)
    assert h1.host.waiting()


async def test_a_release_takes_interface_and_endpoint_and_may_be_repeated(world: World, h1: Running) -> None:
    record = await moved(h1)
    assert await h1.workloads.release(record.endpoint)
    assert await h1.workloads.release(record.endpoint)
    assert not world.endpoints()
    await until(lambda: not h1.state.names("attachments"), seconds=1.0)
    assert not h1.veths()


async def test_without_a_controller_a_release_is_queued_but_the_interface_goes(world: World, h1: Running) -> None:
    record = await moved(h1)
    world.outages.controller = True
    assert not await h1.workloads.release(record.endpoint)
    assert not h1.veths()
    world.outages.controller = False
    await until(lambda: not world.endpoints(), seconds=60)


async def test_without_a_controller_a_claim_fails_and_leaves_nothing(world: World, h1: Running) -> None:
    world.outages.controller = True
    with pytest.raises(ControllerUnreachable):
        await claimed(h1)
    world.outages.controller = False
    await until(lambda: not len(h1.worker.attachments), seconds=60)
    assert not world.endpoints()


async def test_without_the_store_nothing_is_claimed_or_handed_over(world: World, h1: Running) -> None:
    record = await claimed(h1)
    world.outages.store = True
    await asyncio.sleep(10)
    with pytest.raises(ControllerUnreachable):
        await claimed(h1, "c2")
    with pytest.raises(ControllerUnreachable):
        await h1.workloads.hand_over(record.endpoint, C1)
    assert world.endpoints() == {record.endpoint}


async def test_a_change_is_remembered(h1: Running) -> None:
    record = await moved(h1)
    changed = await h1.workloads.change(record.endpoint, {"name": "web", "labels": {"docker.container": "abc"}})
    assert changed["name"] == "web"
    known = h1.workloads.record(record.endpoint)
    assert known is not None
    assert (known.name, known.answer["labels"]) == ("web", {"docker.container": "abc"})


async def test_ports_lead_there_when_a_change_returns(h1: Running) -> None:
    record = await moved(h1)
    await h1.workloads.change(record.endpoint, {"ports": [{"port": 80, "host_port": 8080}]})
    firewall = h1.host.tables.firewall
    assert firewall is not None
    assert {publication.port for publication in firewall.publications} == {8080}


async def test_a_port_that_a_program_has_is_refused_and_a_chosen_one_is_chosen_again(h1: Running) -> None:
    record = await moved(h1)
    h1.host.listeners.taken = {8080, 61000}
    with pytest.raises(PortTaken):
        await h1.workloads.change(record.endpoint, {"ports": [{"port": 80, "host_port": 8080}]})
    known = h1.workloads.record(record.endpoint)
    assert known is not None
    assert known.answer["ports"] == []
    changed = await h1.workloads.change(record.endpoint, {"ports": [{"port": 80}]})
    assert [port.get("host_port") for port in changed["ports"]] == [61001]


async def test_a_change_that_the_kernel_does_not_end_is_given_up(h1: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    record = await moved(h1)

    async def never(_: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(h1.kernel, "apply", never)
    with pytest.raises(KernelRefused, match="not done within"):
        await h1.workloads.change(record.endpoint, {"ports": [{"port": 80, "host_port": 8080}]})


async def test_a_container_that_is_gone_is_docker_s_to_tell(world: World, h1: Running) -> None:
    record = await moved(h1)
    await h1.workloads.settle(record.endpoint)
    h1.host.remove_namespace(C1)
    await until(lambda: [r.endpoint for r in h1.workloads.lost()] == [record.endpoint], seconds=10)
    h1.host.add_namespace(C1)  # somebody else's, under the same path
    await asyncio.sleep(60)
    assert not h1.veths()
    assert world.endpoints() == {record.endpoint}
    await h1.workloads.release(record.endpoint)
    assert not world.endpoints()
    assert not h1.workloads.lost()


async def test_an_endpoint_that_somebody_removed_is_no_claim_any_more(world: World, h1: Running) -> None:
    record = await claimed(h1)
    await h1.controller.delete_endpoint(NET, record.endpoint)
    await until(lambda: h1.workloads.record(record.endpoint) is None, seconds=10)


async def test_how_the_runtime_calls_it_outlives_the_worker(world: World, h1: Running) -> None:
    record = await moved(h1)
    await h1.workloads.call_it(record.endpoint, "f" * 64)
    await world.crash()
    again = await world.start()
    known = again.workloads.record(record.endpoint)
    assert known is not None
    assert (known.external, known.runtime, known.phase) == ("f" * 64, "docker", Phase.ATTACHED)
    shown = (await again.status())["attachments"]
    assert [(one["runtime"], one["external"]) for one in shown] == [("docker", "f" * 64)]


async def test_a_new_worker_finds_out_where_the_interface_went(world: World, h1: Running) -> None:
    record = await moved(h1)
    await world.crash()
    again = await world.start()
    await until(lambda: not getattr(again.workloads.record(record.endpoint), "is_handed_over", True), seconds=5)
    assert "eth0" in again.host.tables.namespaces[C1]
    assert await again.plan() == []


async def test_an_interface_on_an_uplink_is_handed_over_settled_and_taken_back(tmp_path: Path) -> None:
    async with a_world(tmp_path, LAN) as world:
        world.host("h1").set_uplink(Uplink("lan0", 1500, up=True))
        h1 = await world.start()
        h1.host.add_namespace(C1)
        record = await moved(h1)
        await asyncio.sleep(60)
        assert set(h1.host.tables.namespaces[C1]) == {"eth0"}
        assert not h1.host.waiting(), "made a second time"

        record = await h1.workloads.settle(record.endpoint)
        assert await h1.plan() == []
        h1.host.meddle(DeleteLink(Macvlan(macvlan_name(record.endpoint), "lan0", 1500)))
        await h1.worker.reconciler.preview()
        h1.worker.reconciler.touch([NET], read=True)
        await until(lambda: "eth0" in h1.host.tables.namespaces[C1], seconds=5)

        h1.host.move_back(C1, "eth0", handed_name(record.endpoint))
        await h1.workloads.take_back(record.endpoint)
        assert not h1.host.waiting()
        assert not h1.host.tables.links
        await h1.workloads.hand_over(record.endpoint, C1)
        assert h1.host.waiting() == {handed_name(record.endpoint)}


async def test_into_a_namespace_that_this_host_cannot_see_it_is_handed_over_and_not_repaired(h1: Running) -> None:
    record = await claimed(h1)
    record = await h1.workloads.hand_over(record.endpoint, "/run/elsewhere/netns/c1")
    assert h1.host.waiting() == {record.interface}
    with pytest.raises(NotFound):
        await h1.workloads.settle(record.endpoint)
    h1.host.add_namespace("/run/elsewhere/netns/c1")
    h1.host.move(record.interface, "/run/elsewhere/netns/c1", "eth0")
    record = await h1.workloads.settle(record.endpoint)
    assert record.identity


async def test_many_hand_overs_at_once_go_together(world: World, h1: Running) -> None:
    records = await asyncio.gather(*(claimed(h1, f"c{n}") for n in range(20)))
    before = h1.worker.reconciler.statistics.passes
    await asyncio.gather(*(h1.workloads.hand_over(record.endpoint, C1) for record in records))
    assert len(h1.host.waiting()) == 20
    assert h1.worker.reconciler.statistics.passes - before < 10


async def test_the_first_of_a_network_with_names_of_its_own_is_handed_over_as_any(tmp_path: Path) -> None:
    network = overlay()
    async with a_world(tmp_path, network) as world:
        h1 = await world.start()
        h1.host.add_namespace(C1)
        record = await claimed(h1)
        record = await h1.workloads.hand_over(record.endpoint, C1)
        assert record.kind == "veth"
        assert h1.host.waiting() == {record.interface}
