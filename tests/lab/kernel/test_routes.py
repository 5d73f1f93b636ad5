"""Routes via peers: told as they were wanted, made again when another way leads to the peer, never a foreigner's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.objects import (
    Bridge,
    CreateLink,
    DeleteLink,
    HostState,
    InterfaceAddress,
    Neighbour,
    RemoveRoute,
    ReplaceRoute,
    Route,
    Scope,
    SetSysctl,
    VtepEntry,
    Vxlan,
)
from datapath.plan import plan
from lab import namespaces
from tests.lab.eye import everything
from tests.lab.kernel.physical import cable, give, take, tell
from worker.kernel import messages as m
from worker.kernel.linux import LinuxKernel
from worker.kernel.netlink import NLM_F_CREATE, Message, attribute

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

NETWORK = "0000000000aa"
BRIDGE = Bridge(f"kvb{NETWORK}", bytes.fromhex("026b00000001"), 1500, True)
TUNNEL = Vxlan(f"kvx{NETWORK}", 77, bytes([192, 0, 2, 10]), 1450, "", mac=bytes.fromhex("026b00000010"))


def packed(text: str) -> bytes:
    return ip_address(text).packed


PEER, PEER6 = packed("192.0.2.20"), packed("2001:db8::20")
VIA = Route(packed("10.1.0.64"), 26, "", gateway=PEER)
VIA6 = Route(packed("fd00:1::40"), 122, "", gateway=PEER6)
BLOCKS = frozenset({(packed("10.1.0.0"), 24), (packed("fd00:1::"), 64)})


@pytest.fixture
def lan(netns: Path) -> Iterator[Path]:
    path = namespaces.create("lan")
    cable(netns, path)
    give(netns, "up0", "192.0.2.10/24")
    give(netns, "up0", "2001:db8::10/64")
    yield path
    namespaces.destroy(path)


async def test_routes_via_peers_of_both_families_are_told_as_they_were_wanted(
    kernel: LinuxKernel, netns: Path, lan: Path
) -> None:
    own = Route(packed("10.1.0.0"), 26, BRIDGE.name)
    assert await kernel.apply([CreateLink(BRIDGE), *map(ReplaceRoute, (VIA, VIA6, own))]) == []

    assert {("up0", "10.1.0.64/26"), ("up0", "fd00:1::40/122")} <= everything(netns).routes
    for scope in (Scope(), Scope(NETWORK, blocks=BLOCKS)):
        assert (await kernel.read(scope)).routes == {VIA, VIA6, own}
    assert (await kernel.read(Scope("0000000000bb", blocks=frozenset({(packed("10.2.0.0"), 16)})))).routes == set()


async def test_routes_via_peers_are_replaced_and_removed(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    before = everything(netns)
    other = (VIA._replace(gateway=packed("192.0.2.30")), VIA6._replace(gateway=packed("2001:db8::30")))
    assert await kernel.apply([*map(ReplaceRoute, (VIA, VIA6))]) == []

    assert await kernel.apply([*map(ReplaceRoute, other)]) == []
    assert (await kernel.read()).routes == set(other)

    assert await kernel.apply([*map(RemoveRoute, other), *map(RemoveRoute, other)]) == []
    assert everything(netns) == before


async def test_a_peer_that_nothing_leads_to_is_a_failure_of_its_own_route(kernel: LinuxKernel, lan: Path) -> None:
    nowhere = VIA._replace(gateway=packed("203.0.113.1"))

    (failure,) = await kernel.apply([ReplaceRoute(nowhere), ReplaceRoute(VIA6)])

    assert failure.operation == ReplaceRoute(nowhere)
    assert failure.errno in (errno.ENETUNREACH, errno.EINVAL)
    assert (await kernel.read()).routes == {VIA6}


async def test_a_foreign_route_to_a_block_stays_and_is_told(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    index = everything(netns).links["up0"]
    body = m.ROUTE.pack(m.AF_INET, 26, 0, 0, m.RT_TABLE_MAIN, 4, m.RT_SCOPE_UNIVERSE, m.RTN_UNICAST, 0)
    body += attribute(m.RTA_DST, VIA.destination) + attribute(m.RTA_GATEWAY, packed("192.0.2.99"))
    tell(netns, Message(m.RTM_NEWROUTE, NLM_F_CREATE, body + attribute(m.RTA_OIF, m.U32.pack(index))))
    before = everything(netns)

    (failure,) = await kernel.apply([ReplaceRoute(VIA), RemoveRoute(VIA)])

    assert "not kvnet's" in failure.reason
    assert everything(netns) == before


async def test_a_route_over_a_way_that_is_not_the_way_any_more_is_seen_and_made_again(
    kernel: LinuxKernel, netns: Path, lan: Path
) -> None:
    """The underlay moved to another interface; the kernel keeps the old device in the route."""
    assert await kernel.apply([ReplaceRoute(VIA)]) == []
    other = namespaces.create("other")
    try:
        cable(netns, other, "up1", addresses=())
        give(netns, "up1", "192.0.2.11/28")
        give(netns, "up1", "192.0.2.17/28")  # a more specific way to the peer

        state = await kernel.read()
        assert state.routes == {VIA._replace(device="up0")}
        operations = plan(HostState(routes=frozenset({VIA})), state).operations
        assert operations == (ReplaceRoute(VIA),)
        assert await kernel.apply(operations) == []

        assert (await kernel.read()).routes == {VIA}
        assert ("up1", "10.1.0.64/26") in everything(netns).routes
    finally:
        namespaces.destroy(other)


async def test_an_address_that_goes_takes_its_way_along(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    assert await kernel.apply([ReplaceRoute(VIA)]) == []

    take(netns, "up0", "192.0.2.10/24")

    assert VIA not in (await kernel.read()).routes


async def test_an_ipv4_block_behind_an_ipv6_peer(kernel: LinuxKernel, lan: Path) -> None:
    route = VIA._replace(gateway=PEER6)

    assert await kernel.apply([ReplaceRoute(route), ReplaceRoute(route)]) == []

    assert (await kernel.read()).routes == {route}


def routed_tunnel(peers: int = 1) -> HostState:
    gateway, gateway6 = packed("10.1.0.1"), packed("fd00:1::1")
    mac = bytes.fromhex("026b00000020")
    hop6 = packed("fe80::6b:ff:fe00:20")
    return HostState(
        links={TUNNEL.name: TUNNEL},
        addresses=frozenset({InterfaceAddress(TUNNEL.name, gateway, 32), InterfaceAddress(TUNNEL.name, gateway6, 128)}),
        neighbours=frozenset({Neighbour(TUNNEL.name, PEER, mac), Neighbour(TUNNEL.name, hop6, mac)}),
        vteps=frozenset({VtepEntry(TUNNEL.name, mac, PEER)}),
        routes=frozenset(
            {
                VIA._replace(device=TUNNEL.name, onlink=True, source=gateway),
                VIA6._replace(device=TUNNEL.name, onlink=True, source=gateway6, gateway=hop6),
            }
        ),
        sysctls={f"net/ipv6/conf/{TUNNEL.name}/disable_ipv6": "0"},
    )


async def test_a_tunnel_in_no_bridge_carries_routed_blocks(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    wanted = routed_tunnel()
    before = everything(netns)

    assert await kernel.apply(plan(wanted, await kernel.read()).operations) == []

    for scope in (Scope(), Scope(NETWORK, blocks=BLOCKS), Scope(NETWORK)):
        state = await kernel.read(scope)
        assert state.links == wanted.links
        assert (state.addresses, state.neighbours, state.vteps) == (wanted.addresses, wanted.neighbours, wanted.vteps)
        assert state.routes == wanted.routes
        assert plan(replace(wanted, firewall=None), replace(state, sysctls=wanted.sysctls)).operations == ()

    assert await kernel.apply(plan(HostState(), await kernel.read()).operations) == []
    assert everything(netns) == before


DAMAGES = {
    "another MAC": lambda i: [m.set_link(i, mac=bytes.fromhex("020000000077"))],
    "down": lambda i: [m.set_link(i, up=False)],
    "deleted": lambda i: [m.delete_link(i)],
    "another size": lambda i: [m.set_link(i, mtu=1300)],
    "no neighbour": lambda i: [m.remove_neighbour(i, PEER)],
    "no entry": lambda i: [m.remove_vtep(i, bytes.fromhex("026b00000020"), PEER)],
    "no route": lambda i: [m.remove_route(VIA._replace(device=TUNNEL.name, onlink=True, gateway=PEER), i)],
    "no address": lambda i: [m.address(i, packed("10.1.0.1"), 32, remove=True)],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_routed_tunnel_is_repaired_in_one_pass(
    kernel: LinuxKernel, netns: Path, lan: Path, damage: str
) -> None:
    wanted = routed_tunnel()
    assert await kernel.apply(plan(wanted, await kernel.read()).operations) == []

    tell(netns, *DAMAGES[damage](everything(netns).links[TUNNEL.name]))
    state = await kernel.read(Scope(NETWORK, blocks=BLOCKS))
    operations = plan(wanted, state).operations
    assert operations
    assert await kernel.apply(operations) == []

    assert plan(wanted, await kernel.read()).operations == ()


async def test_a_route_is_gone_with_its_bridge(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    own = Route(packed("10.1.0.0"), 26, BRIDGE.name)
    assert await kernel.apply([CreateLink(BRIDGE), ReplaceRoute(own), DeleteLink(BRIDGE)]) == []

    assert await kernel.apply([RemoveRoute(own)]) == []
    assert (await kernel.read()).routes == set()


async def test_a_wanted_setting_of_a_device_that_vanished_is_a_failure(kernel: LinuxKernel) -> None:
    (failure,) = await kernel.apply([SetSysctl("net/ipv6/conf/kvx0/disable_ipv6", "0")])

    assert failure.errno == errno.ENOENT
