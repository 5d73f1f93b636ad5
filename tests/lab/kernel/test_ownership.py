"""What is not ours stays as it is, and is told where it is in our way."""

from __future__ import annotations

import errno
import random
from contextlib import closing
from pathlib import Path

import pytest

from datapath.objects import (
    AddAddress,
    Bridge,
    CreateLink,
    DeleteLink,
    Foreign,
    InterfaceAddress,
    Neighbour,
    PortEntry,
    RemoveRoute,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    Scope,
    SetSysctl,
    UpdateLink,
    VtepEntry,
    Vxlan,
)
from datapath.sysctls import HOST_SYSCTLS
from lab import namespaces
from tests.lab.eye import everything
from tests.lab.kernel.bed import Bed, network
from tests.lab.kernel.physical import raw
from worker.kernel import messages as m
from worker.kernel.dump import THROW_AWAY_GROUPS
from worker.kernel.linux import LinuxKernel
from worker.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, Netlink, attribute, nested

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
TUNNEL = Vxlan("kvx0000000000aa", 77, bytes([198, 18, 0, 1]), 1450, BRIDGE.name)


def foreign_link(name: str, kind: str, *data: bytes) -> Message:
    """As `ip link add` makes it: no group."""
    text = name.encode() + b"\0"
    info = nested(m.IFLA_LINKINFO, attribute(m.IFLA_INFO_KIND, kind.encode() + b"\0"), nested(m.IFLA_INFO_DATA, *data))
    body = m.LINK.pack(0, 0, 0, m.IFF_UP, m.IFF_UP) + attribute(m.IFLA_IFNAME, text) + info
    return Message(m.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def foreign_tunnel(name: str, vni: int) -> Message:
    number = attribute(m.IFLA_VXLAN_ID, m.U32.pack(vni))
    return foreign_link(name, "vxlan", number, attribute(m.IFLA_VXLAN_PORT, (4789).to_bytes(2, "big")))


def by_hand(netns: Path, *messages: Message) -> None:
    def run() -> None:
        with closing(Netlink()) as rtnetlink:
            assert rtnetlink.request(messages) == []

    namespaces.call(netns, run)


def index_of(netns: Path, name: str) -> int:
    return everything(netns).links[name]


async def test_a_foreign_link_under_our_name_is_reported_and_never_touched(kernel: LinuxKernel, netns: Path) -> None:
    by_hand(netns, foreign_link(BRIDGE.name, "veth"))
    before = everything(netns)

    state = await kernel.read()
    part = await kernel.read(Scope("0000000000aa"), firewall=False)
    failures = await kernel.apply(
        [
            CreateLink(BRIDGE),
            UpdateLink(BRIDGE, BRIDGE),
            AddAddress(InterfaceAddress(BRIDGE.name, bytes([10, 1, 0, 1]), 24)),
            ReplaceNeighbour(Neighbour(BRIDGE.name, bytes([10, 1, 0, 2]), BRIDGE.mac)),
            DeleteLink(BRIDGE),
        ]
    )

    assert part.foreign == {BRIDGE.name: Foreign(BRIDGE.name, "veth")}
    assert state.foreign[BRIDGE.name] == part.foreign[BRIDGE.name]
    assert not state.links
    assert len(failures) == 5
    assert all("veth device that is not kvnet's" in failure.reason for failure in failures)
    assert everything(netns) == before


async def test_a_bridge_with_our_name_but_not_our_group_is_foreign(kernel: LinuxKernel, netns: Path) -> None:
    by_hand(netns, foreign_link(BRIDGE.name, "bridge"))

    assert (await kernel.read()).foreign[BRIDGE.name] == Foreign(BRIDGE.name, "bridge")


async def test_a_foreign_tunnel_that_holds_our_vni_is_named(kernel: LinuxKernel, netns: Path) -> None:
    by_hand(netns, foreign_tunnel("vxlan7", TUNNEL.vni))

    (failure,) = await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)])

    assert (await kernel.read()).foreign["vxlan7"] == Foreign("vxlan7", "vxlan", TUNNEL.vni)
    assert (await kernel.read(Scope("0000000000aa"), firewall=False)).foreign.keys() == {"vxlan7"}
    assert failure.errno == errno.EEXIST
    assert "VNI" in failure.reason


async def test_a_foreign_route_to_the_same_destination_stays(kernel: LinuxKernel, netns: Path) -> None:
    by_hand(netns, foreign_link("theirs", "bridge"))
    route = Route(bytes([10, 1, 0, 0]), 24, BRIDGE.name)
    body = m.ROUTE.pack(m.AF_INET, 24, 0, 0, m.RT_TABLE_MAIN, 4, m.RT_SCOPE_LINK, m.RTN_UNICAST, 0)
    out = attribute(m.RTA_OIF, m.U32.pack(index_of(netns, "theirs")))
    by_hand(netns, Message(m.RTM_NEWROUTE, NLM_F_CREATE, body + attribute(m.RTA_DST, route.destination) + out))
    assert await kernel.apply([CreateLink(BRIDGE)]) == []
    before = everything(netns)

    (failure,) = await kernel.apply([ReplaceRoute(route), RemoveRoute(route)])

    assert "not kvnet's" in failure.reason
    assert everything(netns) == before


async def test_our_own_route_is_replaced_without_a_gap(kernel: LinuxKernel) -> None:
    address = InterfaceAddress(BRIDGE.name, bytes([10, 1, 0, 1]), 24)
    without, with_source = (Route(bytes([10, 1, 0, 0]), 24, BRIDGE.name, source) for source in (b"", address.address))

    assert await kernel.apply([CreateLink(BRIDGE), AddAddress(address), ReplaceRoute(without)]) == []
    assert await kernel.apply([ReplaceRoute(with_source), ReplaceRoute(with_source)]) == []

    assert (await kernel.read()).routes == {with_source}


async def test_the_life_of_a_network_leaves_everything_foreign_as_it_was(bed: Bed) -> None:
    netns = bed.netns["h1"]
    by_hand(netns, foreign_link("docker0", "bridge"), foreign_link("kvother", "bridge"), foreign_tunnel("vx-other", 99))
    docker = index_of(netns, "docker0")
    by_hand(
        netns,
        m.address(docker, bytes([172, 17, 0, 1]), 16, prefix_route=True),
        Message(
            m.RTM_NEWNEIGH,
            m.REPLACE,
            m.NEIGHBOUR.pack(m.AF_INET, docker, m.NUD_PERMANENT, 0, 0)
            + attribute(m.NDA_DST, bytes([172, 17, 0, 9]))
            + attribute(m.NDA_LLADDR, bytes.fromhex("020000000009")),
        ),
    )
    # A host that forwards already: switching that on shows in every link, and is never taken back.
    settings = [SetSysctl(path, "1") for path in HOST_SYSCTLS]
    assert await bed.kernels["h1"].apply(settings) == []
    before, entries = raw(netns), everything(netns)

    net = network(7)
    one, other = bed.add(net, "c1", "h1", 2), bed.add(net, "c2", "h2", 3)
    assert await bed.converge() == []
    assert raw(netns) != before
    bed.remove(one)
    bed.remove(other)
    assert await bed.converge() == []

    assert raw(netns) == before
    assert everything(netns) == entries


async def test_many_links_are_deleted_together_and_only_they(kernel: LinuxKernel, netns: Path) -> None:
    bridges = [Bridge(f"kvb{number:012x}", bytes([2, 0x6B, 0, 0, 0, number]), 1450, False) for number in range(6)]
    tunnels = [Vxlan(f"kvx{n:012x}", 100 + n, bytes([198, 18, 0, 1]), 1450, b.name) for n, b in enumerate(bridges)]
    assert await kernel.apply([CreateLink(link) for link in [*bridges, *tunnels]]) == []
    kept = [bridges[0], tunnels[0]]
    by_hand(netns, foreign_link("theirs", "bridge"))

    doomed = [DeleteLink(link) for link in [*tunnels[1:], *bridges[1:]]]
    assert await kernel.apply(doomed) == []
    assert await kernel.apply(doomed) == [], "what is gone is no failure"

    assert set((await kernel.read()).links) == {link.name for link in kept}
    assert "theirs" in everything(netns).links


async def test_a_link_left_in_a_throw_away_group_is_still_ours(kernel: LinuxKernel, netns: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE)]) == []
    group = random.Random(1).choice(THROW_AWAY_GROUPS)
    by_hand(netns, m.set_link(index_of(netns, BRIDGE.name), group=group))

    state = await kernel.read()

    assert BRIDGE.name in state.links
    assert BRIDGE.name not in state.foreign
    assert await kernel.apply([DeleteLink(BRIDGE)]) == []
    assert not (await kernel.read()).links


async def test_creating_what_is_there_brings_it_to_what_is_wanted(kernel: LinuxKernel) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)]) == []
    bridge = Bridge(BRIDGE.name, bytes.fromhex("026b00000002"), 1400, True)
    tunnel = Vxlan(TUNNEL.name, TUNNEL.vni, TUNNEL.local, 1400, bridge.name, isolated=True)

    assert await kernel.apply([CreateLink(bridge), CreateLink(tunnel)]) == []

    assert (await kernel.read()).links == {bridge.name: bridge, tunnel.name: tunnel}


async def test_one_failure_does_not_stop_the_rest(kernel: LinuxKernel) -> None:
    mac = bytes.fromhex("020000000001")
    good = [
        CreateLink(BRIDGE),
        CreateLink(TUNNEL),
        ReplaceVtep(VtepEntry(TUNNEL.name, mac, bytes([198, 18, 0, 2]))),
        ReplacePort(PortEntry(TUNNEL.name, mac)),
        ReplaceNeighbour(Neighbour(BRIDGE.name, bytes([10, 1, 0, 2]), mac)),
    ]
    nowhere = ReplaceNeighbour(Neighbour("kvb0000000000ff", bytes([10, 1, 0, 2]), mac))
    invalid = ReplaceNeighbour(Neighbour(BRIDGE.name, bytes([224, 0, 0, 1]), mac[:2]))

    failures = await kernel.apply([*good[:3], nowhere, invalid, *good[3:]])

    assert [failure.operation for failure in failures] == [nowhere, invalid]
    assert failures[0].errno == errno.ENODEV
    state = await kernel.read()
    assert (len(state.vteps), len(state.ports), len(state.neighbours)) == (1, 1, 1)


async def test_a_flood_list_has_many_members(kernel: LinuxKernel) -> None:
    flood = [VtepEntry(TUNNEL.name, bytes(6), bytes([198, 18, 0, last])) for last in (2, 3, 4)]

    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL), *map(ReplaceVtep, flood)]) == []
    assert await kernel.apply([*map(ReplaceVtep, flood)]) == []

    assert (await kernel.read()).vteps == set(flood)


async def test_a_tunnel_over_ipv6_is_read_back(kernel: LinuxKernel) -> None:
    local = bytes([0xFD, *bytes(14), 1])
    tunnel = Vxlan(TUNNEL.name, 78, local, 1430, BRIDGE.name)
    entry = VtepEntry(tunnel.name, bytes.fromhex("020000000001"), bytes([0xFD, *bytes(14), 2]))

    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(tunnel), ReplaceVtep(entry)]) == []

    state = await kernel.read()
    assert state.links[tunnel.name] == tunnel
    assert state.vteps == {entry}
