"""What a routed network is on a host: a block behind a bridge, and ways to the blocks of the others."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from datapath.conditions import findings
from datapath.desired import desired
from datapath.names import bridge_of, host_mac, veth_name, vxlan_name
from datapath.objects import Bridge, HostState, InterfaceAddress, Neighbour, Route, Veth, VtepEntry, Vxlan
from datapath.packing import link_local, packed_mac
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from datapath.view import Attachment, HostView
from kvnet.model import BlockState, CrossSegment, Driver, Endpoint, Host, Network
from tests.unit.datapath.clusters import host, network
from tests.unit.datapath.views import HERE, THERE, block, packed, placed, range_of, single, view_of

NET = network(1, driver=Driver.ROUTED, ipv6=False)
DUAL = network(1, driver=Driver.ROUTED)
BRIDGE, TUNNEL = bridge_of(NET), vxlan_name(NET.id)
LOCAL = placed(NET, 0, "h0")  # 10.1.0.10
VETH = veth_name(LOCAL.id)
OURS, THEIRS = block(NET, "10.1.0.0/26", "h0"), block(NET, "10.1.0.64/26", "h1")
NEAR = replace(HERE, segment=ip_network("192.168.7.0/24"))
FAR = Host("h1", ip_address("192.168.8.2"), 1500, segment=ip_network("192.168.8.0/24"))
TUNNELLED = replace(NET, cross_segment=CrossSegment.TUNNEL, vni=77)


def far_view(of: Network = TUNNELLED) -> HostView:
    return view_of([of], [LOCAL], blocks=[OURS, THEIRS], hosts=[NEAR, FAR])


def test_the_own_block_is_behind_the_bridge_and_the_others_behind_their_hosts() -> None:
    state = desired(view_of([NET], [LOCAL], blocks=[OURS, THEIRS]))

    assert state.links == {
        BRIDGE: Bridge(BRIDGE, packed_mac(NET.gateway_mac), 1500, ipv6=False),
        VETH: Veth(VETH, 1500, BRIDGE),
    }
    assert state.addresses == {InterfaceAddress(BRIDGE, packed("10.1.0.1"), 26)}
    assert state.routes == {
        Route(packed("10.1.0.0"), 26, BRIDGE, source=packed("10.1.0.1")),
        Route(packed("10.1.0.64"), 26, "", gateway=THERE.underlay.packed),
    }
    assert not state.vteps


def test_a_workload_has_its_block_on_the_link_and_the_network_behind_the_gateway() -> None:
    side = desired(view_of([NET], [LOCAL], blocks=[OURS, THEIRS])).containers[VETH]

    assert side.addresses == ((packed("10.1.0.10"), 26),)
    assert side.gateways == (packed("10.1.0.1"),)
    assert side.routes == ((*range_of("10.1.0.0/24"), packed("10.1.0.1")),)


def test_a_block_as_large_as_its_subnet_needs_no_way_to_itself() -> None:
    side = desired(view_of([NET], [LOCAL], blocks=[block(NET, "10.1.0.0/24", "h0")])).containers[VETH]

    assert side.addresses == ((packed("10.1.0.10"), 24),)
    assert side.routes == ()


def test_an_internal_one_reaches_all_of_itself_and_nothing_else() -> None:
    inside = replace(NET, internal=True)
    state = desired(view_of([inside], [LOCAL], blocks=[OURS, THEIRS]))

    assert state.containers[VETH].gateways == ()
    assert state.containers[VETH].routes == ((*range_of("10.1.0.0/24"), packed("10.1.0.1")),)
    assert len(state.routes) == 2
    assert state.sysctls[FORWARD_IPV4] == "1"  # blocks are routed, whatever may leave the network
    assert state.is_forwarding
    assert state.firewall is not None
    assert state.firewall.internal == {BRIDGE}
    assert not state.firewall.subnets4


def test_endpoints_on_other_hosts_take_no_entries() -> None:
    alone = desired(view_of([NET], [LOCAL], blocks=[OURS, THEIRS]))
    among = [placed(NET, number, "h1") for number in range(60, 80)]

    assert desired(view_of([NET], [LOCAL, *among], blocks=[OURS, THEIRS])) == alone


def test_an_endpoint_whose_block_is_not_known_keeps_its_interface_and_gets_none_new() -> None:
    view = view_of([NET], [LOCAL], blocks=[THEIRS])
    state = desired(view)

    assert VETH in state.links
    assert VETH not in state.containers
    assert [finding.code for finding in findings(view)] == ["block-missing"]
    assert LOCAL.id in findings(view)[0].detail


def test_an_own_block_is_routed_also_before_its_first_interface() -> None:
    state = desired(view_of([NET], [LOCAL], blocks=[OURS], attachments={}))

    assert Route(packed("10.1.0.0"), 26, BRIDGE, source=packed("10.1.0.1")) in state.routes


def test_a_host_behind_a_router_is_left_out_and_said_to_be() -> None:
    view = far_view(NET)

    assert {route.gateway for route in desired(view).routes} == {b""}
    (finding,) = findings(view)
    assert finding.code == "peer-not-adjacent"
    for part in ("h1", "192.168.7.0/24", "192.168.8.0/24", "10.1.0.64/26", "cross_segment tunnel"):
        assert part in finding.detail


def test_a_host_of_an_unknown_segment_is_taken_for_adjacent() -> None:
    view = view_of([NET], [LOCAL], blocks=[OURS, THEIRS], hosts=[HERE, replace(FAR, segment=None)])

    assert findings(view) == []
    assert FAR.underlay.packed in {route.gateway for route in desired(view).routes}


def test_a_host_behind_a_router_is_reached_through_a_tunnel_where_the_network_allows_it() -> None:
    view = far_view()
    state = desired(view)
    mac = host_mac(NET.id, "h1")

    assert findings(view) == []
    assert state.links[TUNNEL] == Vxlan(TUNNEL, 77, NEAR.underlay.packed, 1450, bridge="", mac=host_mac(NET.id, "h0"))
    assert Neighbour(TUNNEL, FAR.underlay.packed, mac) in state.neighbours
    assert state.vteps == {VtepEntry(TUNNEL, mac, FAR.underlay.packed)}
    assert Route(*range_of("10.1.0.64/26"), TUNNEL, packed("10.1.0.1"), FAR.underlay.packed, True) in state.routes
    assert InterfaceAddress(TUNNEL, packed("10.1.0.1"), 32) in state.addresses
    assert {link.mtu for link in state.links.values()} == {1450}
    assert state.containers[VETH].mtu == 1450
    assert state.sysctls[f"net/ipv6/conf/{TUNNEL}/disable_ipv6"] == "1"
    assert state.firewall is not None
    assert not state.firewall.vxlans | state.firewall.gateway_macs


def test_both_ends_of_a_tunnel_agree_on_each_others_macs() -> None:
    there = desired(view_of([TUNNELLED], [], blocks=[OURS, THEIRS], hosts=[NEAR, FAR], host="h1"))
    assert there.links == {}  # no endpoint, so the network is not there

    visitor = placed(TUNNELLED, 60, "h1")
    there = desired(view_of([TUNNELLED], [visitor], blocks=[OURS, THEIRS], hosts=[NEAR, FAR], host="h1"))
    tunnel = there.links[TUNNEL]
    assert isinstance(tunnel, Vxlan)
    assert tunnel.mac in {entry.mac for entry in desired(far_view()).vteps}


def test_ipv6_blocks_over_an_ipv4_underlay_take_the_tunnel_even_to_a_neighbour() -> None:
    local = placed(DUAL, 0, "h0")
    blocks = [block(DUAL, text, on) for text, on in (("fd00:1::/122", "h0"), ("fd00:1::40/122", "h1"))]
    blocks += [replace(OURS, network=DUAL.id), replace(THEIRS, network=DUAL.id)]
    refused = view_of([DUAL], [local], blocks=blocks)
    allowed = view_of([replace(DUAL, cross_segment=CrossSegment.TUNNEL, vni=77)], [local], blocks=blocks)

    (finding,) = findings(refused)
    assert finding.code == "family-unreachable"
    assert "fd00:1::40/122" in finding.detail
    assert finding.detail.endswith("create the network with cross_segment=tunnel: a tunnel carries both families")
    assert findings(allowed) == []
    state, hop = desired(allowed), link_local(host_mac(DUAL.id, "h1"))
    assert Route(*range_of("fd00:1::40/122"), TUNNEL, packed("fd00:1::1"), hop, True) in state.routes
    assert Route(*range_of("10.1.0.64/26"), "", gateway=THERE.underlay.packed) in state.routes
    assert Neighbour(TUNNEL, hop, host_mac(DUAL.id, "h1")) in state.neighbours
    assert state.sysctls[f"net/ipv6/conf/{TUNNEL}/disable_ipv6"] == "0"
    assert state.sysctls[f"net/ipv6/conf/{TUNNEL}/accept_ra"] == "0"
    assert state.sysctls[FORWARD_IPV6] == "1"


def test_ipv4_blocks_cross_an_ipv6_underlay_in_a_tunnel() -> None:
    hosts = [host(number, ipv6_underlay=True) for number in range(2)]
    state = desired(view_of([TUNNELLED], [LOCAL], blocks=[OURS, THEIRS], hosts=hosts))

    assert Route(*range_of("10.1.0.64/26"), TUNNEL, packed("10.1.0.1"), packed("10.1.0.65"), True) in state.routes
    assert state.links[TUNNEL].mtu == 1430


def test_hosts_of_different_underlay_families_cannot_meet() -> None:
    view = view_of([TUNNELLED], [LOCAL], blocks=[OURS, THEIRS], hosts=[HERE, host(1, ipv6_underlay=True)])

    assert [finding.code for finding in findings(view)] == ["peer-unreachable"]
    assert TUNNEL not in desired(view).links


def test_a_block_of_a_host_that_has_not_registered_is_left_out_and_reported() -> None:
    view = view_of([NET], [LOCAL], blocks=[OURS, THEIRS], hosts=[HERE])

    assert [finding.code for finding in findings(view)] == ["peer-unknown"]
    assert len(desired(view).routes) == 1


@pytest.mark.parametrize(("mtus", "wanted"), [((1500, 1500), 1500), ((9000, 1400), 1400), ((1500, 9000), 1500)])
def test_the_mtu_is_the_smallest_of_the_hosts_with_blocks(mtus: tuple[int, int], wanted: int) -> None:
    hosts = [*(host(number, mtu=mtu) for number, mtu in enumerate(mtus)), host(2, mtu=600)]

    assert desired(view_of([NET], [LOCAL], blocks=[OURS, THEIRS], hosts=hosts)).links[BRIDGE].mtu == wanted


def test_the_firewall_knows_who_is_behind_other_hosts() -> None:
    firewall = desired(view_of([NET], [LOCAL], blocks=[OURS, THEIRS])).firewall

    assert firewall is not None
    assert firewall.bridges == {BRIDGE}
    assert firewall.within == {(BRIDGE, range_of("10.1.0.64/26")), (BRIDGE, single(THERE.underlay))}
    assert firewall.blocks == firewall.subnets4 == {range_of("10.1.0.0/24")}


def test_what_no_route_of_ours_leads_to_is_not_let_out_by_another() -> None:
    refused = desired(far_view(NET)).firewall
    tunnelled = desired(far_view()).firewall

    assert refused is not None
    assert tunnelled is not None
    assert refused.within == {(BRIDGE, single(FAR.underlay))}
    assert tunnelled.within == {(BRIDGE, range_of("10.1.0.64/26")), (BRIDGE, single(FAR.underlay))}
    assert refused.blocks == {range_of("10.1.0.0/24")}


def test_without_icc_only_the_other_hosts_themselves_may_come() -> None:
    apart = replace(NET, icc=False)
    firewall = desired(view_of([apart], [LOCAL], blocks=[OURS, THEIRS])).firewall

    assert firewall is not None
    assert firewall.isolated == {BRIDGE}
    assert firewall.within == {(BRIDGE, single(THERE.underlay)), (BRIDGE, single(THEIRS.gateway))}


def test_a_routed_network_that_is_here_for_its_peers_only_consists_of_routes() -> None:
    overlay = replace(network(2, ipv6=False), peers=(NET.id,))
    mine = replace(NET, peers=(overlay.id,))
    view = view_of([overlay, mine], [placed(overlay, 0, "h0"), placed(mine, 60, "h1")], blocks=[THEIRS])
    state = desired(view)

    assert desired(view, NET.id) == HostState(
        routes=frozenset({Route(packed("10.1.0.64"), 26, "", gateway=THERE.underlay.packed)})
    )
    assert state.firewall is not None
    assert not state.firewall.pairs
    assert state.firewall.within == {(bridge_of(overlay), range_of("10.1.0.64/26"))}


def test_a_workload_of_a_routed_network_meets_its_peers_behind_other_hosts() -> None:
    overlay = replace(network(2, ipv6=False), peers=(NET.id,))
    mine = replace(NET, peers=(overlay.id,))
    view = view_of([overlay, mine], [placed(overlay, 0, "h1"), LOCAL], blocks=[OURS])
    firewall = desired(view).firewall

    assert firewall is not None
    assert (bridge_of(mine), bridge_of(overlay)) in firewall.pairs
    assert (BRIDGE, range_of("10.2.0.0/24")) in firewall.within


def test_releasing_blocks_are_routed_until_they_are_gone() -> None:
    kinds = [view_of([NET], [LOCAL], blocks=[OURS, replace(THEIRS, state=state)]) for state in BlockState]

    assert desired(kinds[0]) == desired(kinds[1])


def test_an_address_of_a_peers_block_is_never_local() -> None:
    stray: Endpoint = replace(LOCAL, addresses=(ip_address("10.1.0.70"),))
    view = view_of([NET], [stray], blocks=[OURS, THEIRS], attachments={LOCAL.id: Attachment(LOCAL.id, "/x", "eth0")})

    assert not desired(view).containers
    assert [finding.code for finding in findings(view)] == ["block-missing"]
