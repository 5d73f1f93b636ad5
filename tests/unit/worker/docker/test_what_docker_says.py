"""The user's flags, as Docker passes them on, and what the user reads when one is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from kvnet.model import Driver, UplinkMode
from tests.unit.worker.docker.kit import DNS, UNDERLAY, Cluster, DockerError, Host, until
from worker.runtimes.docker import pools

pytestmark = pytest.mark.anyio

SUBNET = "10.90.1.0/24"


async def test_the_options_are_the_network_s_fields_and_kept_word_for_word(cluster: Cluster, h1: Host) -> None:
    options = {
        "mtu": "1300",
        "icc": "false",
        "flood": "T",
        "com.docker.network.bridge.enable_ip_masquerade": "0",
        "org.example.team": "blue",
        "egress": "gwbridge",
    }
    await h1.made("web", subnets=(SUBNET,), options=options, internal=True)

    (network,) = await cluster.networks()

    assert network["docker"]["options"] == options
    assert (network["mtu"], network["icc"], network["flood"], network["internal"]) == (1300, False, True, True)
    assert not network["masquerade"]
    assert network["options"]["org.example.team"] == "blue"


async def test_gateway_range_and_addresses_kept_free_are_the_network_s(cluster: Cluster, h1: Host) -> None:
    aux = {"nas": "10.90.1.9", "printer": "10.90.1.10"}
    await h1.made("web", subnets=(SUBNET,), gateway="10.90.1.77", ip_range="10.90.1.128/25", aux=aux)

    ((subnet,),) = [network["subnets"] for network in await cluster.networks()]

    assert (subnet["gateway"], subnet["range"], subnet["reserved"]) == ("10.90.1.77", "10.90.1.128/25", aux)


async def test_a_subnet_is_chosen_from_the_pool_that_was_named(cluster: Cluster, h1: Host) -> None:
    answer = await cluster.api.post("/v1/pools", {"name": "lab", "cidr": "10.77.0.0/16", "prefix_length": 24})
    assert answer.status_code == 201, answer.text

    network = await h1.docker.create(ipam_options={"pool": "lab", "prefix_length": "28"})

    assert network.pools[0][0].startswith("10.77.")
    assert network.pools[0][0].endswith("/28")


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"options": {"egres": "gateway"}}, "-o 'egres' is not known; did you mean 'egress'"),
    ({"options": {"egress": "both"}}, "egress='both' cannot be read; egress is one of gateway, gwbridge"),
    ({"options": {"driver": "vlan"}}, "driver is one of overlay, bridge, routed, transparent"),
    ({"options": {"icc": "maybe"}}, "icc is 'true' or 'false'"),
    ({"options": {"mtu": "-1"}}, "mtu is a number of bytes from 576"),
    ({"options": {"mtu": "100"}}, "mtu is a number of bytes from 576"),
    ({"options": {"internal": "true"}}, "use --internal"),
    ({"options": {"pool": "lab"}}, "use --ipam-opt"),
    ({"options": {"parent": "eth0"}}, "add -o driver=transparent"),
    ({"options": {"com.docker.network.mystery": "1"}}, "is not known here"),
    ({"options": {"uplink": "eth0"}}, "uplink"),
    ({"options": {"encrypted": "true"}}, "kvnet does not encrypt"),
    ({"options": {"com.docker.network.driver.mtu": "x"}}, "-o com.docker.network.driver.mtu: 'x' is not a number"),
    ({"options": {"com.docker.network.bridge.enable_icc": "?"}}, "-o com.docker.network.bridge.enable_icc: '?' is"),
    (
        {"options": {"com.docker.network.driver.mtu": "1300", "mtu": "1200"}},
        "driver.mtu: it says 1300, and mtu says 1200",
    ),
    ({"options": {"my.text": "x" * 2000}}, "remote: -o my.text: at most 1024 characters"),
    ({"subnets": tuple(f"10.90.{n}.0/24" for n in range(20))}, "--subnet: at most 8 of them"),
    ({"options": {"driver": "transparent"}}, "name it as the uplink"),
    ({"options": {"driver": "routed", "block_prefix_length": "20"}}, "-o block_prefix_length: a block of /20 does not"),
    ({"ipam_options": {"prefix_length": "99"}, "subnets": ("",)}, "--ipam-opt prefix_length: subnets of /99"),
    ({"ipam_options": {"egress": "gateway"}}, "use -o egress"),
    ({"ipam_options": {"pol": "x"}}, "did you mean 'pool'"),
    ({"ipam_options": {"pool": "nosuch"}, "subnets": ("",)}, "nosuch"),
    ({"ipam_options": {"pool": "default"}}, "contradict each other"),
    ({"space": "LocalDefault"}, "add --ipam-driver kvnet"),
    ({"space": "null"}, "add --ipam-driver kvnet"),
    (
        {"subnets": ("10.90.1.7/24",)},
        "remote: 10.90.1.7/24 is an address inside a subnet, not a subnet; give 10.90.1.0/24",
    ),
    ({"subnets": ("10.90.1.0/31",)}, "has no room"),
    ({"subnets": ("224.0.0.0/24",)}, "multicast"),
    ({"subnets": ("",), "ip_range": "10.1.0.0/25"}, "--ip-range needs --subnet"),
    ({"gateway": "10.91.0.1"}, "10.91.0.1 is not inside 10.90.1.0/24"),
    ({"aux": {"me": "10.90.1.1"}}, "10.90.1.1 is the gateway"),
    ({"options": {"driver": "routed"}, "gateway": "10.90.1.9"}, "every block of a routed network has its own gateway"),
)


@pytest.mark.parametrize(("said", "words"), REFUSED)
async def test_what_cannot_be_is_refused_in_words_and_leaves_nothing(
    cluster: Cluster, h1: Host, said: dict[str, Any], words: str
) -> None:
    with pytest.raises(DockerError) as caught:
        await h1.docker.create(**{"subnets": (SUBNET,), **said})

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not await cluster.leftovers()
    assert not list(h1.ledger.wants())
    assert "docker-call-failed" in h1.said.getvalue()


async def test_addresses_names_and_macs_that_were_asked_for_are_given(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET, "fd00:90::/64"))
    chosen = {"ip": "10.90.1.50", "ip6": "fd00:90::50", "mac": "02:42:AA:BB:CC:DD", "name": "shop"}

    container = await h1.docker.run(network, **chosen)  # type: ignore[arg-type]
    (endpoint,) = await cluster.endpoints("web")

    assert (container.address, container.address6) == ("10.90.1.50", "fd00:90::50")
    assert endpoint["addresses"] == ["10.90.1.50", "fd00:90::50"]
    assert (endpoint["mac"], endpoint["name"]) == ("02:42:aa:bb:cc:dd", "shop")


async def test_a_container_with_a_fixed_address_is_restarted_at_once(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,))
    for _ in range(3):
        container = await h1.docker.run(network, ip="10.90.1.50", mac="02:42:aa:bb:cc:dd")
        assert container.address == "10.90.1.50"
        await h1.docker.stop(container)


async def test_a_start_that_was_cut_short_does_not_hold_the_next_one_up(cluster: Cluster, h1: Host) -> None:
    await h1.made("web", subnets=(SUBNET,))
    mac = {"com.docker.network.endpoint.macaddress": "02:42:aa:bb:cc:dd"}
    asked = {"PoolID": SUBNET, "Address": "10.90.1.50", "Options": mac}
    await h1.docker.ask("IpamDriver.RequestAddress", asked)

    again = await h1.docker.ask("IpamDriver.RequestAddress", asked)
    other = await h1.docker.ask("IpamDriver.RequestAddress", {**asked, "Address": "10.90.1.51"})

    assert (again["Address"], other["Address"]) == ("10.90.1.50/24", "10.90.1.51/24")
    assert [e["address"] for e in await cluster.endpoints("web")] == ["10.90.1.51"]


async def test_a_taken_address_is_refused_with_its_holder(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,))
    await h1.docker.run(network, ip="10.90.1.50", name="shop")

    with pytest.raises(DockerError, match=r"10\.90\.1\.50.*shop"):
        await h1.docker.run(network, ip="10.90.1.50")

    assert len(await cluster.endpoints("web")) == 1


async def test_subnets_that_docker_never_takes_are_not_given_for_ever(cluster: Cluster, h1: Host) -> None:
    """A route of the host that no inventory has told of yet overlaps each of them: Docker asks again, for ever."""
    asked = {"AddressSpace": "kvnet", "Pool": "", "SubPool": "", "Options": {}, "V6": False}
    given = [(await h1.docker.ask("IpamDriver.RequestPool", asked))["PoolID"] for _ in range(pools.MAX_UNUSED)]
    with pytest.raises(DockerError, match=r"route or name server of this host.*--subnet"):
        await h1.docker.ask("IpamDriver.RequestPool", asked)
    for pool in given:
        await h1.docker.ask("IpamDriver.ReleasePool", {"PoolID": pool})

    assert len(set(given)) == pools.MAX_UNUSED
    assert not await cluster.leftovers()


async def test_swarm_is_refused_honestly(h1: Host) -> None:
    for method in ("NetworkDriver.AllocateNetwork", "NetworkDriver.FreeNetwork"):
        with pytest.raises(DockerError, match="does not serve Swarm"):
            await h1.docker.ask(method, {"NetworkID": "x" * 25, "Options": {}, "IPv4Data": None, "IPv6Data": None})
    node = {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.1", "BindAddress": "", "Self": True}}
    assert await h1.docker.ask("NetworkDriver.DiscoverNew", node) == {}
    assert await h1.docker.ask("NetworkDriver.DiscoverDelete", node) == {}


# what a Join answers

DNS_ROUTE = {"Destination": "169.254.53.53/32", "RouteType": 1, "NextHop": ""}


async def test_an_internal_network_has_no_way_out_and_no_bridge_of_docker_s(h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,), internal=True)

    joined = (await h1.docker.run(network)).joined

    assert joined["DisableGatewayService"]
    assert "Gateway" not in joined
    assert joined["StaticRoutes"] == [DNS_ROUTE]


async def test_docker_s_own_bridge_is_the_way_out_where_that_was_asked_for(h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET,), options={"egress": "gwbridge"})

    joined = (await h1.docker.run(network)).joined

    assert joined.keys() == {"InterfaceName", "StaticRoutes"}


async def test_interfaces_are_named_as_the_network_says(h1: Host) -> None:
    network = await h1.made("web", options={"com.docker.network.container_iface_prefix": "net"})

    joined = (await h1.docker.run(network)).joined

    assert joined["InterfaceName"]["DstPrefix"] == "net"
    assert joined["InterfaceName"]["SrcName"].startswith("kvh")


async def test_the_route_to_the_name_server_is_given_once_per_sandbox(h1: Host) -> None:
    networks = [await h1.made(f"web{number}") for number in range(3)]
    sandbox = "/var/run/docker/netns/0123456789ab"
    first = await h1.docker.run(networks[0], sandbox=sandbox)
    second = await h1.docker.run(networks[1], sandbox=sandbox)
    elsewhere = await h1.docker.run(networks[1])
    third = await h1.docker.run(networks[2], sandbox=sandbox)

    given = [DNS_ROUTE in container.joined["StaticRoutes"] for container in (first, second, elsewhere, third)]
    assert given == [True, False, True, False]


async def test_the_route_to_the_name_server_is_not_given_where_there_is_no_ipv4(h1: Host) -> None:
    six = await h1.made("six", subnets=("fd00:90::/64",))
    web, spare = await h1.made("web"), await h1.made("spare")
    sandbox = "/var/run/docker/netns/0123456789ab"
    first = await h1.docker.run(six, sandbox=sandbox)
    second = await h1.docker.run(web, sandbox=sandbox)
    third = await h1.docker.run(spare, sandbox=sandbox)

    assert [DNS_ROUTE in one.joined["StaticRoutes"] for one in (first, second, third)] == [False, True, False]
    await h1.docker.stop(second)
    bearers = {record.external for record in h1.workloads.records() if "169.254.53.53/32" in record.routes}
    assert bearers == {third.endpoint}


async def test_the_route_to_the_name_server_goes_over_to_another_network_of_the_container(h1: Host) -> None:
    bare = {"driver": "transparent", "uplink": "eth0", "shim": "false"}
    options = [{}, bare, {}]
    networks = [await h1.made(f"web{number}", options=words) for number, words in enumerate(options)]
    sandbox = "/var/run/docker/netns/0123456789ab"
    first, second, third = [await h1.docker.run(network, sandbox=sandbox) for network in networks]

    await h1.docker.stop(first)
    again = await h1.docker.run(networks[0], sandbox=sandbox)

    bearers = {record.external for record in h1.workloads.records() if "169.254.53.53/32" in record.routes}
    assert bearers == {third.endpoint}
    assert DNS_ROUTE not in again.joined["StaticRoutes"]
    for container in (third, again, second):
        await h1.docker.stop(container)
    assert not list(h1.workloads.records())


async def test_a_routed_network_s_workload_is_led_by_its_block(h1: Host) -> None:
    network = await h1.made("web", subnets=("10.90.0.0/16",), options={"driver": "routed"})

    container = await h1.docker.run(network)

    block = container.address.rpartition(".")[0]
    assert container.joined["Gateway"].startswith(f"{block}.")
    routes = [route for route in container.joined["StaticRoutes"] if route != DNS_ROUTE]
    assert routes == [{"Destination": "10.90.0.0/16", "RouteType": 0, "NextHop": container.joined["Gateway"]}]


async def test_other_subnets_of_the_network_are_on_the_link(h1: Host) -> None:
    network = await h1.made("web", subnets=(SUBNET, "10.90.2.0/24"))

    container = await h1.docker.run(network)

    routes = [route for route in container.joined["StaticRoutes"] if route != DNS_ROUTE]
    assert routes == [{"Destination": "10.90.2.0/24", "RouteType": 1, "NextHop": ""}]


async def test_a_transparent_network_is_where_the_physical_one_is(cluster: Cluster, h1: Host) -> None:
    options = {"driver": "transparent", "uplink": "eth0", "shim": "false"}
    network = await h1.made("lan", subnets=("192.168.77.0/24",), gateway="192.168.77.254", options=options)
    bare = await h1.made("lan2", subnets=("192.168.78.0/24",), options={**options, "uplink": "eth1"})

    joined = (await h1.docker.run(network)).joined
    without = (await h1.docker.run(bare)).joined

    known = h1.catalogue.named("lan")
    assert known is not None
    assert (known.driver, known.uplink_mode) == (Driver.TRANSPARENT, UplinkMode.MACVLAN)
    assert joined["Gateway"] == "192.168.77.254"
    assert joined["StaticRoutes"] == []  # a macvlan does not reach its host
    assert without["DisableGatewayService"]


async def test_behind_a_shim_the_host_is_on_the_link_and_names_are_behind_it(h1: Host) -> None:
    """Every other host on that wire would answer for the address for names."""
    options = {"driver": "transparent", "uplink": "eth0", "shim": "true"}
    network = await h1.made("lan", subnets=("192.168.77.0/24",), options=options)

    routes = (await h1.docker.run(network)).joined["StaticRoutes"]

    assert routes == [
        {"Destination": f"{UNDERLAY}/32", "RouteType": 1, "NextHop": ""},
        {"Destination": f"{DNS}/32", "RouteType": 0, "NextHop": str(UNDERLAY)},
    ]


# published ports


def _port(**more: Any) -> dict[str, Any]:
    return {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 0, "HostPortEnd": 0, **more}


async def test_ports_are_published_as_docker_was_told(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    ports = [
        _port(HostPort=8080, HostPortEnd=8080),
        _port(Port=53, Proto=17, HostPort=5353, HostPortEnd=5353, HostIP="127.0.0.1"),
        _port(Port=81, HostPort=9000, HostPortEnd=9009),
        _port(Port=82),
        _port(Port=83, HostPort=8083, HostPortEnd=8083, HostIP="0.0.0.0"),
        _port(Port=83, HostPort=8083, HostPortEnd=8083, HostIP="::"),
    ]
    await h1.docker.run(network, ports=ports)

    (endpoint,) = await cluster.endpoints("web")

    shown = {(p["port"], p["protocol"]): (p["host_port"], p["host_address"]) for p in endpoint["ports"]}
    assert shown[80, "tcp"] == (8080, None)
    assert shown[53, "udp"] == (5353, "127.0.0.1")
    assert 9000 <= shown[81, "tcp"][0] <= 9009
    assert shown[82, "tcp"][0]
    assert shown[83, "tcp"] == (8083, None)
    assert len(endpoint["ports"]) == 5


async def test_ports_that_were_chosen_stay_when_docker_asks_again_and_go_when_it_revokes(
    cluster: Cluster, h1: Host
) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network, ports=[_port()])
    (before,) = await cluster.endpoints("web")
    options = {"com.docker.network.portmap": [_port()]}
    await h1.docker.ask("NetworkDriver.ProgramExternalConnectivity", {**container.ids, "Options": options})
    (again,) = await cluster.endpoints("web")
    for _ in range(2):
        await h1.docker.ask("NetworkDriver.RevokeExternalConnectivity", container.ids)
    (after,) = await cluster.endpoints("web")

    assert before["ports"] == again["ports"]
    assert before["ports"][0]["host_port"]
    assert after["ports"] == []


async def test_a_port_that_is_taken_ends_the_start_and_leaves_nothing(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    taken = [_port(HostPort=8080, HostPortEnd=8080)]
    await h1.docker.run(network, ports=taken, name="shop")

    with pytest.raises(DockerError, match=r"8080.*shop"):
        await h1.docker.run(network, ports=taken)

    assert [e["name"] for e in await cluster.endpoints("web")] == ["shop"]


@pytest.mark.parametrize(
    ("port", "words"),
    [(_port(Proto=132), "80/sctp cannot be published"), (_port(Proto=1), "not a protocol"), (_port(Port=0), "Port")],
)
async def test_what_cannot_be_published_is_said(cluster: Cluster, h1: Host, port: dict[str, Any], words: str) -> None:
    network = await h1.made("web")

    with pytest.raises(DockerError, match=words):
        await h1.docker.run(network, ports=[port])

    await until(lambda: not h1.workloads.records())
    assert not await cluster.endpoints("web")


async def test_docker_publishes_where_its_own_bridge_is_the_way_out(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web", options={"egress": "gwbridge"})
    container = await h1.docker.run(network)
    options = {"com.docker.network.portmap": [_port(HostPort=8080, HostPortEnd=8080)]}

    await h1.docker.ask("NetworkDriver.ProgramExternalConnectivity", {**container.ids, "Options": options})

    assert (await cluster.endpoints("web"))[0]["ports"] == []
