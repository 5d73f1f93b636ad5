"""What a plan contains, case by case, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from datapath.desired import Attachment, bridge_name, veth_name, vxlan_name
from datapath.fake import FakeKernel
from datapath.objects import (
    AddAddress,
    Announce,
    Bridge,
    CreateLink,
    DeleteLink,
    Foreign,
    HostState,
    Neighbour,
    Operation,
    PortEntry,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    SetFirewall,
    UpdateLink,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.packing import FLOOD_MAC, packed_mac
from datapath.plan import expected, plan
from tests.unit.datapath.clusters import World, endpoint, host, namespace_of, network

NET, OTHER = network(1), network(2, ipv6=False)
BRIDGE, TUNNEL = bridge_name(NET.id), vxlan_name(NET.id)
LOCAL, REMOTE = endpoint(NET, 0, "h0"), endpoint(NET, 1, "h1")
VETH = veth_name(LOCAL.id)


@pytest.fixture
def world() -> World:
    """Two hosts, two networks, one endpoint of each network on each host; nothing built yet."""
    world = World()
    world.add_host(host(0))
    world.add_host(host(1))
    for net in (NET, OTHER):
        world.add_network(net)
        world.add(endpoint(net, 0, "h0"))
        world.add(endpoint(net, 1, "h1"))
    return world


@pytest.fixture
def kernel(world: World) -> FakeKernel:
    """The first host's, with everything built."""
    world.settle()
    return world.kernels["h0"]


def kinds(operations: Sequence[Operation]) -> list[str]:
    """The names of the operations, repetitions left out."""
    names = [type(operation).__name__ for operation in operations]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def names_of(operations: Sequence[Operation], kind: type) -> list[str]:
    return [o.link.name for o in operations if isinstance(o, CreateLink | UpdateLink | DeleteLink) and type(o) is kind]


def test_a_host_is_built_in_the_order_in_which_one_thing_stands_on_another(world: World) -> None:
    made = plan(world.desired("h0"), HostState())

    assert kinds(made.operations) == [
        "SetFirewall",
        "CreateLink",
        "SetSysctl",
        "AddAddress",
        "ReplaceRoute",
        "ReplaceVtep",
        "ReplacePort",
        "ReplaceNeighbour",
    ]
    created = [type(o.link) for o in made.operations if isinstance(o, CreateLink)]
    assert created == [Bridge, Bridge, Vxlan, Vxlan, Veth, Veth]


def test_a_network_goes_as_its_devices_and_nothing_on_them_is_removed_one_by_one(
    world: World, kernel: FakeKernel
) -> None:
    world.remove(LOCAL)

    made = plan(world.desired("h0"), kernel.state())

    assert kinds(made.operations) == ["SetFirewall", "DeleteLink", "ForgetFlows"]
    assert names_of(made.operations, DeleteLink) == [VETH, TUNNEL, BRIDGE]


def test_a_remote_endpoint_that_leaves_takes_exactly_its_entries_along(world: World, kernel: FakeKernel) -> None:
    world.remove(REMOTE)

    made = plan(world.desired("h0", NET.id), kernel.state(NET.id))

    assert kinds(made.operations) == ["RemoveNeighbour", "RemovePort", "RemoveVtep"]
    assert len(made.operations) == 5


def test_a_network_alone_is_planned_without_touching_the_firewall(world: World, kernel: FakeKernel) -> None:
    kernel.set_firewall(None)

    assert plan(world.desired("h0", NET.id), kernel.state(NET.id)).operations == ()


def test_a_damaged_firewall_is_set_anew(world: World, kernel: FakeKernel) -> None:
    kernel.set_firewall(None)
    wanted = world.desired("h0")
    assert wanted.firewall is not None

    assert plan(wanted, kernel.state()).operations == (SetFirewall(wanted.firewall),)


def test_an_address_with_a_new_mac_is_forwarded_first_then_answered_for_then_announced(
    world: World, kernel: FakeKernel
) -> None:
    world.add(replace(REMOTE, mac="02:aa:aa:aa:aa:aa"))

    made = plan(world.desired("h0", NET.id), kernel.state(NET.id)).operations

    assert kinds(made) == [
        "ReplaceVtep",
        "ReplacePort",
        "ReplaceNeighbour",
        "RemoveNeighbour",  # the link-local address of the old MAC
        "RemovePort",
        "RemoveVtep",
        "Announce",
    ]
    announced = {o.neighbour.address for o in made if isinstance(o, Announce)}
    assert announced == {address.packed for address in REMOTE.addresses}


def test_an_endpoint_that_moves_with_its_mac_only_changes_where_the_tunnel_sends_it(world: World) -> None:
    world.add_host(host(2))
    world.add(endpoint(NET, 2, "h2"))
    world.settle()
    world.move(REMOTE, "h2")
    kernel = world.kernels["h0"]

    made = plan(world.desired("h0", NET.id), kernel.state(NET.id)).operations

    assert made == (ReplaceVtep(VtepEntry(TUNNEL, packed_mac(REMOTE.mac), host(2).underlay.packed)),)


def test_an_endpoint_that_comes_here_moves_its_port_entry_and_loses_its_tunnel_entry(
    world: World, kernel: FakeKernel
) -> None:
    world.move(REMOTE, "h0")
    mac, veth = packed_mac(REMOTE.mac), veth_name(REMOTE.id)

    made = plan(world.desired("h0", NET.id), kernel.state(NET.id)).operations

    assert kinds(made) == ["CreateLink", "SetSysctl", "ReplacePort", "RemoveVtep"]
    assert made[2:] == (
        ReplacePort(PortEntry(veth, mac)),
        RemoveVtep(VtepEntry(TUNNEL, mac, host(1).underlay.packed)),
    )


def test_everything_on_a_bridge_that_was_down_is_written_again_even_if_a_torn_dump_still_lists_it(
    world: World, kernel: FakeKernel
) -> None:
    whole = kernel.state()
    bridge = whole.links[BRIDGE]
    torn = replace(whole, links={**whole.links, BRIDGE: replace(bridge, up=False)})

    made = plan(world.desired("h0"), torn).operations

    assert kinds(made) == ["UpdateLink", "AddAddress", "ReplaceRoute", "ReplaceNeighbour"]
    assert sum(isinstance(o, ReplaceNeighbour) for o in made) == sum(n.device == BRIDGE for n in whole.neighbours)


def test_the_ports_of_a_bridge_that_is_made_anew_are_enslaved_again_even_if_a_torn_dump_has_them_there(
    world: World, kernel: FakeKernel
) -> None:
    whole = kernel.state()
    torn = replace(whole, links={name: link for name, link in whole.links.items() if name != BRIDGE})

    made = plan(world.desired("h0"), torn).operations

    assert names_of(made, CreateLink) == [BRIDGE]
    assert names_of(made, UpdateLink) == [TUNNEL, VETH]
    assert {o.entry.port for o in made if isinstance(o, ReplacePort)} == {TUNNEL, VETH}


def test_a_bridge_that_gets_its_mac_back_gets_its_neighbours_back_too(world: World, kernel: FakeKernel) -> None:
    """The kernel forgets them with the change, the one that repairs it included."""
    bridge = kernel.tables.links[BRIDGE]
    assert isinstance(bridge, Bridge)
    neighbours = [ReplaceNeighbour(n) for n in kernel.state().neighbours if n.device == BRIDGE]
    kernel.meddle(UpdateLink(replace(bridge, mac=b"\x02" * 6), bridge), *neighbours)

    world.settle()


def test_neighbours_are_written_again_where_the_only_ipv4_address_is_a_wrong_one(
    world: World, kernel: FakeKernel
) -> None:
    """The kernel forgets them with the last address of a device, and that is the one which has to go."""
    ours = next(a for a in kernel.state().addresses if a.device == BRIDGE and len(a.address) == 4)
    neighbours = [ReplaceNeighbour(n) for n in kernel.state().neighbours if n.device == BRIDGE]
    wrong = ours._replace(address=b"\x0a\x01\x00\xfa")
    kernel.meddle(RemoveAddress(ours), AddAddress(wrong), *neighbours)

    world.settle()


def test_routes_are_written_again_with_the_address_that_is_their_source_even_if_a_torn_dump_still_lists_them(
    world: World, kernel: FakeKernel
) -> None:
    whole = kernel.state()
    torn = replace(whole, addresses=frozenset(a for a in whole.addresses if a.device != BRIDGE))

    made = plan(world.desired("h0"), torn).operations

    assert kinds(made) == ["AddAddress", "ReplaceRoute"]
    assert {o.route.device for o in made if isinstance(o, ReplaceRoute)} == {BRIDGE}


@pytest.mark.parametrize("wrong", [{"vni": 9}, {"local": b"\x01\x02\x03\x04"}, {"port": 8472}])
def test_a_tunnel_with_another_segment_is_made_anew_with_all_its_entries(
    world: World, kernel: FakeKernel, wrong: dict[str, Any]
) -> None:
    whole = kernel.state()
    tunnel = whole.links[TUNNEL]
    assert isinstance(tunnel, Vxlan)
    actual = replace(whole, links={**whole.links, TUNNEL: replace(tunnel, **wrong)})

    made = plan(world.desired("h0"), actual).operations

    assert kinds(made) == ["DeleteLink", "CreateLink", "SetSysctl", "ReplaceVtep", "ReplacePort"]


def test_a_stale_tunnel_makes_room_for_a_new_one_with_its_vni(world: World, kernel: FakeKernel) -> None:
    again = replace(network(3), vni=NET.vni)
    world.remove(LOCAL)
    world.remove(REMOTE)
    world.add_network(again)
    world.add(endpoint(again, 0, "h0"))

    made = plan(world.desired("h0"), kernel.state()).operations

    links = [o for o in made if isinstance(o, CreateLink | DeleteLink)]
    stale = next(i for i, o in enumerate(links) if isinstance(o, DeleteLink) and o.link.name == TUNNEL)
    new = next(i for i, o in enumerate(links) if isinstance(o, CreateLink) and o.link.name == vxlan_name(again.id))
    assert stale < new
    assert links[-1] == DeleteLink(kernel.state().links[BRIDGE])


def test_a_stale_interface_makes_room_for_a_new_one_in_the_same_namespace(world: World, kernel: FakeKernel) -> None:
    newcomer = endpoint(NET, 5, "h0")
    world.remove(LOCAL)
    world.add(newcomer)
    world.attachments["h0"][newcomer.id] = Attachment(newcomer.id, namespace_of(LOCAL), "eth0")

    world.settle()

    assert VETH not in kernel.tables.links


def test_an_interface_that_goes_to_another_namespace_is_made_anew(world: World, kernel: FakeKernel) -> None:
    last = expected(world.desired("h0"), kernel.state())
    kernel.add_namespace("/run/netns/elsewhere")
    world.attachments["h0"][LOCAL.id] = Attachment(LOCAL.id, "/run/netns/elsewhere", "eth0")

    made = plan(world.desired("h0"), last).operations

    assert names_of(made, DeleteLink) == names_of(made, CreateLink) == [VETH]
    assert kernel.execute(made) == []
    assert set(kernel.tables.namespaces["/run/netns/elsewhere"]) == {"eth0"}


def test_an_interface_whose_namespace_is_not_known_is_kept_but_never_made(world: World, kernel: FakeKernel) -> None:
    world.attachments["h0"][LOCAL.id] = Attachment(LOCAL.id, "", "")
    wanted = world.desired("h0")

    assert plan(wanted, kernel.state()).operations == ()

    kernel.remove_namespace(namespace_of(LOCAL))

    assert plan(wanted, kernel.state()).operations == ()
    assert VETH not in expected(wanted, kernel.state()).links


def test_flooding_to_another_peer_adds_the_new_and_removes_the_old(world: World) -> None:
    world.networks[NET.id] = replace(NET, flood=True)
    world.add_host(host(2))
    world.settle()
    world.move(REMOTE, "h2")
    kernel = world.kernels["h0"]

    made = plan(world.desired("h0", NET.id), kernel.state(NET.id)).operations

    assert ReplaceVtep(VtepEntry(TUNNEL, FLOOD_MAC, host(2).underlay.packed)) in made
    assert RemoveVtep(VtepEntry(TUNNEL, FLOOD_MAC, host(1).underlay.packed)) in made


def test_a_stray_entry_goes_and_the_port_that_was_taken_away_keeps_its_own(world: World, kernel: FakeKernel) -> None:
    strays = Neighbour(BRIDGE, b"\x0a\x01\x00\xfe", b"\x02" * 6), PortEntry(TUNNEL, b"\x02" * 6)
    kernel.meddle(ReplaceNeighbour(strays[0]), ReplacePort(strays[1]))

    made = plan(world.desired("h0"), kernel.state()).operations

    assert made == (RemoveNeighbour(strays[0]), RemovePort(strays[1]))


def test_the_same_plan_comes_in_the_same_order(world: World) -> None:
    assert plan(world.desired("h0"), HostState()) == plan(world.desired("h0"), HostState())


# --- what is not ours


@pytest.mark.parametrize(
    "foreign", [Foreign(BRIDGE, "bridge"), Foreign(TUNNEL, "dummy"), Foreign("vx0", "vxlan", NET.vni)]
)
def test_a_foreign_object_blocks_its_network_and_no_other(world: World, foreign: Foreign) -> None:
    kernel = world.kernels["h0"]
    kernel.add_foreign(foreign)

    made = plan(world.desired("h0"), kernel.state())

    assert [(c.network, c.device, c.code) for c in made.conflicts] == [(NET.id, foreign.name, "foreign-object")]
    assert kernel.execute(made.operations) == []
    assert {BRIDGE, TUNNEL, VETH}.isdisjoint(kernel.tables.links)
    assert veth_name(endpoint(OTHER, 0, "h0").id) in kernel.tables.links
    assert kernel.tables.firewall is not None
    assert kernel.tables.firewall.bridges == {bridge_name(OTHER.id)}
    again = plan(world.desired("h0"), kernel.state())
    assert again.operations == ()
    assert again.conflicts == made.conflicts


def test_what_a_blocked_network_already_has_is_left_as_it_is(world: World, kernel: FakeKernel) -> None:
    tunnel = kernel.tables.links[TUNNEL]
    kernel.meddle(DeleteLink(tunnel))
    kernel.add_foreign(Foreign(TUNNEL, "dummy"))
    before = kernel.state()
    world.add(endpoint(NET, 7, "h1"))

    made = plan(world.desired("h0"), before)

    assert {type(operation) for operation in made.operations} <= {SetFirewall}
    kernel.execute(made.operations)
    assert expected(world.desired("h0"), before).links == kernel.state().links


def test_the_network_is_built_once_the_foreign_object_is_gone(world: World) -> None:
    kernel = world.kernels["h0"]
    kernel.add_foreign(Foreign(BRIDGE, "bridge"))
    world.settle()
    kernel.remove_foreign(BRIDGE)

    world.settle()

    assert {BRIDGE, TUNNEL, VETH} <= kernel.tables.links.keys()


def test_a_foreign_interface_blocks_only_the_endpoint_whose_name_it_has(world: World) -> None:
    kernel = world.kernels["h0"]
    kernel.add_foreign(Foreign(VETH, "dummy"))

    world.settle()

    made = plan(world.desired("h0"), kernel.state())
    assert [(conflict.network, conflict.device) for conflict in made.conflicts] == [(NET.id, VETH)]
    assert {BRIDGE, TUNNEL} <= kernel.tables.links.keys()


def test_a_foreign_object_that_is_in_nobodys_way_is_no_conflict(world: World) -> None:
    kernel = world.kernels["h0"]
    kernel.add_foreign(Foreign("kvb-something", "dummy"))
    kernel.add_foreign(Foreign("vx9", "vxlan", 99))

    assert plan(world.desired("h0"), kernel.state()).conflicts == ()
