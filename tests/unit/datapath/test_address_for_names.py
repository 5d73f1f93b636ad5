"""The host's address for names: there as long as anybody here may ask, reached from every network of the host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from datapath.desired import desired, host_state, merge
from datapath.fabric import Path
from datapath.names import DNS_BRIDGE
from datapath.objects import Bridge, Foreign, HostState, InterfaceAddress, Route
from datapath.plan import plan
from kvnet.model import Driver, Network, UplinkMode
from tests.unit.datapath.clusters import World, endpoint, host, namespace_of, network

DNS = ip_address("169.254.53.53").packed
PORT = 53
INTERNAL = [
    network(1, internal=True),
    network(2, internal=True, driver=Driver.BRIDGE),
    network(3, internal=True, driver=Driver.ROUTED),
]


def world(*networks: Network, dns: bytes = DNS) -> World:
    made = World(dns=dns)
    for number in range(2):
        made.add_host(host(number))
    for net in networks:
        made.add_network(net)
        for number, on in enumerate(("h0", "h0", "h1")):
            made.add(endpoint(net, number, on))
    made.settle()
    return made


def arrives(made: World, net: Network, *, port: int = PORT, to: bytes = DNS) -> str:
    record = endpoint(net, 0, "h0")
    outcome = made.fabric.reaches("h0", namespace_of(record), to, port=port, protocol=17)
    return outcome.at if isinstance(outcome, Path) else ""


def test_it_comes_with_the_first_endpoint_and_goes_with_the_last() -> None:
    made = world()
    net = network(1, driver=Driver.BRIDGE)
    made.add_network(net)
    made.settle()
    assert DNS_BRIDGE not in made.kernels["h0"].tables.links
    only = endpoint(net, 0, "h0")
    made.add(only)
    made.settle()
    assert InterfaceAddress(DNS_BRIDGE, DNS, 32) in made.kernels["h0"].tables.addresses
    assert DNS_BRIDGE not in made.kernels["h1"].tables.links
    made.remove(only)
    made.settle()
    assert made.kernels["h0"].tables.links == {}
    assert made.kernels["h0"].tables.addresses == []


def test_docker_s_containers_have_it_without_any_network() -> None:
    view = world().view("h0")
    assert host_state(view).links == {}
    assert DNS_BRIDGE in host_state(replace(view, serves_docker=True)).links


def test_switched_off_nothing_of_it_is_anywhere() -> None:
    nets = [network(1), *INTERNAL[1:]]
    for name in ("h0", "h1"):
        without = world(*nets, dns=b"").desired(name)
        assert DNS_BRIDGE not in without.links
        assert without.firewall is not None
        assert not without.firewall.dns
        assert not any(DNS in route[:1] for side in without.containers.values() for route in side.routes)
        served = replace(world(*nets, dns=b"").view(name), serves_docker=True)
        assert desired(served) == without


def test_it_belongs_to_the_host_and_to_no_network() -> None:
    made = world(network(1), network(2))
    view = made.view("h0")
    parts = [desired(view, id_) for id_ in view.networks]
    assert not any(DNS_BRIDGE in part.links for part in parts)
    assert merge([*parts, host_state(view)]) == desired(view)


@pytest.mark.parametrize("net", [network(1), network(2, driver=Driver.BRIDGE), network(4, icc=False), *INTERNAL])
def test_every_network_that_the_host_is_on_reaches_it(net: Network) -> None:
    assert arrives(world(net), net) == "h0"


@pytest.mark.parametrize("net", INTERNAL)
def test_an_internal_network_reaches_nothing_else_by_it(net: Network) -> None:
    made = world(net)
    assert arrives(made, net, port=80) == ""
    assert arrives(made, net, to=made.hosts["h0"].underlay.packed) == ""
    assert arrives(world(net, dns=b""), net) == ""


def test_only_where_the_host_is_on_the_physical_network_too() -> None:
    options = {"driver": Driver.TRANSPARENT, "ipv6": False}
    shim = network(1, uplink="lan0", shim=True, **options)
    bare = network(2, uplink="lan1", **options)
    joined = network(3, uplink="lan2", uplink_mode=UplinkMode.BRIDGE, **options)
    made = world(shim, bare, joined)
    assert arrives(made, shim) == "h0"
    assert arrives(made, bare) != "h0"
    assert arrives(made, joined) != "h0"


def test_the_way_there_is_one_where_no_default_route_leads_to_the_host() -> None:
    made = world(network(1), INTERNAL[1], network(5, uplink="lan0", shim=True, driver=Driver.TRANSPARENT))
    ways = {
        side.netns: [route for route in side.routes if route[0] == DNS]
        for side in made.desired("h0").containers.values()
    }
    assert ways["/run/netns/net1-e0"] == []
    assert ways["/run/netns/net2-e0"] == [(DNS, 32, b"")]
    # Through the shim, not on the link: every host on that wire would answer for the same address.
    assert ways["/run/netns/net5-e0"] == [(DNS, 32, made.hosts["h0"].underlay.packed)]


def test_a_network_of_ipv6_alone_gets_no_way_to_an_ipv4_address() -> None:
    six = network(1, internal=True)
    six = replace(six, subnets=six.subnets[1:])
    made = world(six)
    assert all(route[0] != DNS for side in made.desired("h0").containers.values() for route in side.routes)
    assert not any(len(route.destination) == 4 for route in made.desired("h0").routes)


def test_the_way_back_to_an_internal_network_has_no_address_to_answer_to() -> None:
    net = INTERNAL[0]
    block = net.subnets[0].cidr
    wanted = Route(block.network_address.packed, block.prefixlen, f"kvb{net.id}")
    assert wanted in world(net).desired("h0").routes
    assert wanted not in world(net, dns=b"").desired("h0").routes


def test_a_foreign_link_of_that_name_costs_only_the_names() -> None:
    made = World(dns=DNS)
    made.add_host(host(0))
    net = network(1, driver=Driver.BRIDGE)
    made.add_network(net)
    made.add(endpoint(net, 0, "h0"))
    made.kernels["h0"].add_foreign(Foreign(DNS_BRIDGE, "dummy"))
    planned = plan(made.desired("h0"), made.state("h0"))
    assert [(c.network, c.device, c.code) for c in planned.conflicts] == [("", DNS_BRIDGE, "foreign-object")]
    assert made.kernels["h0"].execute(planned.operations) == []
    tables = made.kernels["h0"].tables
    assert DNS_BRIDGE not in tables.links
    assert f"kvb{net.id}" in tables.links
    assert all(address.device != DNS_BRIDGE for address in tables.addresses)


def test_what_is_damaged_of_it_is_mended() -> None:
    made = world(network(1))
    kernel = made.kernels["h0"]
    before = made.state("h0")
    link = kernel.tables.links[DNS_BRIDGE]
    assert isinstance(link, Bridge)
    kernel.meddle(*plan(HostState(), HostState(links={DNS_BRIDGE: link})).operations)
    assert DNS_BRIDGE not in kernel.tables.links
    made.settle()
    assert made.state("h0") == before
