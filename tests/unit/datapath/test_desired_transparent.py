"""What a transparent network is on a host: interfaces on a link of the host's own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from datapath.conditions import findings
from datapath.conflicts import obstacles
from datapath.desired import desired
from datapath.names import bridge_name, host_mac, macvlan_name, shim_name, veth_name
from datapath.objects import (
    Bridge,
    Enslavement,
    HostState,
    InterfaceAddress,
    Macvlan,
    PortEntry,
    Route,
    Shim,
    Uplink,
    Veth,
)
from datapath.packing import packed_mac
from datapath.view import Attachment
from kvnet.model import Driver, Endpoint, Network, UplinkMode
from tests.unit.datapath.clusters import endpoint, host, network
from tests.unit.datapath.views import packed, view_of

NET = replace(network(1, driver=Driver.TRANSPARENT), uplink="eth1")
BRIDGED = replace(NET, uplink_mode=UplinkMode.BRIDGE)
LOCAL = endpoint(NET, 0, "h0")
MACVLAN, VETH, BRIDGE = macvlan_name(LOCAL.id), veth_name(LOCAL.id), bridge_name(NET.id)
UPLINK = Uplink("eth1", 1500, up=True)
OPERATORS = Uplink("eth1", 1500, up=True, is_bridge=True, has_addresses=True)


def state_of(of: Network = NET, *uplinks: Uplink, local: Endpoint = LOCAL) -> HostState:
    return desired(view_of([of], [local], uplinks=uplinks or [UPLINK]))


def test_each_workload_has_an_interface_on_the_uplink_and_the_physical_gateway() -> None:
    state = state_of()

    assert state.links == {MACVLAN: Macvlan(MACVLAN, "eth1", 1500)}
    side = state.containers[MACVLAN]
    assert (side.interface, side.mac) == ("eth0", packed_mac(LOCAL.mac))
    assert side.addresses == ((packed("10.1.0.10"), 24), (packed("fd00:1::a"), 64))
    assert side.gateways == (packed("10.1.0.1"), packed("fd00:1::1"))
    assert not state.addresses | state.routes | state.neighbours | state.ports
    assert not state.sysctls


def test_it_is_none_of_the_firewalls_business() -> None:
    state = state_of()

    assert state.firewall is not None
    assert not any(getattr(state.firewall, part) for part in type(state.firewall).__slots__)
    assert not state.is_forwarding


def test_an_interface_whose_namespace_is_not_known_is_not_made() -> None:
    view = view_of([NET], [LOCAL], uplinks=[UPLINK], attachments={LOCAL.id: Attachment(LOCAL.id, "", "")})

    assert desired(view).links.keys() == {MACVLAN}
    assert not desired(view).containers


@pytest.mark.parametrize(
    ("given", "uplink", "wanted", "told"),
    [
        (None, 1500, 1500, []),
        (None, 9000, 9000, []),
        (1400, 9000, 1400, []),
        (9000, 1500, 1500, ["uplink-mtu"]),
        (None, 1000, 1000, ["mtu-impossible"]),
    ],
)
def test_the_mtu_is_never_larger_than_the_uplinks(given: int | None, uplink: int, wanted: int, told: list[str]) -> None:
    view = view_of([replace(NET, mtu=given)], [LOCAL], uplinks=[replace(UPLINK, mtu=uplink)])

    assert desired(view).links[MACVLAN].mtu == wanted
    assert [finding.code for finding in findings(view)] == told


def test_a_shim_leads_from_the_host_to_its_own_workloads_only() -> None:
    remote = endpoint(NET, 1, "h1")
    on_it = replace(host(0), underlay=ip_address("10.1.0.200"))
    shimmed = replace(NET, shim=True)
    state = desired(view_of([shimmed], [LOCAL, remote], uplinks=[UPLINK], hosts=[on_it, host(1)]))
    shim = shim_name(NET.id)

    assert state.links[shim] == Shim(shim, "eth1", host_mac(NET.id, "h0"), 1500)
    assert state.routes == {
        Route(packed("10.1.0.10"), 32, shim, source=packed("10.1.0.200")),
        Route(packed("fd00:1::a"), 128, shim),
    }
    assert state.containers[MACVLAN].routes == ()  # the host is in their subnet
    assert state.sysctls[f"net/ipv6/conf/{shim}/accept_ra"] == "0"
    assert state.sysctls[f"net/ipv4/conf/{shim}/arp_filter"] == "1"


@pytest.mark.parametrize("ipv6_underlay", [False, True])
def test_a_shims_host_speaks_from_its_underlay_address_wherever_that_is(ipv6_underlay: bool) -> None:
    here = host(0, ipv6_underlay=ipv6_underlay)
    state = desired(view_of([replace(NET, shim=True)], [LOCAL], uplinks=[UPLINK], hosts=[here]))
    underlay = here.underlay

    assert state.containers[MACVLAN].routes == ((underlay.packed, underlay.max_prefixlen, b""),)
    assert {route.source for route in state.routes} == {underlay.packed, b""}
    on_shim = {InterfaceAddress(shim_name(NET.id), underlay.packed, 128)}
    assert state.addresses == (on_shim if ipv6_underlay else set())
    assert state_of().containers[MACVLAN].routes == ()


def test_an_operators_bridge_gets_ports_and_is_otherwise_not_touched() -> None:
    state = state_of(BRIDGED, OPERATORS)

    assert state.links == {VETH: Veth(VETH, 1500, "eth1")}
    assert not state.ports | state.enslaved
    assert state.firewall is not None
    assert not state.firewall.pairs


def test_a_plain_uplink_joins_a_bridge_without_addresses() -> None:
    state = state_of(BRIDGED, UPLINK)

    assert state.links == {
        BRIDGE: Bridge(BRIDGE, host_mac(NET.id, "h0"), 1500, ipv6=False),
        VETH: Veth(VETH, 1500, BRIDGE),
    }
    assert state.enslaved == {Enslavement("eth1", BRIDGE)}
    assert state.ports == {PortEntry(VETH, packed_mac(LOCAL.mac))}
    assert not state.addresses | state.routes | state.neighbours
    assert state.firewall is not None
    assert state.firewall.pairs == {(BRIDGE, BRIDGE)}  # marked for the gates, and not judged
    assert not state.firewall.bridges
    assert state.is_forwarding


def test_without_icc_the_ports_on_a_bridge_are_isolated() -> None:
    for uplink in (UPLINK, OPERATORS):
        veth = state_of(replace(BRIDGED, icc=False), uplink).links[VETH]
        assert isinstance(veth, Veth)
        assert veth.isolated


def test_an_uplink_that_is_down_is_reported_and_used() -> None:
    view = view_of([NET], [LOCAL], uplinks=[replace(UPLINK, up=False)])

    assert MACVLAN in desired(view).links
    assert [finding.code for finding in findings(view)] == ["uplink-down"]


def test_a_network_that_names_no_uplink_is_not_built() -> None:
    view = view_of([replace(NET, uplink="")], [LOCAL])

    assert not desired(view).links
    assert [finding.code for finding in findings(view)] == ["uplink-missing"]


# --- what is in the way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [NET, replace(NET, shim=True), BRIDGED])
def test_a_missing_uplink_blocks_the_network_and_leaves_what_is_there(of: Network) -> None:
    other = endpoint(network(2), 0, "h0")
    wanted = desired(view_of([of, network(2)], [LOCAL, other]))

    found = obstacles(wanted, HostState(links=wanted.links))

    assert [(c.network, c.device, c.code) for c in found.conflicts] == [(NET.id, "eth1", "uplink-missing")]
    assert found.devices == desired(view_of([of], [LOCAL])).links.keys()


def test_an_uplink_that_is_free_is_no_obstacle() -> None:
    for of in (NET, BRIDGED):
        assert obstacles(state_of(of), HostState(uplinks={"eth1": UPLINK})).conflicts == ()
    assert obstacles(state_of(BRIDGED, OPERATORS), HostState(uplinks={"eth1": OPERATORS})).conflicts == ()


@pytest.mark.parametrize(
    ("found", "word"),
    [(replace(UPLINK, has_addresses=True), "addresses"), (replace(UPLINK, bridge="br0"), "br0 already")],
)
def test_an_uplink_with_addresses_or_a_master_is_not_taken(found: Uplink, word: str) -> None:
    (conflict,) = obstacles(state_of(BRIDGED), HostState(uplinks={"eth1": found})).conflicts

    assert (conflict.network, conflict.code) == (NET.id, "uplink-in-use")
    assert word in conflict.detail


def test_an_uplink_that_is_ours_already_stays_ours() -> None:
    ours = replace(UPLINK, bridge=BRIDGE, has_addresses=True)
    actual = HostState(uplinks={"eth1": ours}, enslaved=frozenset({Enslavement("eth1", BRIDGE)}))

    assert obstacles(state_of(BRIDGED), actual).conflicts == ()


def test_nothing_can_stand_on_a_port_of_a_bridge() -> None:
    (conflict,) = obstacles(state_of(), HostState(uplinks={"eth1": replace(UPLINK, bridge="br0")})).conflicts

    assert (conflict.network, conflict.code) == (NET.id, "uplink-in-use")


def test_of_two_networks_that_want_one_uplink_for_their_bridges_one_gets_it() -> None:
    second = replace(network(2, driver=Driver.TRANSPARENT), uplink="eth1", uplink_mode=UplinkMode.BRIDGE)
    wanted = desired(view_of([BRIDGED, second], [LOCAL, endpoint(second, 0, "h0")], uplinks=[UPLINK]))

    (conflict,) = obstacles(wanted, HostState(uplinks={"eth1": UPLINK})).conflicts
    assert conflict.network == second.id
    held = HostState(
        uplinks={"eth1": replace(UPLINK, bridge=bridge_name(second.id))},
        enslaved=frozenset({Enslavement("eth1", bridge_name(second.id))}),
    )
    (conflict,) = obstacles(wanted, held).conflicts
    assert conflict.network == NET.id
