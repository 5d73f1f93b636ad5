"""Whose a found device is, and what a foreign one stops: one network, or one interface, never the host."""

from __future__ import annotations

from dataclasses import replace

from datapath.conflicts import network_of_link, obstacles
from datapath.desired import desired
from datapath.names import bridge_of, shim_name, veth_name, vxlan_name
from datapath.objects import Bridge, Foreign, HostState, Shim, Uplink, Veth
from kvnet.model import Driver
from tests.unit.datapath.clusters import endpoint, network
from tests.unit.datapath.views import view_of

NAMED = replace(network(1), bridge_name="br-blue")
PLAIN = network(2, driver=Driver.BRIDGE)
SHIMMED = replace(network(3, driver=Driver.TRANSPARENT), uplink="eth1", shim=True)
LOCALS = [endpoint(of, 0, "h0") for of in (NAMED, PLAIN, SHIMMED)]
UPLINK = Uplink("eth1", 1500, up=True)
WANTED = desired(view_of([NAMED, PLAIN, SHIMMED], LOCALS, uplinks=[UPLINK]))
AROUND = HostState(uplinks={"eth1": UPLINK})


def in_the_way(*found: Foreign) -> HostState:
    return replace(AROUND, foreign={other.name: other for other in found})


def test_nothing_in_the_way_is_no_obstacle() -> None:
    assert obstacles(WANTED, in_the_way(Foreign("eth0", "veth"), Foreign("docker0", "bridge"))).devices == frozenset()


def test_a_foreign_link_under_a_custom_bridges_name_blocks_that_network_alone() -> None:
    found = obstacles(WANTED, in_the_way(Foreign("br-blue", "bridge")))

    assert [(c.network, c.device, c.code) for c in found.conflicts] == [(NAMED.id, "br-blue", "foreign-object")]
    assert found.devices == {"br-blue", vxlan_name(NAMED.id), veth_name(LOCALS[0].id)}


def test_a_foreign_link_under_a_custom_name_blocks_a_network_without_a_tunnel_too() -> None:
    named = replace(PLAIN, bridge_name="br-blue")
    wanted = desired(view_of([named], [LOCALS[1]]))
    stale = Veth(veth_name("gone"), 1500, "br-blue")

    found = obstacles(wanted, replace(in_the_way(Foreign("br-blue", "bridge")), links={stale.name: stale}))

    assert [c.network for c in found.conflicts] == [PLAIN.id]
    assert found.devices == {"br-blue", veth_name(LOCALS[1].id), stale.name}


def test_a_foreign_shim_blocks_its_network_and_a_foreign_veth_its_interface() -> None:
    shim, veth = shim_name(SHIMMED.id), veth_name(LOCALS[1].id)
    found = obstacles(WANTED, in_the_way(Foreign(shim, "dummy"), Foreign(veth, "veth")))

    assert {(c.network, c.device) for c in found.conflicts} == {(SHIMMED.id, shim), (PLAIN.id, veth)}
    assert bridge_of(PLAIN) not in found.devices
    assert shim in found.devices
    assert veth in found.devices


def test_a_foreign_tunnel_with_our_vni_blocks_the_network_that_has_it() -> None:
    found = obstacles(WANTED, in_the_way(Foreign("flannel.1", "vxlan", vni=NAMED.vni)))

    assert [(c.network, c.device) for c in found.conflicts] == [(NAMED.id, "flannel.1")]
    assert "br-blue" in found.devices
    assert "flannel.1" not in found.devices


def test_what_a_link_says_of_its_network() -> None:
    assert network_of_link(WANTED.links["br-blue"]) == NAMED.id
    assert network_of_link(Bridge(bridge_of(PLAIN), b"", 1500, ipv6=False)) == PLAIN.id
    assert network_of_link(Veth("kve0", 1500, bridge_of(PLAIN))) == PLAIN.id
    assert network_of_link(Shim(shim_name(SHIMMED.id), "eth1", b"", 1500)) == SHIMMED.id
    assert network_of_link(Veth("kve0", 1500, "br-blue")) == ""
