"""Attach and reconcile for what not every network has: blocks, peers, published ports, a prefix, a physical uplink."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from backends.store import Put
from datapath.names import bridge_name, macvlan_name
from datapath.objects import DeleteLink, Hint, Uplink
from kvnet import codec, keys
from kvnet.errors import Invalid, PortTaken
from kvnet.model import Block, Driver, Network, Subnet
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import World, until
from tests.unit.worker.life import EPOCH, NET, NET2
from worker.requests import parse_attach

pytestmark = pytest.mark.anyio
C1, C2 = "/run/netns/c1", "/run/netns/c2"
ROUTED = Network(NET2, "plain", Driver.ROUTED, (Subnet(ip_network("10.9.0.0/16")),), EPOCH, block_prefix_length=26)


async def put(world: World, *networks: Network) -> None:
    await world.client().commit([], [Put(keys.network(n.id), codec.encode(n)) for n in networks])


def block(host: str, number: int) -> tuple[str, bytes]:
    cidr = ip_network((int(IPv4Address("10.9.0.0")) + 64 * number, 26))
    return keys.block(NET2, cidr), codec.encode(Block(NET2, cidr, host, EPOCH))


async def test_the_networks_own_prefix_names_the_interfaces(world: World) -> None:
    await put(world, replace(overlay(), interface_prefix="wan"))
    h1 = await world.start()
    h1.host.add_namespace(C1)
    names = [(await h1.attach("c1", name=f"n{i}"))["interface"] for i in range(2)]
    assert names == ["wan0", "wan1"]
    assert (await h1.attach("c1", name="n3", interface="eth7"))["interface"] == "eth7"


async def test_many_first_attaches_of_a_network_with_a_prefix_get_different_names(world: World) -> None:
    await put(world, replace(overlay(), interface_prefix="wan"))
    h1 = await world.start()
    h1.host.add_namespace(C1)
    answers = await asyncio.gather(*(h1.attach("c1", name=f"n{i}") for i in range(6)))
    assert {answer["interface"] for answer in answers} == {f"wan{i}" for i in range(6)}


async def test_later_networks_of_a_workload_rank_after_those_that_were_there(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    for name in ("a", "b", "c"):
        await h1.attach("c1", name=name)
    await h1.detach(name="a")
    await h1.attach("c1", name="d")
    orders = {record.name: record.order for record in h1.worker.attachments}
    assert orders == {"b": 1, "c": 2, "d": 3}


async def test_a_peered_network_is_mirrored_and_built_as_long_as_ours_is(world: World) -> None:
    other = overlay(NET2, "other", vni=77, octet=2)
    await put(world, replace(overlay(), peers=(NET2,)), replace(other, peers=(NET,)))
    await world.register("h2")
    await world.create_endpoint("far", "h2", other)
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    bridge = bridge_name(NET2)
    await until(lambda: bridge in h1.host.tables.links, seconds=2.0)
    assert h1.host.state(NET2).vteps
    firewall = h1.host.tables.firewall
    assert firewall is not None
    assert (bridge_name(NET), bridge) in firewall.pairs
    await put(world, overlay(), other)
    await until(lambda: bridge not in h1.host.tables.links, seconds=2.0)
    assert h1.worker.view.tables(NET2) is None


async def test_a_routed_network_waits_for_its_block_and_follows_the_others(world: World) -> None:
    await put(world, ROUTED)
    await world.register("h2")
    mine, theirs = block("h1", 0), block("h2", 1)
    await world.client().commit([], [Put(*mine)])
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", network="plain")
    await world.client().commit([], [Put(*theirs)])
    way = ip_address("10.9.0.64").packed
    await until(lambda: way in {r.destination for r in h1.host.state().routes}, seconds=2.0)
    await until(lambda: h1.worker.reconciler.observed()[NET2].version >= h1.worker.view.revision, seconds=10.0)


async def test_published_ports_are_sent_checked_and_told(world: World) -> None:
    request = parse_attach(
        {"network": "n", "netns": "c1", "name": "c", "ports": [{"port": 80, "host_port": 8080}], "gateway_priority": 9}
    )
    body = request.body("e1", "h1")
    assert body["ports"] == [{"port": 80, "host_port": 8080}]
    assert body["gateway_priority"] == 9
    assert request.chooses_ports


@pytest.mark.parametrize(
    "ports", ["80", [80], [{}], [{"port": "80"}], [{"port": 80, "more": 1}], [{"port": True}], [{"port": 1}] * 257]
)
async def test_ports_of_another_form_are_refused(ports: object) -> None:
    with pytest.raises(Invalid):
        parse_attach({"network": "n", "netns": "c1", "name": "c", "ports": ports})


async def test_a_port_that_a_program_has_undoes_the_attach(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    h1.host.listeners.taken = {8080}
    with pytest.raises(PortTaken, match="nginx"):
        await h1.attach("c1", ports=({"port": 80, "host_port": 8080},))
    assert not world.endpoints()
    assert not h1.state.names("attachments")
    assert not h1.veths()


async def test_a_chosen_port_that_a_program_has_is_chosen_anew(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    h1.host.listeners.taken = {61000, 61001}
    answer = await h1.attach("c1", ports=({"port": 80},))
    assert answer["endpoint"]["ports"][0]["host_port"] == 61002
    assert len(world.endpoints()) == 1


async def test_an_underlay_that_moves_is_followed_and_one_that_is_gone_is_told(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    moved = ip_address("192.0.2.99")
    h1.host.addresses[:] = [moved]
    h1.worker.reconciler.hint(Hint(underlay=True))
    await until(lambda: h1.worker.view.hosts.items["h1"].underlay == moved, seconds=2.0)
    await until(
        lambda: any(getattr(ln, "local", b"") == moved.packed for ln in h1.host.tables.links.values()), seconds=2.0
    )
    h1.host.addresses.clear()
    h1.worker.reconciler.hint(Hint(underlay=True))
    await until(
        lambda: "underlay-missing" in {c.code for c in h1.worker.reconciler.observed()[NET].conditions}, seconds=2.0
    )
    assert await h1.plan() == []
    assert h1.worker.view.hosts.items["h1"].underlay == moved


async def test_a_forwarding_that_somebody_switches_off_is_back_within_a_second(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    h1.host.tables.sysctls["net/ipv4/ip_forward"] = "0"
    h1.worker.reconciler.hint(Hint(host=True))
    await until(lambda: h1.host.tables.sysctls["net/ipv4/ip_forward"] == "1", seconds=1.0)


async def test_a_device_with_a_name_of_its_own_is_repaired_like_the_others(world: World) -> None:
    await put(world, replace(overlay(), bridge_name="br-mine"))
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.host.meddle(DeleteLink(h1.host.tables.links["br-mine"]))
    await until(lambda: "br-mine" in h1.host.tables.links, seconds=1.0)
    await h1.detach(id="e1")
    await until(lambda: not h1.host.tables.links, seconds=2.0)


def test_a_macvlan_and_a_veth_of_one_endpoint_are_told_apart() -> None:
    assert macvlan_name("e1").startswith("kvm")


@pytest.mark.parametrize("is_there_before", [False, True], ids=["first", "made-over-the-api"])
async def test_a_network_of_which_nothing_is_built_before_its_first_interface_is_waited_for(
    world: World, is_there_before: bool
) -> None:
    lan = Network(
        NET2,
        "lan",
        Driver.TRANSPARENT,
        (Subnet(ip_network("10.9.0.0/24"), IPv4Address("10.9.0.1")),),
        EPOCH,
        uplink="up0",
    )
    await put(world, lan)
    h1 = await world.start()
    h1.host.set_uplink(Uplink("up0", 1500, up=True), lan="lan")
    h1.host.add_namespace(C1)
    if is_there_before:
        await world.create_endpoint("c1", "h1", lan)
        await asyncio.sleep(1)

    answer = await h1.attach("c1", network="lan", id="e-c1")

    assert answer["interface"] in h1.host.tables.namespaces[C1]
