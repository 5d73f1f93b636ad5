"""Patches as a pure function: whatever is asked, the answer is a valid network, or a refusal."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.changing import NetworkPatch, SubnetPatch, added_subnets, changed, grown_subnets, removed_subnets
from controller.docker_options import fields_of, known_options
from kvnet.errors import Immutable, Invalid, KvnetError, NotSupported
from kvnet.model import Driver, Network, Subnet

MTU, ICC = "com.docker.network.driver.mtu", "com.docker.network.bridge.enable_icc"


def network(driver: Driver = Driver.OVERLAY, *subnets: Subnet, **more: Any) -> Network:
    return Network("0123456789ab", "n", driver, subnets or (block("10.1.0.0/24"),), 0.0, **more)


def block(cidr: str, gateway: str | None = None, **reserved: str) -> Subnet:
    net = ip_network(cidr)
    gate = ip_address(gateway) if gateway else net[1]
    return Subnet(net, gate, None, {name: ip_address(a) for name, a in reserved.items()})


CIDRS = st.sampled_from(
    [
        "10.1.0.0/24",
        "10.1.0.0/23",
        "10.1.0.0/25",
        "10.1.1.0/24",
        "10.0.0.0/8",
        "10.2.0.0/24",
        "fd00::/64",
        "fd00::/63",
        "x",
    ]
)
SUBNETS = st.lists(
    st.builds(
        SubnetPatch,
        CIDRS,
        st.fixed_dictionaries(
            {},
            optional={
                "range": st.sampled_from([None, "10.1.0.128/25", "10.9.0.0/24"]),
                "reserved": st.sampled_from([None, {"a": "10.1.0.9"}, {"a": "10.1.0.1"}, {"b": "10.2.0.7"}]),
                "gateway": st.sampled_from([None, "10.1.0.1", "10.1.0.7"]),
            },
        ),
    ),
    max_size=4,
).map(tuple)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "mtu": st.sampled_from([None, 500, 1400, 9000]),
        "icc": st.sampled_from([None, True, False]),
        "flood": st.sampled_from([None, True, False]),
        "host_binding": st.sampled_from([None, "127.0.0.1", "nowhere"]),
        "interface_prefix": st.sampled_from([None, "net", "Not!"]),
        "driver": st.sampled_from(["overlay", "bridge"]),
        "labels": st.sampled_from([None, {"a": None}, {"b": "2"}]),
        "options": st.sampled_from(
            [None, {MTU: "1400"}, {MTU: None}, {ICC: "f"}, {ICC: None, "own": "x"}, {MTU: "no"}]
        ),
    },
)
NETWORKS = st.sampled_from(
    [
        network(),
        network(Driver.BRIDGE, mtu=1400, options={MTU: "1400"}, labels={"a": "1"}),
        network(
            Driver.OVERLAY, block("10.1.0.0/24", printer="10.1.0.20"), block("fd00::/64"), icc=False, options={ICC: "0"}
        ),
        network(Driver.OVERLAY, block("10.1.0.0/25"), block("10.1.1.0/24")),
    ]
)


@given(NETWORKS, GIVEN, st.none() | SUBNETS)
def test_a_patch_makes_a_valid_network_or_is_refused(
    before: Network, given: dict[str, Any], subnets: tuple[SubnetPatch, ...] | None
) -> None:
    patch = NetworkPatch(given, subnets)
    try:
        after = changed(before, patch)
    except (Invalid, Immutable, NotSupported) as error:
        pointed_at = error.errors
    else:
        pointed_at = ()
    if pointed_at:
        return

    for i, subnet in enumerate(after.subnets):
        assert not any(subnet.cidr.overlaps(other.cidr) for other in after.subnets[:i])
    assert (after.id, after.name, after.driver, after.vni) == (before.id, before.name, before.driver, before.vni)
    for name, value in fields_of(after.options, after.driver).items():
        assert getattr(after, name) == value
    assert changed(after, patch) is after


@pytest.mark.parametrize("wanted", [("10.1.0.0/23", "10.0.0.0/8"), ("10.0.0.0/8", "10.1.0.0/23")])
def test_of_two_subnets_that_one_could_grow_into_none_is_left_out_in_silence(wanted: tuple[str, str]) -> None:
    with pytest.raises(Invalid) as refusal:
        changed(network(), NetworkPatch(subnets=tuple(SubnetPatch(cidr) for cidr in wanted)))

    assert [(e.pointer, e.detail) for e in refusal.value.errors] == [
        ("/subnets/1/cidr", f"{wanted[1]} overlaps {wanted[0]} of the same patch")
    ]


@given(NETWORKS, SUBNETS)
def test_growing_keeps_every_address_inside_and_usable(before: Network, wanted: tuple[SubnetPatch, ...]) -> None:
    try:
        after = changed(before, NetworkPatch({}, wanted))
    except KvnetError:
        return

    gone = removed_subnets(before, after)
    for subnet in before.subnets:
        if subnet.cidr in gone:
            continue
        home = after.subnet_of(subnet.cidr[1])
        assert home is not None
        assert home.gateway == subnet.gateway
        assert subnet.cidr.subnet_of(home.cidr)  # type: ignore[arg-type]
        usable = (subnet.cidr[1], subnet.cidr[-2]) if subnet.cidr.version == 4 else ()
        for address in usable:
            assert address not in (home.cidr.network_address, home.cidr.broadcast_address)
    kept = {s.cidr for s in before.subnets} - set(gone)
    assert {s.cidr for s in after.subnets} == (kept - set(grown_subnets(before, after).values())) | set(
        grown_subnets(before, after)
    ) | set(added_subnets(before, after))


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ["1", "t", "T", "true", "TRUE", "True"]]
    + [(text, False) for text in ["0", "f", "F", "false", "FALSE", "False"]],
)
def test_booleans_are_read_as_docker_reads_them(text: str, value: bool) -> None:
    assert fields_of({ICC: text}, Driver.BRIDGE) == {"icc": value}


@pytest.mark.parametrize("text", ["yes", "", "tRUE", " true", "2"])
def test_what_docker_would_not_read_as_a_boolean_is_refused_at_the_option(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fields_of({ICC: text}, Driver.BRIDGE)

    assert [e.pointer for e in refusal.value.errors] == [f"/options/{ICC}"]


def test_the_parent_of_a_macvlan_is_an_uplink_only_where_there_are_uplinks() -> None:
    assert fields_of({"parent": "eth1"}, Driver.TRANSPARENT) == {"uplink": "eth1"}
    assert fields_of({"parent": "eth1"}, Driver.BRIDGE) == {}
    assert "macvlan_mode" in known_options(Driver.TRANSPARENT)


def test_null_for_what_is_at_its_default_anyway_is_no_change() -> None:
    before = network()

    assert changed(before, NetworkPatch({"shim": None, "internal": None, "peers": None, "uplink_mode": None})) is before
    with pytest.raises(Immutable):
        changed(network(internal=True), NetworkPatch({"internal": None}))


def test_a_subnet_that_is_to_grow_and_keep_the_default_gateway_may_be_asked_for_twice() -> None:
    patch = NetworkPatch(subnets=(SubnetPatch("10.0.0.0/8", {"gateway": None}),))
    once = changed(network(Driver.OVERLAY, block("10.1.0.0/24")), patch)

    assert changed(once, patch) is once


def test_a_gateway_of_ones_own_does_not_become_the_default_in_silence() -> None:
    before = network(Driver.OVERLAY, block("10.1.0.0/24", "10.1.0.7"))

    with pytest.raises(Immutable, match="gateway"):
        changed(before, NetworkPatch(subnets=(SubnetPatch("10.1.0.0/24", {"gateway": None}),)))


def test_a_new_subnet_with_the_default_gateway_may_be_asked_for_twice() -> None:
    patch = NetworkPatch(subnets=(SubnetPatch("10.1.1.0/24", {"gateway": None}),))
    made = changed(network(), patch)

    assert changed(made, patch) is made
