"""Whatever is sent: an answer with words in it, and nothing changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.worker.docker.kit import Cluster, Host, a_cluster

BARE = ("Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities")
# An error to it would leave a container that has started without Docker's knowing.
REPEATABLE = ("NetworkDriver.EndpointOperInfo",)
METHODS = (
    *(f"NetworkDriver.{name}" for name in ("CreateNetwork", "DeleteNetwork", "CreateEndpoint", "DeleteEndpoint")),
    *(f"NetworkDriver.{name}" for name in ("EndpointOperInfo", "Join", "Leave", "AllocateNetwork", "FreeNetwork")),
    *(f"NetworkDriver.{name}" for name in ("ProgramExternalConnectivity", "RevokeExternalConnectivity")),
    *(f"NetworkDriver.{name}" for name in ("DiscoverNew", "DiscoverDelete")),
    *(f"IpamDriver.{name}" for name in ("RequestPool", "ReleasePool", "RequestAddress", "ReleaseAddress")),
)


@pytest.mark.anyio
@pytest.mark.parametrize("method", METHODS)
async def test_an_empty_body_is_never_all_defaults(cluster: Cluster, h1: Host, method: str) -> None:
    nonsense = (b"\n", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 100_000)
    for body in nonsense if method in REPEATABLE else (b"", *nonsense):
        reply = await h1.caller.call(method, body)
        assert reply.status == 400, body
        assert reply.error

    assert not await cluster.leftovers()


@pytest.mark.anyio
@pytest.mark.parametrize("method", BARE)
async def test_what_has_no_arguments_is_answered_whatever_comes_with_it(h1: Host, method: str) -> None:
    for body in (b"", b"{}", b"nonsense"):
        assert (await h1.caller.call(method, body)).status == 200


@pytest.mark.anyio
async def test_what_docker_repeats_after_a_join_is_answered(h1: Host) -> None:
    reply = await h1.caller.call("NetworkDriver.EndpointOperInfo", b"")
    assert (reply.status, reply.error) == (200, "")


@pytest.mark.anyio
async def test_an_unknown_call_is_not_found_and_a_known_one_is_posted(h1: Host) -> None:
    for name in ("NetworkDriver.GwAllocCheck", "VolumeDriver.Create", "", "x" * 9000):
        reply = await h1.caller.call(name, {})
        assert (reply.status, bool(reply.error)) == (404, True)
    assert (await h1.caller.call("Plugin.Activate", {}, verb="GET")).status == 405


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("IpamDriver.RequestPool", {"Pool": 7}, "/Pool"),
    ("IpamDriver.RequestPool", {"V6": "yes"}, "/V6"),
    ("IpamDriver.RequestPool", {"Options": {"a": 1}}, "/Options"),
    ("IpamDriver.RequestPool", {"Pool": "10.0.0.0"}, "/Pool"),
    ("IpamDriver.RequestPool", {"Pool": "10.0.0.0/255.0.0.0"}, "/Pool"),
    ("IpamDriver.RequestPool", {"Pool": "fe80::%eth0/64"}, "/Pool"),
    ("IpamDriver.RequestAddress", {"PoolID": ""}, "/PoolID"),
    ("IpamDriver.RequestAddress", {"PoolID": "../../etc"}, "/PoolID"),
    ("IpamDriver.RequestAddress", {"PoolID": "10.0.0.0/8", "Address": "ten"}, "/Address"),
    (
        "IpamDriver.RequestAddress",
        {"PoolID": "10.0.0.0/8", "Options": {"com.docker.network.endpoint.macaddress": "xx"}},
        "/Options/com.docker.network.endpoint.macaddress",
    ),
    ("NetworkDriver.CreateNetwork", {"NetworkID": ""}, "/NetworkID"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "../" * 9}, "/NetworkID"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "a" * 65}, "/NetworkID"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "a", "IPv4Data": {}}, "/IPv4Data"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "a", "IPv4Data": ["x"]}, "/IPv4Data/0"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "a", "IPv4Data": [{"Pool": 1}]}, "/IPv4Data/0/Pool"),
    ("NetworkDriver.CreateNetwork", {"NetworkID": "a", "Options": {"com.docker.network.generic": []}}, "/Options/com"),
    ("NetworkDriver.Join", {"NetworkID": "a", "EndpointID": 3}, "/EndpointID"),
    ("NetworkDriver.Join", {"NetworkID": "a", "EndpointID": "b", "SandboxKey": "netns"}, "/SandboxKey"),
    ("NetworkDriver.CreateEndpoint", {"NetworkID": "a", "EndpointID": "b", "Interface": "x"}, "/Interface"),
    (
        "NetworkDriver.ProgramExternalConnectivity",
        {"NetworkID": "a", "EndpointID": "b", "Options": {"com.docker.network.portmap": [{"Port": 70000}]}},
        "/Options/com.docker.network.portmap/0/Port",
    ),
)


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "body", "pointer"), WRONG)
async def test_what_is_wrong_is_pointed_at(h1: Host, method: str, body: dict[str, Any], pointer: str) -> None:
    reply = await h1.caller.call(method, body)

    assert reply.status == 400
    assert pointer in reply.error
    assert len(reply.error) < 400


WORDS = st.sampled_from(
    [
        "",
        "kvnet",
        "10.90.1.0/24",
        "10.90.1.7",
        "fd00::/64",
        "a" * 64,
        "/run/netns/x",
        "02:42:00:00:00:01",
        "0/0",
        "é\u2028",
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-1, 70000), st.floats(), st.text(max_size=8), WORDS)
NAMES = """NetworkID EndpointID Options IPv4Data IPv6Data Pool PoolID SubPool AddressSpace Address V6 Interface
SandboxKey Gateway AuxAddresses MacAddress AddressIPv6 Proto Port HostPort HostPortEnd HostIP RequestAddressType
com.docker.network.generic com.docker.network.portmap com.docker.network.endpoint.macaddress"""
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=8).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=40)


def test_no_request_breaks_the_plugin_or_makes_anything_without_an_address_space(tmp_path: Path) -> None:
    """One cluster for all examples; whatever they hold is released at the end by hand."""
    with asyncio.Runner() as runner:
        entered = a_cluster(tmp_path, "h1")
        cluster = runner.run(entered.__aenter__())
        host = cluster.hosts["h1"]

        @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(METHODS), BODIES)
        def check(method: str, body: bytes) -> None:
            reply = runner.run(host.caller.call(method, body))
            assert reply.status in (200, 400)
            if reply.status == 400:
                assert reply.error
                assert "\n" not in reply.error

        check()
        assert "docker-call-fault" not in host.said.getvalue()
        assert not runner.run(cluster.networks())
        runner.run(entered.__aexit__(None, None, None))
