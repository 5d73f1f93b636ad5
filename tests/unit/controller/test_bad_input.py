"""Bad input: each kind has its own answer that says what would be right, and changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.memory import MemoryStore
from controller.cluster import Cluster
from controller.drafts import draft_of
from controller.parsing import parse_cidr
from controller.requests import EndpointRequest, Features, NetworkRequest, PoolRequest, PortRequest, SubnetRequest
from kvnet.errors import Invalid, KvnetError, NotFound, NotSupported
from tests.unit.controller.kit import ME

pytestmark = pytest.mark.anyio


def subnets(*cidrs: str, **more: object) -> tuple[SubnetRequest, ...]:
    return tuple(SubnetRequest(cidr, **more) for cidr in cidrs)  # type: ignore[arg-type]


BAD_NETWORKS: dict[str, tuple[NetworkRequest, str, str]] = {
    "host bits": (NetworkRequest("n", subnets=subnets("10.1.0.7/24")), "/subnets/0/cidr", "10.1.0.0/24"),
    "/32": (NetworkRequest("n", subnets=subnets("10.1.0.1/32")), "/subnets/0/cidr", "/30"),
    "/31": (NetworkRequest("n", subnets=subnets("10.1.0.0/31")), "/subnets/0/cidr", "/30"),
    "/0": (NetworkRequest("n", subnets=subnets("0.0.0.0/0")), "/subnets/0/cidr", "8 or more"),
    "/127": (NetworkRequest("n", subnets=subnets("fd00::/127")), "/subnets/0/cidr", "/126"),
    "no prefix length": (NetworkRequest("n", subnets=subnets("10.1.0.0")), "/subnets/0/cidr", "10.1.0.0/24"),
    "not a subnet": (NetworkRequest("n", subnets=subnets("a" * 5000 + "/24")), "/subnets/0/cidr", "10.1.0.0/24"),
    "scope id": (NetworkRequest("n", subnets=subnets("fd00::%eth0/64")), "/subnets/0/cidr", "fd00:1::/64"),
    "multicast": (NetworkRequest("n", subnets=subnets("239.0.0.0/24")), "/subnets/0/cidr", "unicast"),
    "overlap in one request": (NetworkRequest("n", subnets=subnets("10.1.0.0/16", "10.1.2.0/24")), "/subnets/1", ""),
    "gateway outside": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", gateway="10.2.0.1")),
        "/subnets/0/gateway",
        "",
    ),
    "gateway is the network": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", gateway="10.1.0.0")),
        "/subnets/0/gateway",
        "",
    ),
    "gateway is the broadcast": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", gateway="10.1.0.255")),
        "/subnets/0/gateway",
        "",
    ),
    "gateway of the other family": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", gateway="fd00::1")),
        "/subnets/0/gateway",
        "",
    ),
    "range outside": (NetworkRequest("n", subnets=subnets("10.1.0.0/24", range="10.2.0.0/25")), "/subnets/0/range", ""),
    "reserved gateway": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", gateway="10.1.0.1", reserved={"a": "10.1.0.1"})),
        "/subnets/0/reserved/a",
        "",
    ),
    "reserved twice": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24", reserved={"a": "10.1.0.9", "b": "10.1.0.9"})),
        "/subnets/0/reserved/b",
        "",
    ),
    "a name with a slash": (NetworkRequest("../etc"), "/name", ""),
    "a name with a newline": (NetworkRequest("n\n"), "/name", ""),
    "a name too long": (NetworkRequest("n" * 64), "/name", "63"),
    "a name that a shell would read": (NetworkRequest("$(reboot)"), "/name", ""),
    "an unknown driver": (NetworkRequest("n", driver="macvlan"), "/driver", "overlay"),
    "an id that is none": (NetworkRequest("n", id="ABC"), "/id", "12"),
    "an MTU too small for IPv6": (NetworkRequest("n", mtu=600), "/mtu", "1280"),
    "a label too long": (NetworkRequest("n", labels={"k": "v" * 2000}), "/labels/k", "1024"),
    "too many labels": (NetworkRequest("n", labels={f"k{i}": "" for i in range(65)}), "/labels", ""),
    "an IPv6 subnet without IPv6": (NetworkRequest("n", subnets=subnets("fd00::/64"), ipv6=False), "/ipv6", ""),
    "a pool beside a subnet": (NetworkRequest("n", subnets=subnets("10.1.0.0/24"), pool="default"), "/pool", ""),
    "a prefix length beside a subnet": (
        NetworkRequest("n", subnets=subnets("10.1.0.0/24"), prefix_length=24),
        "/prefix_length",
        "",
    ),
    "a prefix length that the pool cannot give": (NetworkRequest("n", prefix_length=31), "/prefix_length", "30"),
    "a pool of the other family": (NetworkRequest("n", pool="default6"), "/pool", ""),
}


async def unchanged(store: MemoryStore, before: int) -> bool:
    return (await store.list("")).revision == before


@pytest.mark.parametrize("case", BAD_NETWORKS)
async def test_a_bad_network_is_refused_at_the_field_that_is_wrong(
    cluster: Cluster, store: MemoryStore, case: str
) -> None:
    request, pointer, hint = BAD_NETWORKS[case]
    before = (await store.list("")).revision

    with pytest.raises(Invalid) as refusal:
        await cluster.networks.create(request, ME)

    assert [e.pointer for e in refusal.value.errors] == [pointer]
    assert hint in refusal.value.fix + refusal.value.detail
    assert len(refusal.value.detail) < 300
    assert await unchanged(store, before)


BLOCK = (SubnetRequest("10.1.0.0/24"),)
UNFIT_FEATURES: dict[str, tuple[NetworkRequest, str]] = {
    "transparent without subnets": (NetworkRequest("n", "transparent", features=Features(uplink="eth0")), "/subnets"),
    "transparent without an uplink": (NetworkRequest("n", "transparent", BLOCK), "/uplink"),
    "an uplink without need": (NetworkRequest("n", features=Features(uplink="eth0")), "/uplink"),
    "blocks without routing": (NetworkRequest("n", features=Features(block_prefix_length=26)), "/block_prefix_length"),
    "a block larger than its subnet": (
        NetworkRequest("n", "routed", BLOCK, features=Features(block_prefix_length=20)),
        "/block_prefix_length",
    ),
    "a block without room": (
        NetworkRequest("n", "routed", BLOCK, features=Features(block_prefix_length=31)),
        "/block_prefix_length",
    ),
    "a gateway of a routed subnet": (
        NetworkRequest("n", "routed", (SubnetRequest("10.1.0.0/24", "10.1.0.1"),)),
        "/subnets/0/gateway",
    ),
    "macvlans kept apart": (
        NetworkRequest("n", "transparent", BLOCK, features=Features(uplink="eth0", icc=False)),
        "/icc",
    ),
    "an unknown mode": (
        NetworkRequest("n", "transparent", BLOCK, features=Features(uplink="eth0", uplink_mode="vepa")),
        "/uplink_mode",
    ),
    "a bridge name of kvnet's own": (NetworkRequest("n", features=Features(bridge_name="kvb1")), "/bridge_name"),
    "a bridge name with a slash": (NetworkRequest("n", features=Features(bridge_name="a/b")), "/bridge_name"),
    "a prefix with a blank": (NetworkRequest("n", features=Features(interface_prefix="e h")), "/interface_prefix"),
    "a binding that is no address": (NetworkRequest("n", features=Features(host_binding="h1")), "/host_binding"),
    "ports of an internal network": (
        NetworkRequest("n", internal=True, features=Features(host_binding="10.0.0.1")),
        "/host_binding",
    ),
    "Docker's word for neither": (
        NetworkRequest("n", options={"com.docker.network.bridge.enable_icc": "maybe"}),
        "/options/com.docker.network.bridge.enable_icc",
    ),
    "an option against its field": (
        NetworkRequest("n", mtu=1400, options={"com.docker.network.driver.mtu": "1300"}),
        "/options/com.docker.network.driver.mtu",
    ),
}


@pytest.mark.parametrize("case", UNFIT_FEATURES)
async def test_a_feature_that_does_not_fit_is_refused_at_its_field(cluster: Cluster, case: str) -> None:
    request, pointer = UNFIT_FEATURES[case]
    with pytest.raises(Invalid) as refusal:
        await cluster.networks.create(request, ME)
    assert pointer in [error.pointer for error in refusal.value.errors]


async def test_an_option_of_dockers_that_is_not_known_is_refused(cluster: Cluster) -> None:
    options = {"com.docker.network.bridge.inhibit_ipv4": "true"}
    with pytest.raises(NotSupported, match="inhibit_ipv4"):
        await cluster.networks.create(NetworkRequest("n", options=options), ME)


async def test_an_unknown_pool_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await cluster.networks.create(NetworkRequest("n", pool="nowhere"), ME)


BAD_ENDPOINTS: dict[str, tuple[EndpointRequest, str]] = {
    "an unknown host": (EndpointRequest("nowhere", "c"), "not-found"),
    "a host that is no name": (EndpointRequest("../h1", "c"), "invalid"),
    "a name with a quote": (EndpointRequest("h1", 'c"; drop'), "invalid"),
    "an alias twice": (EndpointRequest("h1", "c", aliases=("a", "a")), "invalid"),
    "too many aliases": (EndpointRequest("h1", "c", aliases=tuple(f"a{i}" for i in range(40))), "invalid"),
    "an id with a slash": (EndpointRequest("h1", "c", id="a/b"), "invalid"),
    "an address outside": (EndpointRequest("h1", "c", address="10.2.0.1"), "invalid"),
    "an address that is none": (EndpointRequest("h1", "c", address="10.1.0.300"), "invalid"),
    "an IPv6 address as IPv4": (EndpointRequest("h1", "c", address="fd00::1"), "invalid"),
    "an IPv6 address in an IPv4 network": (EndpointRequest("h1", "c", address6="fd00::1"), "invalid"),
    "the gateway": (EndpointRequest("h1", "c", address="10.1.0.1"), "address-taken"),
    "the broadcast address": (EndpointRequest("h1", "c", address="10.1.0.7"), "address-taken"),
    "a group MAC": (EndpointRequest("h1", "c", mac="01:00:5e:00:00:01"), "invalid"),
    "a MAC that is none": (EndpointRequest("h1", "c", mac="hello"), "invalid"),
    "a port that is none": (EndpointRequest("h1", "c", ports=(PortRequest(0),)), "invalid"),
    "a range that ends before it begins": (EndpointRequest("h1", "c", ports=(PortRequest(80, 70),)), "invalid"),
    "ranges of two lengths": (EndpointRequest("h1", "c", ports=(PortRequest(80, 82, "tcp", 80, 81),)), "invalid"),
    "an end without a host port": (EndpointRequest("h1", "c", ports=(PortRequest(80, host_port_end=81),)), "invalid"),
    "a protocol that has no ports": (EndpointRequest("h1", "c", ports=(PortRequest(80, protocol="icmp"),)), "invalid"),
    "too many ports": (EndpointRequest("h1", "c", ports=(PortRequest(1, 257),)), "invalid"),
    "ports that lie far apart": (
        EndpointRequest("h1", "c", ports=tuple(PortRequest(80, host_port=1000 * i) for i in range(1, 18))),
        "invalid",
    ),
    "a port on an address that is none": (
        EndpointRequest("h1", "c", ports=(PortRequest(80, host_address="here"),)),
        "invalid",
    ),
    "one host port twice": (
        EndpointRequest("h1", "c", ports=(PortRequest(80, host_port=80), PortRequest(81, host_port=80))),
        "port-taken",
    ),
}


@pytest.mark.parametrize("case", BAD_ENDPOINTS)
async def test_a_bad_endpoint_is_refused_and_holds_no_address(cluster: Cluster, store: MemoryStore, case: str) -> None:
    request, code = BAD_ENDPOINTS[case]
    made = await cluster.networks.create(NetworkRequest("my-net", subnets=subnets("10.1.0.0/29")), ME)
    before = (await store.list("")).revision

    with pytest.raises(KvnetError) as refusal:
        await cluster.endpoints.create("my-net", request, ME)

    assert refusal.value.code == code
    assert await unchanged(store, before)
    good = await cluster.endpoints.create_many("my-net", [EndpointRequest("h1", f"good{i}") for i in range(5)], ME)
    assert not any(isinstance(outcome, KvnetError) for outcome in good)
    assert cluster.networks.use(made.value).used == 5


@pytest.mark.parametrize(
    "request_",
    [
        PoolRequest("p", "10.0.0.0/4", 24),
        PoolRequest("p", "172.20.0.1/16", 24),
        PoolRequest("p", "172.20.0.0/16", 31),
        PoolRequest("p", "172.20.0.0/16", 8),
        PoolRequest("p", "224.0.0.0/8", 24),
        PoolRequest("p/q", "172.20.0.0/16", 24),
        PoolRequest("p", "172.20.0.0/16", 24, ("10.0.0.0/24",)),
    ],
)
async def test_a_bad_pool_is_refused(cluster: Cluster, request_: PoolRequest) -> None:
    with pytest.raises(Invalid):
        await cluster.pools.create(request_, ME)


@given(st.text())
def test_any_text_as_a_subnet_is_parsed_or_refused(text: str) -> None:
    try:
        cidr = parse_cidr(text, "/cidr")
    except Invalid:
        return
    assert "/" in text
    assert cidr.network_address == cidr[0]


@given(st.text(), st.text(), st.one_of(st.none(), st.integers()), st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_request_becomes_a_draft_or_a_refusal(
    name: str, cidr: str, mtu: int | None, labels: dict[str, str]
) -> None:
    try:
        draft = draft_of(NetworkRequest(name, subnets=(SubnetRequest(cidr),), mtu=mtu, labels=labels))
    except (Invalid, NotSupported):
        return
    assert draft.name == name
