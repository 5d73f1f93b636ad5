"""What a call may say: whatever comes, it is a request or it is refused; and what is told survives the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.errors import KvnetError
from kvnet.rules import NAME
from kvnet.shims.cni import VERSIONS
from worker.kernel.look import SeenInterface, SeenRoute
from worker.runtimes.cni.options import CAPABILITIES, OURS, STANDARD, attach_request
from worker.runtimes.cni.refusals import number_of, shown
from worker.runtimes.cni.request import parse_call
from worker.runtimes.cni.results import chained, differences, result_of
from worker.runtimes.fitting import as_name
from worker.runtimes.netavark.words import network_body, setup_request

UGLY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(VERSIONS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*STANDARD, *OURS, "runtimeConfig", "x"])
PARTS = st.dictionaries(st.sampled_from([*CAPABILITIES, "x"]), UGLY, max_size=4)
GOOD = {"cniVersion": "1.1.0", "name": "pods", "type": "kvnet-cni"}
ENVIRONMENT = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/blue", "CNI_IFNAME": "eth0"}
PREVIOUS = {"interfaces": [{"name": "lo", "sandbox": "/x"}], "ips": [{"address": "127.0.0.1/8", "interface": 0}]}


def refused(attempt: Callable[[], object]) -> KvnetError | None:
    """Nothing else than one of ours may come of it."""
    try:
        attempt()
    except KvnetError as error:
        return error
    return None


@given(st.dictionaries(st.sampled_from(list(ENVIRONMENT)), UGLY), st.dictionaries(KEYS, UGLY, max_size=6))
def test_any_call_is_one_or_refused_with_a_number(environment: dict[str, Any], config: dict[str, Any]) -> None:
    refusal = refused(lambda: attach_request(parse_call({**ENVIRONMENT, **environment}, {**GOOD, **config}), "e1"))
    if refusal is not None:
        assert number_of(refusal) in {1, 2, 4, 6, 7}
        assert shown(refusal, "1.1.0")["msg"]


@given(PARTS, st.text(max_size=40))
def test_any_capabilities_are_granted_or_refused(parts: dict[str, Any], arguments: str) -> None:
    told = {**ENVIRONMENT, "CNI_ARGS": arguments}
    refusal = refused(lambda: attach_request(parse_call(told, {**GOOD, "runtimeConfig": parts}), "e1"))
    assert refusal is None or number_of(refusal) in {2, 4, 7}


@given(st.text(min_size=1), st.text(min_size=1))
def test_whatever_a_container_is_called_it_gets_a_name_of_its_own(one: str, other: str) -> None:
    assert NAME.match(as_name(one))
    assert (as_name(one) == as_name(other)) == (one == other)


@given(st.dictionaries(st.sampled_from(["name", "id", "options", "subnets", "labels", "internal"]), UGLY))
def test_any_network_of_podmans_is_one_or_refused(network: dict[str, Any]) -> None:
    refused(lambda: network_body(network))


@given(
    st.dictionaries(st.sampled_from(["container_name", "port_mappings", "network"]), UGLY),
    st.dictionaries(st.sampled_from(["aliases", "static_ips", "static_mac"]), UGLY),
)
def test_any_setup_of_netavarks_is_a_request_or_refused(container: dict[str, Any], options: dict[str, Any]) -> None:
    plain = {"container_id": "c1", "network": {"name": "pods", "id": "1"}}
    network_options = {"interface_name": "eth0", **options}
    refused(lambda: setup_request({**plain, **container, "network_options": network_options}, "/x", "nv/1/2/3", "e1"))


@given(st.sampled_from(VERSIONS))
def test_what_add_tells_check_finds(version: str) -> None:
    routes = (SeenRoute("0.0.0.0/0", "10.1.0.1", 32001), SeenRoute("169.254.53.53/32"))
    inner = SeenInterface("eth0", "02:00:00:00:00:01", 1450, True, ("10.1.0.7/24", "fd00::7/64"), routes)
    outer = SeenInterface("kve1", "02:00:00:00:00:02", 1450, True)
    for half in (None, outer):
        own = result_of(version, "/x", inner, half, {})
        for result in (own, chained(PREVIOUS, own)):
            assert differences(result, "eth0", inner.mac, ["10.1.0.7", "fd00::7"], inner) == []
            for ip in result["ips"]:
                name = "lo" if ip["address"].startswith("127.") else "eth0"
                assert result["interfaces"][ip["interface"]]["name"] == name


@pytest.mark.parametrize(
    "lease",
    [{"start_ip": "0.0.0.0"}, {"end_ip": "255.255.255.255"}, {"start_ip": "::"}, {"start_ip": "10.1.1.0"}],
)
def test_a_range_outside_of_its_subnet_is_refused(lease: dict[str, str]) -> None:
    subnet = {"subnet": "10.1.0.0/24", "lease_range": lease}
    refusal = refused(lambda: network_body({"name": "web", "subnets": [subnet]}))
    assert refusal is not None
    assert "is not inside 10.1.0.0/24" in refusal.detail


def test_a_range_as_podman_makes_it_is_the_block_that_was_asked_for() -> None:
    subnet = {"subnet": "10.1.0.0/24", "lease_range": {"start_ip": "10.1.0.129", "end_ip": "10.1.0.254"}}
    (body,) = network_body({"name": "web", "subnets": [subnet]})["subnets"]
    assert body["range"] == "10.1.0.128/25"


def test_a_port_without_bounds_is_refused() -> None:
    given = {
        "network": {"id": "1", "name": "web"},
        "network_options": {"interface_name": "eth0"},
        "container_id": "c1",
        "port_mappings": [{"container_port": float("inf"), "host_port": 80}],
    }
    assert refused(lambda: setup_request(given, "/run/netns/blue", "nv/1/c1/eth0", "e1")) is not None
