"""Networks with features: what was said, by a field or by Docker's option, is what stands in the store."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.store import Store
from controller.cluster import Cluster
from controller.docker_options import FIELDS, fields_of
from controller.requests import Features, NetworkRequest, SubnetRequest
from kvnet import keys
from kvnet.errors import BridgeTaken, Invalid, KvnetError
from kvnet.model import CrossSegment, Driver, Network, UplinkMode
from tests.unit.controller.kit import ME

DOCKER = "com.docker.network."
PHYSICAL = (SubnetRequest("192.168.7.0/24", "192.168.7.1", "192.168.7.128/26"),)


async def made(cluster: Cluster, request: NetworkRequest) -> Network:
    return (await cluster.networks.create(request, ME)).value


async def test_dockers_options_set_the_fields_and_stay_what_they_are(cluster: Cluster) -> None:
    options = {
        DOCKER + "bridge.name": "br-app",
        DOCKER + "bridge.enable_icc": "0",
        DOCKER + "bridge.enable_ip_masquerade": "false",
        DOCKER + "bridge.host_binding_ipv4": "127.0.0.1",
        DOCKER + "driver.mtu": "1400",
        DOCKER + "container_iface_prefix": "web",
        "mine": "kept",
    }
    net = await made(cluster, NetworkRequest("n", "bridge", options=options))

    assert (net.bridge_name, net.icc, net.masquerade, net.mtu) == ("br-app", False, False, 1400)
    assert (net.host_binding, net.interface_prefix) == (ip_address("127.0.0.1"), "web")
    assert dict(net.options) == options


async def test_an_option_and_its_field_may_say_the_same(cluster: Cluster) -> None:
    request = NetworkRequest("n", mtu=1400, options={DOCKER + "driver.mtu": "1400"}, features=Features(icc=False))
    net = await made(cluster, request)
    assert (net.mtu, net.icc) == (1400, False)


async def test_a_repeated_request_with_features_is_the_same_network(cluster: Cluster) -> None:
    for driver, features, subnets in (
        ("routed", Features(cross_segment="tunnel"), ()),
        ("overlay", Features(icc=False, bridge_name="br-x"), ()),
        ("transparent", Features(uplink="eth1", shim=True), PHYSICAL),
    ):
        request = NetworkRequest(driver, driver, subnets, id=f"{len(driver):012x}", features=features)
        first = await cluster.networks.create(request, ME)
        assert await cluster.networks.create(request, ME) == first


async def test_a_routed_network_has_its_block_sizes_and_no_gateway_of_its_own(cluster: Cluster) -> None:
    assert len((await made(cluster, NetworkRequest("v4", "routed"))).subnets) == 1
    net = await made(cluster, NetworkRequest("n", "routed", ipv6=True))
    assert net.vni is None
    assert [s.gateway for s in net.subnets] == [None, None]
    assert (net.block_prefix_length, net.block_prefix_length6) == (26, 122)
    assert net.subnets[0].cidr.prefixlen == 20, "it has to be enough for many hosts"


async def test_only_a_tunnelled_routed_network_has_a_vni(cluster: Cluster) -> None:
    net = await made(cluster, NetworkRequest("n", "routed", features=Features(cross_segment="tunnel")))
    assert net.vni is not None
    assert net.cross_segment is CrossSegment.TUNNEL


async def test_a_transparent_network_keeps_the_physical_gateway(cluster: Cluster) -> None:
    net = await made(cluster, NetworkRequest("n", "transparent", PHYSICAL, features=Features(uplink="eth1")))
    [subnet] = net.subnets
    assert (subnet.gateway, subnet.range) == (ip_address("192.168.7.1"), ip_network("192.168.7.128/26"))
    assert net.uplink_mode is UplinkMode.MACVLAN


async def test_macvlan_networks_are_asked_for_with_dockers_parent(cluster: Cluster) -> None:
    options = {"parent": "eth1", "macvlan_mode": "bridge"}
    net = await made(cluster, NetworkRequest("n", "transparent", PHYSICAL, options=options))
    assert (net.uplink, net.uplink_mode) == ("eth1", UplinkMode.MACVLAN)


async def test_of_two_who_want_one_bridge_name_one_gets_it(cluster: Cluster, store: Store) -> None:
    requests = [NetworkRequest(f"n{i}", features=Features(bridge_name="br-app")) for i in range(4)]
    outcomes = await asyncio.gather(*(cluster.networks.create(r, ME) for r in requests), return_exceptions=True)

    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(won) == 1
    assert all(isinstance(outcome, BridgeTaken) for outcome in outcomes if isinstance(outcome, KvnetError))
    await cluster.networks.delete(won[0].value.id, ME)
    assert await store.get(keys.bridge("br-app")) is None


async def test_an_uplink_is_in_the_bridge_of_one_network(cluster: Cluster) -> None:
    features = Features(uplink="eth1", uplink_mode="bridge")
    await made(cluster, NetworkRequest("a", "transparent", PHYSICAL, features=features))
    other = (SubnetRequest("192.168.8.0/24"),)
    with pytest.raises(BridgeTaken, match="eth1 is used by network a"):
        await cluster.networks.create(NetworkRequest("b", "transparent", other, features=features), ME)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=20)))
def test_an_option_is_understood_or_refused_at_its_place(options: dict[str, str]) -> None:
    try:
        found, pointers = fields_of(options, Driver.OVERLAY), []
    except Invalid as refusal:
        found, pointers = {}, [error.pointer for error in refusal.errors]
    assert len(found) == len(options) or all(pointer.startswith("/options/") for pointer in pointers)
    assert found or pointers or not options
