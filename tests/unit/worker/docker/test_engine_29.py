"""What engine 29 asks, word for word as one (29.7) did: in places more than 20.10 asks, in places less."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.worker.docker.kit import Cluster, Host

pytestmark = pytest.mark.anyio

MANY = "com.docker.network."
WEB, SIX, EID = "c3c397b6d357" + "0" * 52, "a1afa6e949e1" + "0" * 52, "0a41410d5a6a" + "0" * 52
IDS = {"NetworkID": WEB, "EndpointID": EID}
GATEWAY = {"RequestAddressType": MANY + "gateway"}
ONE = {MANY + "endpoint.macaddress": "5a:bb:55:47:37:b0", MANY + "endpoint.name": "one"}
EXPOSED = {MANY + "endpoint.exposedports": [{"Proto": 17, "Port": 8081}, {"Proto": 6, "Port": 8080}]}
MAPPED = {
    MANY + "portmap": [
        {"Proto": 17, "IP": "", "Port": 8081, "HostIP": "127.0.0.1", "HostPort": 8082, "HostPortEnd": 8082},
        {"Proto": 6, "IP": "", "Port": 8080, "HostIP": "", "HostPort": 8083, "HostPortEnd": 8090},
    ]
}


async def pool(host: Host, cidr: str, *, version: int = 4) -> dict[str, Any]:
    """A pool and its gateway, as CreateNetwork tells them; the address spaces are asked for each time."""
    await host.docker.ask("IpamDriver.GetDefaultAddressSpaces")
    asked = {"AddressSpace": "kvnet", "Pool": cidr, "SubPool": "", "Options": {}, "V6": version == 6}
    given = await host.docker.ask("IpamDriver.RequestPool", asked)
    way = {"PoolID": given["PoolID"], "Address": "", "Options": GATEWAY}
    gateway = (await host.docker.ask("IpamDriver.RequestAddress", way))["Address"]
    return {"AddressSpace": "kvnet", "AuxAddresses": {}, "Gateway": gateway, "Pool": given["Pool"]}


async def create(host: Host, id: str, four: list[dict[str, Any]], six: list[dict[str, Any]]) -> None:
    options = {MANY + "enable_ipv4": bool(four), MANY + "enable_ipv6": bool(six), MANY + "generic": {}}
    body = {"NetworkID": id, "Options": options, "IPv4Data": four, "IPv6Data": six}
    assert await host.docker.ask("NetworkDriver.CreateNetwork", body) == {}


async def name(host: Host, id: str, called: str) -> None:
    binding = host.ledger.binding(id)
    assert binding is not None
    await host.line.name_network(binding.network, {"name": called})


async def test_a_container_of_both_families_with_ports(cluster: Cluster, h1: Host) -> None:
    four = await pool(h1, "10.48.0.0/24")
    six = await pool(h1, "fd00:48::/64", version=6)
    await create(h1, WEB, [four], [six])
    await name(h1, WEB, "web")

    for cidr in ("10.48.0.0/24", "fd00:48::/64"):
        await h1.docker.ask("IpamDriver.RequestAddress", {"PoolID": cidr, "Address": "", "Options": ONE})
    (endpoint,) = await cluster.endpoints("web")
    assert (endpoint["name"], endpoint["mac"]) == ("one", "5a:bb:55:47:37:b0")  # before any event tells it

    address, address6 = endpoint["addresses"]
    interface = {"Address": f"{address}/24", "AddressIPv6": f"{address6}/64", "MacAddress": "5a:bb:55:47:37:b0"}
    more = {MANY + "endpoint.dnsservers": ["169.254.53.53"], **EXPOSED, **MAPPED}
    made = await h1.docker.ask("NetworkDriver.CreateEndpoint", {**IDS, "Interface": interface, "Options": more})
    assert made == {}
    sandbox = {"SandboxKey": "/var/run/docker/netns/8c1f3e0f74e0", "Options": EXPOSED | MAPPED}
    joined = await h1.docker.ask("NetworkDriver.Join", {**IDS, **sandbox})
    assert (joined["Gateway"], joined["GatewayIPv6"]) == ("10.48.0.1", "fd00:48::1")
    await h1.docker.ask("NetworkDriver.ProgramExternalConnectivity", {**IDS, "Options": EXPOSED | MAPPED})
    for _ in range(3):  # also whenever another network of the container comes or goes
        assert await h1.docker.ask("NetworkDriver.EndpointOperInfo", IDS) == {"Value": {}}

    (endpoint,) = await cluster.endpoints("web")
    ports = {(port["protocol"], port["port"]): port for port in endpoint["ports"]}
    assert ports["udp", 8081]["host_address"] == "127.0.0.1"
    assert 8083 <= ports["tcp", 8080]["host_port"] <= 8090

    for call in ("RevokeExternalConnectivity", "Leave", "Leave", "DeleteEndpoint"):
        assert await h1.docker.ask(f"NetworkDriver.{call}", IDS) == {}
    assert await cluster.endpoints("web") == []


async def test_a_network_without_ipv4(cluster: Cluster, h1: Host) -> None:
    await create(h1, SIX, [], [await pool(h1, "fd00:49::/64", version=6)])
    await name(h1, SIX, "six")
    ids = {"NetworkID": SIX, "EndpointID": EID}
    asked = {"PoolID": "fd00:49::/64", "Address": "", "Options": ONE}
    address = (await h1.docker.ask("IpamDriver.RequestAddress", asked))["Address"]
    interface = {"Address": "", "AddressIPv6": address, "MacAddress": "5a:bb:55:47:37:b0"}
    await h1.docker.ask("NetworkDriver.CreateEndpoint", {**ids, "Interface": interface, "Options": {}})

    joined = await h1.docker.ask("NetworkDriver.Join", {**ids, "SandboxKey": "/run/docker/netns/1", "Options": {}})

    assert joined["GatewayIPv6"] == "fd00:49::1"
    assert "Gateway" not in joined
    assert joined["StaticRoutes"] == []
    (network,) = await cluster.networks()
    assert [subnet["cidr"] for subnet in network["subnets"]] == ["fd00:49::/64"]


async def test_a_network_that_is_made_anew_is_removed_first_as_29_has_no_two_of_a_name(
    cluster: Cluster, h1: Host
) -> None:
    first = await pool(h1, "")
    del first["AuxAddresses"]  # 29 leaves it out where no subnet was given
    await create(h1, WEB, [first], [])
    await name(h1, WEB, "auto")
    cidr, gateway = first["Pool"], first["Gateway"].partition("/")[0]

    with h1.own.removing(WEB):
        await h1.docker.ask("IpamDriver.ReleaseAddress", {"PoolID": cidr, "Address": gateway})
        await h1.docker.ask("IpamDriver.ReleasePool", {"PoolID": cidr})
        await h1.docker.ask("NetworkDriver.DeleteNetwork", {"NetworkID": WEB})
    with h1.own.posting([cidr]):
        await create(h1, SIX, [await pool(h1, cidr)], [])

    (network,) = await cluster.networks()
    assert (network["name"], network["subnets"][0]["cidr"]) == ("auto", cidr)
    assert [binding.docker for binding in h1.ledger.bindings()] == [SIX]
