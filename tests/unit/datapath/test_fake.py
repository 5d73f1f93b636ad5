"""The fake kernel is as strict as the real one, and the fabric knows why a packet does not arrive."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import anyio
import pytest

from datapath.desired import bridge_name, veth_name, vxlan_name
from datapath.fabric import Drop, Path
from datapath.fake import FakeKernel
from datapath.objects import (
    AddAddress,
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Firewall,
    Foreign,
    Hint,
    InterfaceAddress,
    Kernel,
    Neighbour,
    Operation,
    PortEntry,
    RemoveAddress,
    RemoveNeighbour,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    Scope,
    SetSysctl,
    UpdateLink,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.packing import packed_mac
from datapath.sysctls import FORWARD_IPV4
from tests.unit.datapath.clusters import World, endpoint, host, namespace_of, network

MAC = b"\x02\x00\x00\x00\x00\x01"
BR = Bridge("kvb1", MAC, 1450, ipv6=True)
V4_BR = Bridge("kvb2", MAC, 1450, ipv6=False)
VX = Vxlan("kvx1", 7, b"\x0a\x00\x00\x01", 1450, "kvb1")
VE = Veth("kve1", 1450, "kvb1")
SIDE = ContainerSide("/run/netns/a", "eth0", MAC, 1450, ((b"\x0a\x01\x00\x02", 24),), ())
V6 = bytes(15) + b"\x09"


@pytest.fixture
def kernel() -> FakeKernel:
    made = FakeKernel()
    made.add_namespace("/run/netns/a")
    no_ipv6 = SetSysctl("net/ipv6/conf/kvb2/disable_ipv6", "1")
    assert made.execute([CreateLink(BR), CreateLink(V4_BR), no_ipv6, CreateLink(VX), CreateLink(VE, SIDE)]) == []
    return made


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (CreateLink(replace(VX, name="kvb1")), errno.EEXIST),
        (CreateLink(replace(VX, name="kvx2")), errno.EEXIST),
        (CreateLink(Vxlan("kvx3", 8, VX.local, 1450, "nobody")), errno.ENODEV),
        (CreateLink(Veth("kve2", 1450, "kvb1")), errno.EINVAL),
        (CreateLink(Veth("kve2", 1450, "kvb1"), replace(SIDE, netns="/run/netns/b")), errno.ENOENT),
        (CreateLink(Veth("kve2", 1450, "kvb1"), SIDE), errno.EEXIST),
        (CreateLink(Bridge("theirs", MAC, 1500, ipv6=True)), errno.EEXIST),
        (DeleteLink(Bridge("theirs", MAC, 1500, ipv6=True)), errno.EPERM),
        (UpdateLink(replace(VX, vni=9), VX), errno.EOPNOTSUPP),
        (UpdateLink(replace(BR, name="kvb9"), BR), errno.ENODEV),
        (AddAddress(InterfaceAddress("kvb2", V6, 64)), errno.EACCES),
        (AddAddress(InterfaceAddress("kvb9", b"\x0a\x01\x00\x01", 24)), errno.ENODEV),
        (ReplaceRoute(Route(b"\x0a\x01\x00\x00", 24, "kvb1", source=b"\x0a\x01\x00\x01")), errno.EINVAL),
        (ReplaceNeighbour(Neighbour("kvb2", V6, MAC)), errno.EINVAL),
        (ReplaceNeighbour(Neighbour("kvb9", V6, MAC)), errno.ENODEV),
        (ReplaceVtep(VtepEntry("kvb1", MAC, b"\x0a\x00\x00\x02")), errno.ENODEV),
        (ReplaceVtep(VtepEntry("kvx1", MAC, V6)), errno.EAFNOSUPPORT),
        (ReplacePort(PortEntry("kvb1", MAC)), errno.EOPNOTSUPP),
        (ReplacePort(PortEntry("kve9", MAC)), errno.ENODEV),
        (SetSysctl("net/ipv6/conf/kvb9/accept_ra", "0"), errno.ENOENT),
    ],
)
def test_it_refuses_what_linux_refuses(kernel: FakeKernel, operation: Operation, refusal: int) -> None:
    kernel.add_foreign(Foreign("theirs", "bridge"))
    before = kernel.state()

    failures = kernel.execute([operation])

    assert [(failure.operation, failure.errno) for failure in failures] == [(operation, refusal)]
    assert failures[0].reason
    assert kernel.state() == before


def test_a_failure_does_not_stop_the_rest(kernel: FakeKernel) -> None:
    good = ReplaceNeighbour(Neighbour("kvb1", V6, MAC))

    assert len(kernel.execute([ReplaceNeighbour(Neighbour("kvb9", V6, MAC)), good])) == 1

    assert kernel.state().neighbours == {good.neighbour}


def test_what_is_already_so_is_no_failure(kernel: FakeKernel) -> None:
    absent: list[Operation] = [
        CreateLink(BR),
        DeleteLink(Veth("kve9", 1450, "")),
        RemoveNeighbour(Neighbour("kvb1", V6, MAC)),
        RemoveVtep(VtepEntry("kvx1", MAC, b"\x0a\x00\x00\x02")),
        RemoveAddress(InterfaceAddress("kvb1", V6, 64)),
    ]

    assert kernel.execute(absent) == []
    assert kernel.tables.vain == absent


def test_the_1024th_port_of_a_bridge_is_refused(kernel: FakeKernel) -> None:
    kernel.add_namespace("/run/netns/many")
    ports: list[Operation] = [
        CreateLink(Veth(f"kve-{i}", 1450, "kvb1"), replace(SIDE, netns="/run/netns/many", interface=f"eth{i}"))
        for i in range(1022)
    ]

    assert [failure.errno for failure in kernel.execute(ports)] == [errno.EXFULL]


def test_a_bridge_that_goes_down_forgets_neighbours_routes_and_ipv6_addresses(kernel: FakeKernel) -> None:
    ipv4, ipv6 = InterfaceAddress("kvb1", b"\x0a\x01\x00\x01", 24), InterfaceAddress("kvb1", V6, 64)
    route = Route(b"\x0a\x01\x00\x00", 24, "kvb1", source=ipv4.address)
    kernel.execute([AddAddress(ipv4), AddAddress(ipv6), ReplaceRoute(route)])
    kernel.execute([ReplaceNeighbour(Neighbour("kvb1", V6, MAC)), ReplacePort(PortEntry("kvx1", MAC))])

    kernel.meddle(UpdateLink(replace(BR, up=False), BR))

    state = kernel.state()
    assert not state.neighbours | state.routes
    assert state.addresses == {ipv4}
    assert state.ports


def test_a_deleted_bridge_frees_its_ports_and_a_deleted_tunnel_loses_its_entries(kernel: FakeKernel) -> None:
    kernel.execute([ReplacePort(PortEntry("kvx1", MAC)), ReplaceVtep(VtepEntry("kvx1", MAC, b"\x0a\x00\x00\x02"))])

    kernel.meddle(DeleteLink(BR))

    loose = replace(VX, bridge="")
    assert kernel.state().links == {"kvb2": V4_BR, "kvx1": loose, "kve1": replace(VE, bridge="")}
    assert not kernel.state().ports
    assert kernel.state().vteps

    kernel.meddle(DeleteLink(VX))

    assert not kernel.state().vteps


def test_a_deleted_primary_address_takes_its_secondaries_and_their_routes_along(kernel: FakeKernel) -> None:
    first, second = (InterfaceAddress("kvb1", bytes([10, 1, 0, last]), 24) for last in (9, 1))
    kernel.execute([AddAddress(first), AddAddress(second)])
    kernel.execute([ReplaceRoute(Route(b"\x0a\x01\x00\x00", 24, "kvb1", source=second.address))])

    kernel.meddle(RemoveAddress(first))

    assert not kernel.state().addresses
    assert not kernel.state().routes


def test_a_namespace_that_vanishes_takes_both_halves_along(kernel: FakeKernel) -> None:
    kernel.execute([ReplacePort(PortEntry("kve1", MAC))])

    kernel.remove_namespace("/run/netns/a")

    assert "kve1" not in kernel.state().links
    assert not kernel.state().ports


# --- the port


@pytest.mark.anyio
async def test_it_is_a_kernel() -> None:
    port: Kernel = FakeKernel()

    assert await port.apply([CreateLink(BR)]) == []
    assert (await port.read()).links == {"kvb1": BR}
    assert not await port.has_namespace("/run/netns/a")
    await port.close()


@pytest.mark.anyio
async def test_one_networks_part_is_read_without_the_host_wide_things() -> None:
    world = World()
    world.add_host(host(0))
    for number in (1, 2):
        net = network(number)
        world.add_network(net)
        world.add(endpoint(net, 0, "h0"))
    world.settle()

    part = await world.kernels["h0"].read(Scope(network(1).id))

    assert set(part.links) == {
        bridge_name(network(1).id),
        vxlan_name(network(1).id),
        veth_name(endpoint(network(1), 0, "h0").id),
    }
    assert part.firewall == world.kernels["h0"].tables.firewall
    assert (await world.kernels["h0"].read(Scope(network(1).id), firewall=False)).firewall is None
    assert FORWARD_IPV4 not in part.sysctls
    assert {n.device for n in part.neighbours} == {bridge_name(network(1).id)}


@pytest.mark.anyio
async def test_hints_tell_what_changed_and_that_events_were_lost(kernel: FakeKernel) -> None:
    hints = kernel.hints()
    with anyio.fail_after(5):
        await anext(hints)  # what the fixture did

        kernel.meddle(DeleteLink(VX), RemoveNeighbour(Neighbour("kvb1", V6, MAC)))
        assert await anext(hints) == Hint(frozenset({"kvx1", "kvb1"}))

        kernel.set_firewall(Firewall())
        assert (await anext(hints)).firewall

        kernel.meddle(DeleteLink(VE))
        kernel.lose_events()
        assert await anext(hints) == Hint()


# --- where packets end up

NET, OTHER = network(1), network(2)
LOCAL, NEXT, REMOTE = endpoint(NET, 0, "h0"), endpoint(NET, 1, "h0"), endpoint(NET, 2, "h1")
STRANGER = endpoint(OTHER, 0, "h0")
BRIDGE, TUNNEL = bridge_name(NET.id), vxlan_name(NET.id)


@pytest.fixture
def world() -> World:
    world = World()
    world.add_host(host(0))
    world.add_host(host(1))
    world.add_network(NET)
    world.add_network(OTHER)
    for record in (LOCAL, NEXT, REMOTE, STRANGER):
        world.add(record)
    world.settle()
    return world


def sent(world: World, to: str) -> Path | Drop:
    return world.fabric.reaches("h0", namespace_of(LOCAL), ip_address(to).packed)


def test_a_packet_to_a_remote_endpoint_goes_through_the_tunnel(world: World) -> None:
    assert sent(world, "10.1.0.12") == Path(
        f"h1/{namespace_of(REMOTE)}",
        (
            f"h0/{namespace_of(LOCAL)}",
            f"h0/{BRIDGE}",
            TUNNEL,
            "h1",
            f"h1/{BRIDGE}",
            veth_name(REMOTE.id),
            f"h1/{namespace_of(REMOTE)}",
        ),
    )


def test_the_gateway_is_the_own_host_and_leads_outside(world: World) -> None:
    assert isinstance(arrived := sent(world, "10.1.0.1"), Path)
    assert arrived.at == "h0"
    assert isinstance(arrived := sent(world, "203.0.113.9"), Path)
    assert arrived.at == "outside"
    assert isinstance(arrived := sent(world, "2001:db8::9"), Path)
    assert arrived.at == "outside"


def test_networks_are_kept_apart_by_the_firewall_alone(world: World) -> None:
    assert isinstance(lost := sent(world, "10.2.0.10"), Drop)
    assert "apart" in lost.reason
    world.kernels["h0"].set_firewall(None)

    assert isinstance(sent(world, "10.2.0.10"), Path)


def test_an_internal_network_reaches_nothing_outside() -> None:
    world = World()
    world.add_host(host(0))
    inner = replace(NET, internal=True)
    world.add_network(inner)
    world.add(LOCAL)
    world.add(NEXT)
    world.settle()

    assert isinstance(sent(world, "10.1.0.11"), Path)
    assert isinstance(lost := sent(world, "203.0.113.9"), Drop)
    assert "no route" in lost.reason


def test_forged_routes_out_of_an_internal_network_end_at_the_firewall(world: World) -> None:
    kernel = world.kernels["h0"]
    assert kernel.tables.firewall is not None
    kernel.set_firewall(replace(kernel.tables.firewall, internal=frozenset({BRIDGE})))

    assert isinstance(lost := sent(world, "203.0.113.9"), Drop)
    assert "internal" in lost.reason


def lose_the_tunnel_entry(kernel: FakeKernel) -> None:
    kernel.meddle(RemoveVtep(VtepEntry(TUNNEL, packed_mac(REMOTE.mac), host(1).underlay.packed)))


def lose_the_neighbour(kernel: FakeKernel) -> None:
    kernel.meddle(RemoveNeighbour(Neighbour(BRIDGE, ip_address("10.1.0.12").packed, packed_mac(REMOTE.mac))))


def take_the_tunnel_down(kernel: FakeKernel) -> None:
    tunnel = kernel.tables.links[TUNNEL]
    assert isinstance(tunnel, Vxlan)
    kernel.meddle(UpdateLink(replace(tunnel, up=False), tunnel))


def take_the_bridge_down(kernel: FakeKernel) -> None:
    bridge = kernel.tables.links[BRIDGE]
    assert isinstance(bridge, Bridge)
    kernel.meddle(UpdateLink(replace(bridge, up=False), bridge))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lose_the_tunnel_entry, "does not know where"),
        (lose_the_neighbour, "nobody answers"),
        (take_the_tunnel_down, "is down"),
        (take_the_bridge_down, "not a port of a bridge that is up"),
    ],
)
def test_it_says_why_a_packet_is_lost(world: World, harm: Callable[[FakeKernel], None], reason: str) -> None:
    harm(world.kernels["h0"])

    assert isinstance(lost := sent(world, "10.1.0.12"), Drop)
    assert reason in lost.reason


def test_a_cut_underlay_and_a_missing_far_end_lose_it_too(world: World) -> None:
    world.fabric.cuts.add(frozenset({"h0", "h1"}))
    assert isinstance(lost := sent(world, "10.1.0.12"), Drop)
    assert "192.168.7.2 does not answer" in lost.reason
    world.fabric.cuts.clear()
    far = world.kernels["h1"].tables.links[TUNNEL]

    world.kernels["h1"].meddle(DeleteLink(far))

    assert isinstance(lost := sent(world, "10.1.0.12"), Drop)
    assert "no tunnel device" in lost.reason


def test_flooding_finds_an_endpoint_that_nobody_programmed_and_says_that_it_flooded(world: World) -> None:
    world.networks[NET.id] = replace(NET, flood=True)
    world.settle()
    kernel = world.kernels["h0"]
    lose_the_neighbour(kernel)
    lose_the_tunnel_entry(kernel)

    assert isinstance(arrived := sent(world, "10.1.0.12"), Path)
    assert arrived.flooded


def test_a_host_that_does_not_forward_is_the_end(world: World) -> None:
    world.kernels["h0"].meddle(SetSysctl(FORWARD_IPV4, "0"))

    assert isinstance(lost := sent(world, "203.0.113.9"), Drop)
    assert lost.hop == "h0"
