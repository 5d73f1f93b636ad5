"""What a host should have, case by case."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from datapath.conditions import findings
from datapath.desired import Attachment, HostView, Memo, bridge_name, desired, veth_name, vxlan_name
from datapath.names import network_of_device
from datapath.objects import (
    Bridge,
    HostState,
    InterfaceAddress,
    Neighbour,
    PortEntry,
    Route,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.packing import FLOOD_MAC, link_local, packed_mac
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from kvnet.errors import NotFound
from kvnet.model import Driver, Endpoint, Host, Network, Subnet
from tests.unit.datapath.clusters import endpoint, host, network

HERE, THERE = host(0), host(1)
NET = network(1)
BRIDGE, TUNNEL = bridge_name(NET.id), vxlan_name(NET.id)
LOCAL, REMOTE = endpoint(NET, 0, "h0"), endpoint(NET, 1, "h1")
VETH = veth_name(LOCAL.id)
ATTACHED = {LOCAL.id: Attachment(LOCAL.id, "/run/netns/c1", "eth0")}


def view(
    *endpoints: Endpoint,
    of: Network = NET,
    hosts: tuple[Host, ...] = (HERE, THERE),
    attachments: dict[str, Attachment] | None = None,
) -> HostView:
    return HostView(
        "h0",
        {record.name: record for record in hosts},
        {of.id: of},
        {of.id: {record.id: record for record in endpoints}},
        ATTACHED if attachments is None else attachments,
    )


def test_a_network_without_an_endpoint_here_is_not_here() -> None:
    state = desired(view(REMOTE))

    assert not state.links
    assert not state.sysctls
    assert desired(view(REMOTE), NET.id) == HostState()


def test_an_unknown_network_is_an_empty_part() -> None:
    assert desired(view(LOCAL), "ffffffffffff") == HostState()


def test_a_host_without_a_record_raises_instead_of_tearing_everything_down() -> None:
    with pytest.raises(NotFound, match="h0 has no record"):
        desired(view(LOCAL, hosts=(THERE,)))


def test_an_overlay_has_a_bridge_a_tunnel_and_the_interfaces_of_its_local_endpoints() -> None:
    state = desired(view(LOCAL, REMOTE))

    assert state.links == {
        BRIDGE: Bridge(BRIDGE, packed_mac(NET.gateway_mac), 1450, ipv6=True),
        TUNNEL: Vxlan(TUNNEL, 5001, HERE.underlay.packed, 1450, BRIDGE),
        VETH: Veth(VETH, 1450, BRIDGE),
    }
    assert max(map(len, state.links)) <= 15


def test_a_remote_endpoint_takes_a_tunnel_entry_a_port_entry_and_neighbours() -> None:
    state = desired(view(LOCAL, REMOTE))
    mac = packed_mac(REMOTE.mac)

    assert state.vteps == {VtepEntry(TUNNEL, mac, THERE.underlay.packed)}
    assert PortEntry(TUNNEL, mac) in state.ports
    addresses = [*(address.packed for address in REMOTE.addresses), link_local(mac)]
    assert {Neighbour(BRIDGE, address, mac) for address in addresses} <= state.neighbours
    assert len(state.neighbours) == 6


def test_a_local_endpoint_has_a_port_entry_only_while_it_is_attached() -> None:
    assert desired(view(LOCAL)).ports == {PortEntry(VETH, packed_mac(LOCAL.mac))}

    unattached = desired(view(LOCAL, attachments={}))

    assert not unattached.ports
    assert VETH not in unattached.links
    assert len(unattached.neighbours) == 3


def test_the_workloads_half_gets_its_addresses_and_its_gateways() -> None:
    side = desired(view(LOCAL)).containers[VETH]

    assert (side.netns, side.interface, side.mac) == ("/run/netns/c1", "eth0", packed_mac(LOCAL.mac))
    assert side.addresses == (
        (ip_address("10.1.0.10").packed, 24),
        (ip_address("fd00:1::a").packed, 64),
    )
    assert side.gateways == (ip_address("10.1.0.1").packed, ip_address("fd00:1::1").packed)


def test_an_interface_whose_namespace_is_not_known_is_kept_but_not_configured() -> None:
    state = desired(view(LOCAL, attachments={LOCAL.id: Attachment(LOCAL.id, "", "")}))

    assert VETH in state.links
    assert not state.containers


def test_the_gateway_has_a_route_of_its_own_per_subnet() -> None:
    second = Subnet(ip_network("10.44.0.0/16"), ip_address("10.44.0.1"))
    no_gateway = Subnet(ip_network("10.45.0.0/16"))
    net = replace(NET, subnets=(*NET.subnets, second, no_gateway))

    state = desired(view(LOCAL, of=net))

    gateways = [ip_address(text).packed for text in ("10.1.0.1", "fd00:1::1", "10.44.0.1")]
    blocks = [ip_address(text).packed for text in ("10.1.0.0", "fd00:1::", "10.44.0.0")]
    lengths = [24, 64, 16]
    assert state.addresses == {InterfaceAddress(BRIDGE, a, n) for a, n in zip(gateways, lengths, strict=True)}
    assert state.routes == {
        Route(block, length, BRIDGE, source=gateway)
        for block, length, gateway in zip(blocks, lengths, gateways, strict=True)
    }


def test_an_internal_network_has_no_way_out() -> None:
    state = desired(view(LOCAL, REMOTE, of=replace(NET, internal=True)))

    assert not state.addresses
    assert not state.routes
    assert state.containers[VETH].gateways == ()
    assert FORWARD_IPV4 not in state.sysctls
    assert state.firewall is not None
    assert state.firewall.internal == {BRIDGE} == state.firewall.bridges
    assert not state.firewall.subnets4 | state.firewall.subnets6


def test_a_network_without_ipv6_has_none_on_its_bridge_and_no_such_neighbours() -> None:
    net = network(1, ipv6=False)
    state = desired(view(endpoint(net, 0, "h0"), endpoint(net, 1, "h1"), of=net))

    assert state.links[BRIDGE] == Bridge(BRIDGE, packed_mac(net.gateway_mac), 1450, ipv6=False)
    assert {len(neighbour.address) for neighbour in state.neighbours} == {4}
    assert state.sysctls[f"net/ipv6/conf/{BRIDGE}/disable_ipv6"] == "1"
    assert FORWARD_IPV6 not in state.sysctls


def test_the_settings_of_a_dual_stack_network() -> None:
    assert desired(view(LOCAL)).sysctls == {
        FORWARD_IPV4: "1",
        FORWARD_IPV6: "1",
        f"net/ipv4/conf/{BRIDGE}/route_localnet": "0",
        f"net/ipv6/conf/{BRIDGE}/disable_ipv6": "0",
        f"net/ipv6/conf/{BRIDGE}/accept_ra": "0",
        f"net/ipv6/conf/{BRIDGE}/autoconf": "0",
        f"net/ipv6/conf/{TUNNEL}/disable_ipv6": "1",
        f"net/ipv6/conf/{VETH}/disable_ipv6": "1",
    }


def test_a_bridge_network_has_neither_tunnel_nor_remote_entries() -> None:
    net = network(1, driver=Driver.BRIDGE)
    state = desired(view(endpoint(net, 0, "h0"), endpoint(net, 1, "h1"), of=net))

    assert not state.vteps
    assert {type(link) for link in state.links.values()} == {Bridge, Veth}
    assert len(state.ports) == 1
    assert state.links[BRIDGE].mtu == 1500
    assert state.firewall is not None
    assert not state.firewall.vxlans
    assert not state.firewall.gateway_macs


def test_flooding_is_programmed_only_where_the_network_asks_for_it() -> None:
    flood = {VtepEntry(TUNNEL, FLOOD_MAC, THERE.underlay.packed)}

    assert not desired(view(LOCAL, REMOTE)).vteps & flood
    assert flood < desired(view(LOCAL, REMOTE, of=replace(NET, flood=True))).vteps


@pytest.mark.parametrize(
    ("mtus", "ipv6_underlay", "wanted"),
    [
        ((1500, 1500), False, 1450),
        ((9000, 1500), False, 1450),
        ((9000, 9000), False, 8950),
        ((1500, 1500), True, 1430),
        ((1500, 1300), False, 1280),  # 1250 would switch IPv6 off on the device
    ],
)
def test_the_mtu_fits_through_every_tunnel(mtus: tuple[int, int], ipv6_underlay: bool, wanted: int) -> None:
    hosts = tuple(host(i, mtu=mtu, ipv6_underlay=ipv6_underlay) for i, mtu in enumerate(mtus))
    uninvolved = host(2, mtu=1000, ipv6_underlay=ipv6_underlay)

    state = desired(view(LOCAL, REMOTE, hosts=(*hosts, uninvolved)))

    assert {link.mtu for link in state.links.values()} == {wanted}
    assert state.containers[VETH].mtu == wanted


def test_a_given_mtu_counts() -> None:
    assert desired(view(LOCAL, of=replace(NET, mtu=1300))).links[BRIDGE].mtu == 1300


def test_a_peer_that_has_not_registered_is_left_out_and_reported() -> None:
    seen = view(LOCAL, REMOTE, hosts=(HERE,))

    assert not desired(seen).vteps
    assert [(finding.network, finding.code) for finding in findings(seen)] == [(NET.id, "peer-unknown")]
    assert "h1" in findings(seen)[0].detail


def test_a_peer_of_the_other_underlay_family_is_left_out_and_reported() -> None:
    seen = view(LOCAL, REMOTE, hosts=(HERE, host(1, ipv6_underlay=True)))

    assert not desired(seen).vteps
    assert [finding.code for finding in findings(seen, NET.id)] == ["peer-unreachable"]


def test_nothing_is_reported_of_a_healthy_or_absent_network() -> None:
    assert findings(view(LOCAL, REMOTE)) == []
    assert findings(view(REMOTE, hosts=(HERE,))) == []
    assert findings(view(LOCAL), "ffffffffffff") == []


def test_an_overlay_without_a_vni_cannot_be_built_and_is_reported() -> None:
    seen = view(LOCAL, of=replace(NET, vni=None))

    assert not desired(seen).links
    assert [finding.code for finding in findings(seen)] == ["vni-missing"]


@pytest.mark.parametrize("shared", ["mac", "address"])
def test_of_two_endpoints_with_one_mac_or_address_the_newer_has_it(shared: str) -> None:
    newer = replace(endpoint(NET, 2, "h1"), created_at=9.0)
    newer = replace(newer, mac=LOCAL.mac) if shared == "mac" else replace(newer, addresses=LOCAL.addresses)
    seen = view(LOCAL, newer)

    state = desired(seen)

    assert state.ports == {PortEntry(TUNNEL, packed_mac(newer.mac))}
    assert [(finding.code, LOCAL.id in finding.detail) for finding in findings(seen)] == [("shared-address", True)]


def test_a_memo_changes_nothing_but_the_time_it_takes() -> None:
    memo = Memo()
    moved = replace(REMOTE, host="h0")
    renewed = replace(REMOTE, mac="02:aa:aa:aa:aa:aa")
    elsewhere = (HERE, replace(THERE, underlay=ip_address("192.168.7.99")))
    for seen in (
        view(LOCAL, REMOTE),
        view(LOCAL, moved, attachments={**ATTACHED, moved.id: Attachment(moved.id, "/run/netns/c2", "eth0")}),
        view(LOCAL, REMOTE),
        view(LOCAL, REMOTE, hosts=elsewhere),
        view(LOCAL, renewed),
        view(LOCAL, of=network(1, ipv6=False)),
        view(LOCAL),
        view(REMOTE),
    ):
        assert desired(seen, memo=memo) == desired(seen)
        assert desired(seen, NET.id, memo) == desired(seen, NET.id)
    assert not memo.networks


def test_a_memo_keeps_nothing_of_endpoints_that_are_gone() -> None:
    memo = Memo()
    desired(view(LOCAL, REMOTE), memo=memo)
    desired(view(LOCAL), memo=memo)

    assert set(memo.networks[BRIDGE].known) == {LOCAL.id}


def test_names_tell_whose_a_device_is() -> None:
    assert network_of_device(BRIDGE) == network_of_device(TUNNEL) == NET.id
    assert network_of_device(VETH) is None
    assert network_of_device("kvb0") is None
    assert veth_name("a") != veth_name("b")
    assert len(veth_name("x" * 64)) == 15
