"""What a network's and an endpoint's options mean on a host, for networks with a bridge."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from datapath.desired import Memo, desired, host_state
from datapath.drivers.parts import PORTS_OF_A_BRIDGE
from datapath.names import bridge_of, veth_name, vxlan_name
from datapath.objects import Bridge, HostState, Publication, Veth, Vxlan
from datapath.presence import is_built
from datapath.sysctls import FORWARD_IPV4
from datapath.view import Attachment, HostView
from kvnet.model import Driver, Endpoint, PublishedPort, Subnet
from tests.unit.datapath.clusters import endpoint, network
from tests.unit.datapath.views import packed, range_of, view_of

OVERLAY, BRIDGE = network(1), network(2, driver=Driver.BRIDGE)
LOCAL, REMOTE = endpoint(OVERLAY, 0, "h0"), endpoint(OVERLAY, 1, "h1")
VETH = veth_name(LOCAL.id)


def publishing(*ports: PublishedPort, of: Endpoint = LOCAL) -> Endpoint:
    return replace(of, ports=ports)


def test_a_bridge_bears_the_name_that_the_network_asks_for_everywhere() -> None:
    named = replace(OVERLAY, bridge_name="br-blue")
    state = desired(view_of([named], [LOCAL, REMOTE]))

    bridge = state.links["br-blue"]
    assert isinstance(bridge, Bridge)
    assert bridge.network == named.id
    assert {link.bridge for link in state.links.values() if isinstance(link, (Veth, Vxlan))} == {"br-blue"}
    assert {entry[0] for entry in (*state.addresses, *state.neighbours)} == {"br-blue"}
    assert {route.device for route in state.routes} == {"br-blue"}
    assert state.firewall is not None
    assert state.firewall.bridges == {"br-blue"}
    assert "net/ipv6/conf/br-blue/disable_ipv6" in state.sysctls


def test_without_icc_every_port_of_the_bridge_is_isolated_the_tunnel_too() -> None:
    apart = replace(OVERLAY, icc=False)
    state = desired(view_of([apart], [LOCAL, REMOTE]))

    ports = [link for link in state.links.values() if isinstance(link, (Veth, Vxlan))]
    assert len(ports) == 2
    assert all(port.isolated for port in ports)
    assert state.firewall is not None
    assert state.firewall.isolated == state.firewall.bridges == {bridge_of(apart)}


def test_without_masquerade_its_subnets_keep_their_addresses_on_the_way_out() -> None:
    firewall = desired(view_of([replace(OVERLAY, masquerade=False)], [LOCAL])).firewall

    assert firewall is not None
    assert not firewall.subnets4 | firewall.subnets6
    assert firewall.blocks == {range_of("10.1.0.0/24"), range_of("fd00:1::/64")}
    assert not firewall.internal


def test_a_workload_reaches_the_networks_other_subnets_on_the_link() -> None:
    second = Subnet(ip_network("10.44.0.0/16"), ip_address("10.44.0.1"))
    wide = replace(OVERLAY, subnets=(*OVERLAY.subnets, second))
    side = desired(view_of([wide], [LOCAL])).containers[VETH]

    assert side.routes == ((*range_of("10.44.0.0/16"), b""),)
    assert side.gateways == (packed("10.1.0.1"), packed("fd00:1::1"))


def test_of_a_workloads_networks_the_higher_priority_is_the_way_out_then_the_first() -> None:
    preferred = replace(LOCAL, gateway_priority=500)
    others = [replace(LOCAL, id=f"e{order}", gateway_priority=priority) for order, priority in ((0, 0), (1, 0))]

    def metric(of: Endpoint, order: int) -> int:
        view = view_of([OVERLAY], [of], attachments={of.id: Attachment(of.id, "/run/netns/c", "eth0", order)})
        return desired(view).containers[veth_name(of.id)].metric

    metrics = [metric(preferred, 63), metric(others[0], 0), metric(others[1], 1)]
    assert metrics == sorted(set(metrics))
    assert metrics[0] > 0
    assert metric(replace(LOCAL, gateway_priority=-500), 63) == 1000 * 64 + 64


def test_only_who_publishes_ports_has_a_port_that_sends_back() -> None:
    silent = endpoint(OVERLAY, 2, "h0")
    state = desired(view_of([OVERLAY], [publishing(PublishedPort(80, host_port=8080)), silent]))

    hairpins = {name: link.hairpin for name, link in state.links.items() if isinstance(link, Veth)}
    assert hairpins == {VETH: True, veth_name(silent.id): False}
    assert state.sysctls[f"net/ipv4/conf/{bridge_of(OVERLAY)}/route_localnet"] == "1"


def test_loopback_is_led_on_only_where_ipv4_is_published() -> None:
    only6 = replace(publishing(PublishedPort(80, host_port=8080)), addresses=LOCAL.addresses[1:])

    assert desired(view_of([OVERLAY], [only6])).sysctls[f"net/ipv4/conf/{bridge_of(OVERLAY)}/route_localnet"] == "0"


@pytest.mark.parametrize(
    ("at", "published"),
    [
        (None, {(b"", "10.1.0.10"), (b"", "fd00:1::a")}),
        ("0.0.0.0", {(b"", "10.1.0.10")}),
        ("::", {(b"", "fd00:1::a")}),
        ("192.0.2.7", {(packed("192.0.2.7"), "10.1.0.10")}),
        ("2001:db8::7", {(packed("2001:db8::7"), "fd00:1::a")}),
    ],
)
def test_a_port_is_published_in_the_families_that_its_address_allows(
    at: str | None, published: set[tuple[bytes, str]]
) -> None:
    address = None if at is None else ip_address(at)
    firewall = desired(view_of([OVERLAY], [publishing(PublishedPort(80, "udp", 8080, address))])).firewall

    assert firewall is not None
    assert firewall.publications == {Publication(17, host, 8080, packed(to), 80) for host, to in published}


def test_only_local_workloads_are_published_and_never_an_internal_networks() -> None:
    port = PublishedPort(80, host_port=8080)
    elsewhere = view_of([OVERLAY], [LOCAL, publishing(port, of=REMOTE)])
    inside = view_of([replace(OVERLAY, internal=True)], [publishing(port)])

    for view in (elsewhere, inside):
        firewall = desired(view).firewall
        assert firewall is not None
        assert not firewall.publications


def test_a_full_bridge_keeps_its_oldest_interfaces() -> None:
    many = [
        replace(endpoint(BRIDGE, 0, "h0", id=f"e{n}", mac=n), addresses=(ip_address("10.2.4.0") + n,), created_at=-n)
        for n in range(PORTS_OF_A_BRIDGE + 2)
    ]
    wide = replace(BRIDGE, subnets=(Subnet(ip_network("10.2.0.0/16"), ip_address("10.2.0.1")),))

    state = desired(view_of([wide], many))

    assert sum(isinstance(link, Veth) for link in state.links.values()) == PORTS_OF_A_BRIDGE
    assert veth_name("e0") not in state.links
    assert veth_name(f"e{PORTS_OF_A_BRIDGE + 1}") in state.links


def test_an_internal_networks_frames_have_to_get_through_the_gates_too() -> None:
    """With br_netfilter on, Docker's FORWARD DROP would cut off workloads on one bridge."""
    state = desired(view_of([replace(OVERLAY, internal=True)], [LOCAL]))

    assert state.is_forwarding
    assert FORWARD_IPV4 not in state.sysctls
    assert not desired(view_of([OVERLAY], [REMOTE])).is_forwarding


# --- peers -----------------------------------------------------------------------------------------------------------

RED, BLUE = replace(network(3), peers=(network(4).id,)), replace(network(4), peers=(network(3).id,))
IN_RED, IN_BLUE = endpoint(RED, 0, "h0"), endpoint(BLUE, 0, "h1")


def test_a_host_also_has_the_networks_that_its_own_are_peered_with() -> None:
    for name in ("h0", "h1"):
        state = desired(view_of([RED, BLUE], [IN_RED, IN_BLUE], host=name))

        assert {bridge_of(RED), bridge_of(BLUE), vxlan_name(RED.id), vxlan_name(BLUE.id)} < state.links.keys()
        assert state.firewall is not None
        assert state.firewall.pairs == {(bridge_of(RED), bridge_of(BLUE)), (bridge_of(BLUE), bridge_of(RED))}
        assert state.firewall.bridges == {bridge_of(RED), bridge_of(BLUE)}


def test_peers_of_peers_are_none_of_this_hosts_business() -> None:
    third = replace(network(5), peers=(BLUE.id,))
    between = replace(BLUE, peers=(RED.id, third.id))
    state = desired(view_of([RED, between, third], [IN_RED, IN_BLUE, endpoint(third, 0, "h1")]))

    assert bridge_of(between) in state.links
    assert bridge_of(third) not in state.links


def test_one_network_that_lists_another_is_not_enough() -> None:
    state = desired(view_of([RED, replace(BLUE, peers=())], [IN_RED, IN_BLUE]))

    assert bridge_of(BLUE) not in state.links
    assert state.firewall is not None
    assert not state.firewall.pairs


def test_a_bridge_network_meets_its_peers_where_both_have_workloads() -> None:
    local_only = replace(BLUE, driver=Driver.BRIDGE, vni=None)
    apart = desired(view_of([RED, local_only], [IN_RED, IN_BLUE]))
    together = desired(view_of([RED, local_only], [IN_RED, replace(IN_BLUE, host="h0")]))

    assert bridge_of(local_only) not in apart.links
    assert together.firewall is not None
    assert (bridge_of(RED), bridge_of(local_only)) in together.firewall.pairs


def test_a_view_may_only_say_that_a_peer_is_carried_here() -> None:
    whole = view_of([RED, BLUE], [IN_RED, IN_BLUE])
    part = HostView(
        "h0", whole.hosts, whole.networks, {BLUE.id: whole.endpoints[BLUE.id]}, whole.attachments, carried={RED.id}
    )

    assert is_built(part, BLUE)
    assert desired(part, BLUE.id) == desired(whole, BLUE.id) != HostState()


def test_the_hosts_own_part_needs_local_endpoints_only() -> None:
    here = [IN_RED, publishing(PublishedPort(80, host_port=8080), of=endpoint(BRIDGE, 0, "h0"))]
    whole = view_of([RED, BLUE, BRIDGE], [*here, IN_BLUE])
    outline = view_of([RED, BLUE, BRIDGE], here, attachments={})

    assert host_state(outline) == host_state(whole)
    assert desired(whole, memo=Memo()).firewall == host_state(outline).firewall
