"""What a plan contains for uplinks, gates, routes via peers and connections, case by case."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from datapath.fake import FakeKernel
from datapath.names import bridge_of
from datapath.objects import (
    CloseGate,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Enslave,
    Enslavement,
    Firewall,
    ForgetCallers,
    ForgetFlows,
    Gate,
    HostState,
    Macvlan,
    OpenGate,
    Operation,
    Publication,
    Release,
    ReplaceRoute,
    Route,
    SetFirewall,
    Shim,
    UpdateLink,
    Uplink,
    Veth,
)
from datapath.plan import expected, plan
from kvnet.model import Driver, UplinkMode
from tests.unit.datapath.clusters import World, endpoint, host, network

MAC = b"\x02\x00\x00\x00\x00\x01"
SIDE = ContainerSide("/run/netns/a", "eth0", MAC, 1500, ((b"\x0a\x01\x00\x02", 24),), ())
LAN = Uplink("lan0", 1500, True, b"\x02\xaa\x00\x00\x00\x00")
GATE4, GATE6 = Gate("nft", 4), Gate("legacy", 6)


def world_of(**changes: Any) -> World:
    world = World()
    world.add_host(host(0))
    world.add_host(host(1))
    net = network(1, **changes)
    world.add_network(net)
    for number in range(2):
        world.add(endpoint(net, number, f"h{number}"))
    return world


def test_an_uplink_joins_after_its_bridge_is_made_and_leaves_before_that_goes() -> None:
    world = world_of(driver=Driver.TRANSPARENT, uplink="lan2", uplink_mode=UplinkMode.BRIDGE)
    entry = Enslavement("lan2", bridge_of(world.networks["000000000001"]))
    made = plan(world.desired("h0"), world.state("h0")).operations
    created = [i for i, o in enumerate(made) if isinstance(o, CreateLink) and o.link.name == entry.bridge]
    assert created[0] < made.index(Enslave(entry))
    world.settle()

    world.remove(endpoint(world.networks["000000000001"], 0, "h0"))

    gone = plan(world.desired("h0"), world.kernels["h0"].state()).operations
    deleted = [i for i, o in enumerate(gone) if isinstance(o, DeleteLink) and o.link.name == entry.bridge]
    assert gone.index(Release(entry)) < deleted[0]


def test_macvlans_go_before_their_uplink_becomes_a_port() -> None:
    macvlan, bridge = Macvlan("kvm1", "lan0", 1500), "kvb000000000001"
    actual = HostState(links={"kvm1": macvlan}, containers={"kvm1": SIDE}, uplinks={"lan0": LAN})
    world = world_of(driver=Driver.TRANSPARENT, uplink="lan0", uplink_mode=UplinkMode.BRIDGE)

    made = plan(replace(world.desired("h0"), firewall=None), actual).operations

    assert made.index(DeleteLink(macvlan, SIDE)) < made.index(Enslave(Enslavement("lan0", bridge)))


def test_a_macvlan_on_another_uplink_is_made_anew_and_one_with_another_mtu_is_not() -> None:
    wanted = HostState(links={"kvm1": Macvlan("kvm1", "lan0", 1400)}, containers={"kvm1": replace(SIDE, mtu=1400)})
    uplinks = {"lan0": LAN, "lan1": replace(LAN, name="lan1")}
    there = HostState(links={"kvm1": Macvlan("kvm1", "lan0", 1500)}, containers={"kvm1": SIDE}, uplinks=uplinks)
    elsewhere = replace(there, links={"kvm1": Macvlan("kvm1", "lan1", 1400)})
    changed = UpdateLink(wanted.links["kvm1"], there.links["kvm1"], wanted.containers["kvm1"])

    assert plan(wanted, there).operations == (changed,)
    assert [type(o) for o in plan(wanted, elsewhere).operations] == [DeleteLink, CreateLink]


def test_a_veth_whose_mtu_changes_is_told_where_its_other_half_is() -> None:
    world = world_of()
    world.settle()
    net = world.networks["000000000001"]
    world.networks[net.id] = replace(net, mtu=1400)

    made = plan(world.desired("h0"), world.state("h0")).operations

    veths = [o for o in made if isinstance(o, UpdateLink) and isinstance(o.link, Veth)]
    assert [o.container for o in veths] == [world.desired("h0").containers[veths[0].link.name]]


def test_routes_via_peers_outlive_the_bridge_of_their_network() -> None:
    world = world_of(driver=Driver.ROUTED, ipv6=False)
    world.settle()
    bridge = bridge_of(world.networks["000000000001"])
    kernel = world.kernels["h0"]
    peers = {route for route in kernel.state().routes if not route.device}
    assert peers

    kernel.meddle(DeleteLink(kernel.tables.links[bridge]))

    assert {route for route in kernel.state().routes if not route.device} == peers
    made = plan(world.desired("h0"), world.state("h0")).operations
    assert not [o for o in made if isinstance(o, ReplaceRoute) and not o.route.device]


@pytest.mark.parametrize("is_forwarding", [True, False])
def test_gates_are_opened_where_we_forward_closed_where_not_and_left_alone_if_nobody_looked(
    is_forwarding: bool,
) -> None:
    wanted = HostState(firewall=Firewall(), is_forwarding=is_forwarding)
    actual = HostState(firewall=Firewall(), gates={GATE4: True, GATE6: False})

    made = plan(wanted, actual).operations

    assert made == ((OpenGate(GATE6),) if is_forwarding else (CloseGate(GATE4),))
    assert expected(wanted, actual).gates == {GATE4: is_forwarding, GATE6: is_forwarding}
    assert plan(expected(wanted, actual), expected(wanted, actual)).operations == ()
    assert plan(wanted, replace(actual, gates=None)).operations == ()
    assert plan(replace(wanted, firewall=None), actual).operations == (), "one network's part says nothing of gates"


def test_connections_to_a_port_end_right_after_it_is_no_longer_published() -> None:
    ended = Publication(6, b"", 80, b"\x0a\x01\x00\x02", 8080)
    wanted = HostState(firewall=Firewall())
    actual = HostState(firewall=Firewall(publications=frozenset({ended})))

    assert plan(wanted, actual).operations == (SetFirewall(Firewall()), ForgetFlows(ended.to, 6, 8080))
    assert plan(wanted, replace(actual, firewall=None)).operations == (SetFirewall(Firewall()),)


def test_callers_of_a_udp_port_are_looked_at_anew_right_after_it_is_published() -> None:
    begun = Publication(17, b"", 53, b"\x0a\x01\x00\x02", 5353)
    one, both = Firewall(publications=frozenset({begun})), Publication(17, bytes(16), 53, bytes(15) + b"\x02", 53)
    tcp = Publication(6, b"", 53, b"\x0a\x01\x00\x02", 5353)

    assert plan(HostState(firewall=one), HostState()).operations == (SetFirewall(one), ForgetCallers(4, 17, 53))
    assert plan(HostState(firewall=one), HostState(firewall=one)).operations == ()
    more = Firewall(publications=frozenset({begun, tcp, both}))
    assert plan(HostState(firewall=more), HostState(firewall=one)).operations == (
        SetFirewall(more),
        ForgetCallers(6, 17, 53, bytes(16)),
    )


def test_connections_of_workloads_that_were_here_end_and_those_of_others_do_not() -> None:
    world = world_of(ipv6=False)
    world.settle()
    net = world.networks["000000000001"]
    local, remote = endpoint(net, 0, "h0"), endpoint(net, 1, "h1")
    world.add(endpoint(net, 5, "h0"))
    world.settle()
    world.remove(remote)
    assert not forgotten(world)
    world.settle()

    world.remove(local)
    assert forgotten(world) == [ForgetFlows(local.addresses[0].packed)]

    world.add(replace(local, mac="02:aa:aa:aa:aa:aa"))
    assert forgotten(world) == [ForgetFlows(local.addresses[0].packed)]


def forgotten(world: World) -> list[Operation]:
    return [o for o in plan(world.desired("h0"), world.state("h0")).operations if isinstance(o, ForgetFlows)]


# --- what the fake kernel refuses


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (CreateLink(Macvlan("kvm2", "nobody", 1500), replace(SIDE, interface="eth1")), errno.ENODEV),
        (CreateLink(Macvlan("kvm2", "lan0", 1500), SIDE), errno.EADDRINUSE),
        (CreateLink(Macvlan("kvm2", "lan0", 9000), replace(SIDE, interface="eth1", mac=MAC[::-1])), errno.EINVAL),
        (CreateLink(Shim("kvs1", "taken", MAC[::-1], 1500)), errno.EBUSY),
        (Enslave(Enslavement("lan0", "kvb1")), errno.ENODEV),
        (ReplaceRoute(Route(b"\x0a\x02\x00\x00", 24, "", gateway=b"\x0a\x09\x00\x01")), errno.ENETUNREACH),
        (OpenGate(GATE4), errno.ENOENT),
    ],
)
def test_it_refuses_what_linux_refuses_of_uplinks_peers_and_gates(operation: Operation, refusal: int) -> None:
    kernel = FakeKernel("h0", [b"\xc0\xa8\x07\x01"])
    kernel.set_uplink(LAN)
    kernel.set_uplink(replace(LAN, name="taken", bridge="docker0"))
    kernel.add_namespace("/run/netns/a")
    assert kernel.execute([CreateLink(Macvlan("kvm1", "lan0", 1500), SIDE)]) == []
    before = kernel.state()

    assert [failure.errno for failure in kernel.execute([operation])] == [refusal]
    assert kernel.state() == before
