"""Packets on the real kernel: every path between networks, the host and the world, and as whom the other end sees one.

Each with `br_netfilter` on (frames inside a bridge pass our chains too) and off, TCP and UDP, IPv4 and IPv6.
"""

from __future__ import annotations

import pathlib
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from struct import pack

import pytest

from datapath.objects import Route, SetFirewall
from lab import namespaces
from tests.lab.kernel.bed import nft
from tests.lab.kernel.site import (
    AT_HOST,
    EVERYWHERE,
    HOST,
    LISTENING,
    NUMBER,
    OF_ISOLATED,
    ON_LOOPBACK,
    OUTSIDE,
    PLACES,
    REMOTE,
    TCP,
    UDP,
    Site,
    address,
    gateway,
    open_site,
    packed,
)
from worker.kernel import messages as m
from worker.kernel.netlink import Netlink

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

Path = tuple[str, str, str, int]  # who asks whom, under which address and port


@pytest.fixture(params=[True, False], ids=["bridged-frames-filtered", "bridged-frames-not-filtered"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with open_site(is_filtering_bridged=request.param) as made:
        yield made


async def seen(site: Site, paths: dict[Path, str | None], protocol: int = TCP) -> dict[Path, str | None]:
    return {path: await site.reach(*path, protocol=protocol) for path in paths}


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
async def test_every_direct_path_is_open_or_closed_as_meant(site: Site, family: int, protocol: int) -> None:
    def at(place: str) -> str:
        return address(place, family)

    def direct(source: str, target: str) -> Path:
        return source, target, at(target), LISTENING

    def as_itself(source: str, target: str) -> tuple[Path, str]:
        return direct(source, target), at(source)

    closed = [
        ("a1", "b1"),
        ("b1", "a1"),
        ("b1", "p1"),
        ("a1", "i1"),
        ("a1", "r1"),
        ("c1", "c2"),
        ("i1", "a1"),
        ("i1", "outside"),
        ("outside", "a1"),
        ("outside", "i1"),
        ("outside", "n1"),
        ("outside", "r1"),
    ]
    paths: dict[Path, str | None] = dict.fromkeys((direct(*ends) for ends in closed), None)
    paths |= [as_itself(*ends) for ends in (("a1", "a2"), ("i1", "i2"), ("a1", "p1"), ("p1", "a1"))]
    paths |= [(direct(source, "outside"), HOST[family]) for source in ("a1", "c1", "p1", "r1")]
    paths |= [as_itself("n1", "outside")]
    paths |= [(("r1", "outside", REMOTE[family], LISTENING), at("r1"))]

    assert await seen(site, paths, protocol) == paths


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
async def test_a_published_port_is_reached_from_everywhere(site: Site, family: int, protocol: int) -> None:
    host, a_gateway = HOST[family], gateway("a", family)
    paths: dict[Path, str | None] = {
        ("outside", "a1", host, EVERYWHERE): OUTSIDE[family],
        ("outside", "a1", host, AT_HOST): OUTSIDE[family],
        ("outside", "c1", host, OF_ISOLATED): OUTSIDE[family],
        ("host", "a1", host, EVERYWHERE): host,
        ("host", "a1", a_gateway, EVERYWHERE): a_gateway,
        ("b1", "a1", host, EVERYWHERE): address("b1", family),
        ("b1", "a1", gateway("b", family), EVERYWHERE): address("b1", family),
        ("c2", "a1", host, EVERYWHERE): address("c2", family),
        ("a2", "a1", host, EVERYWHERE): a_gateway,  # back into the own network: else the answer would go past us
        ("a2", "a1", a_gateway, EVERYWHERE): a_gateway,
        ("a1", "a1", host, EVERYWHERE): a_gateway,  # and to itself
        ("outside", "a1", host, EVERYWHERE + 20): None,
        ("outside", "a1", gateway("a", family), AT_HOST): None,  # published at another address
        ("i1", "a1", host, EVERYWHERE): None,
    }

    assert await seen(site, paths, protocol) == paths


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
async def test_the_host_reaches_a_published_port_at_its_loopback_address(site: Site, protocol: int) -> None:
    paths: dict[Path, str | None] = {
        ("host", "a1", "127.0.0.1", EVERYWHERE): gateway("a", 4),
        ("host", "a1", "127.0.0.1", ON_LOOPBACK): gateway("a", 4),
        ("outside", "a1", HOST[4], ON_LOOPBACK): None,
        ("host", "a1", "::1", EVERYWHERE): None,  # Linux leads nothing on from ::1; a program tries 127.0.0.1 next
    }

    assert await seen(site, paths, protocol) == paths


async def test_a_port_at_the_ipv6_loopback_is_refused_at_once(site: Site) -> None:
    with namespaces.open_socket(site.netns["host"], socket.AF_INET6, socket.SOCK_STREAM, 0) as caller:
        caller.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            caller.connect(("::1", EVERYWHERE))


@pytest.mark.parametrize("target", ["a port published at 127.0.0.1", "a service of the host's at 127.0.0.1"])
async def test_a_workload_does_not_reach_the_hosts_loopback_by_forged_frames(site: Site, target: str) -> None:
    """route_localnet lets the answers back in; a workload that sends to 127.0.0.1 itself must find nothing there."""
    is_published = target.startswith("a port")
    place, at, port = ("a1", "", LISTENING) if is_published else ("host", "127.0.0.1", 99)
    with (
        namespaces.open_socket(site.netns[place], socket.AF_INET, socket.SOCK_DGRAM, 0) as service,
        namespaces.open_socket(site.netns["a2"], socket.AF_PACKET, socket.SOCK_RAW, 0) as forger,
    ):
        service.bind((at, port))
        service.setblocking(False)
        for source in (address("a2", 4), "127.0.0.1"):
            forger.sendto(forged(source, ON_LOOPBACK if is_published else port), ("eth0", 0x0800))
        # What was sent before has arrived once this has, if only the way is open.
        assert await site.reach("a2", "a1", address("a1", 4), protocol=TCP)
        with pytest.raises(BlockingIOError):
            service.recv(16)


def forged(source: str, port: int) -> bytes:
    """A datagram to 127.0.0.1, in a frame to the gateway of network a."""
    data = pack(">HHHH", 4000, port, 8 + 4, 0) + b"evil"
    head = pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, UDP, 0, packed(source), packed("127.0.0.1"))
    words = sum(int.from_bytes(head[i : i + 2], "big") for i in range(0, 20, 2))
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    head = head[:10] + pack(">H", checksum) + head[12:]
    network, last = PLACES["a2"]
    ethernet = bytes([2, 0x6B, 0, 0, 0, NUMBER[network]]) + bytes([2, 0, 0, 0, NUMBER[network], last]) + b"\x08\x00"
    return ethernet + head + data


async def test_without_icc_the_gateway_is_no_way_around_it(site: Site) -> None:
    def run() -> None:
        rtnetlink = Netlink()
        index = socket.if_nametoindex("eth0")
        over = Route(packed(address("c2", 4)), 32, "eth0", gateway=packed(gateway("c", 4)))
        assert rtnetlink.request([m.workload_route(over, index)]) == []
        rtnetlink.close()

    namespaces.call(site.netns["c1"], run)

    assert await site.reach("c1", "c2", address("c2", 4)) is None
    assert await site.reach("c1", "outside", OUTSIDE[4]) == HOST[4]


async def test_a_workload_that_claims_a_remote_address_does_not_get_into_another_network(site: Site) -> None:
    """Who is behind another host may come in; only the host's own links are believed to lead there."""
    assert await site.reach("outside", "r1", address("r1", 4), bind=REMOTE[4]) == REMOTE[4]

    def run() -> None:
        rtnetlink = Netlink()
        index = socket.if_nametoindex("eth0")
        assert rtnetlink.request([m.address(index, packed(REMOTE[4]), 32)]) == []
        rtnetlink.close()

    namespaces.call(site.netns["b1"], run)
    with (
        namespaces.open_socket(site.netns["r1"], socket.AF_INET, socket.SOCK_DGRAM, 0) as service,
        namespaces.open_socket(site.netns["b1"], socket.AF_INET, socket.SOCK_DGRAM, 0) as caller,
    ):
        service.bind(("", LISTENING))
        service.setblocking(False)
        caller.bind((REMOTE[4], 0))
        caller.sendto(b"evil", (address("r1", 4), LISTENING))
        assert await site.reach("b1", "outside", OUTSIDE[4]) == HOST[4]
        with pytest.raises(BlockingIOError):
            service.recv(16)


async def test_what_goes_to_a_bridge_of_dockers_bears_no_mark_but_for_answers_of_published_ports(site: Site) -> None:
    """The chain stands for Docker's own rules, and for the one in iptables' FORWARD that takes our mark."""
    theirs = {"docker0": "198.18.5.2", "br-0123456789ab": "198.18.6.2", "br-lan": "198.18.7.2"}
    known = frozenset({"docker0", "docker_gwbridge", "br-0123456789ab"})
    assert await site.kernel.apply([SetFirewall(replace(site.firewall, dockers=known))]) == []
    chain = "chain f {\n type filter hook forward priority 0; policy drop; meta mark & 0x80000 == 0x80000 accept\n }"
    nft(site.netns["host"], f"table inet theirs {{\n {chain}\n}}")
    with ExitStack() as stack:
        for bridge, own in theirs.items():
            site.netns[bridge] = beside(stack, site.netns["host"], bridge, own)

            found = await site.reach("a1", bridge, own)
            assert (found is not None) == (bridge not in known), bridge
            back = await site.reach(bridge, "a1", str(ip_address(own) - 1), EVERYWHERE)
            assert back == own, "a published port is for everybody"
            assert await site.reach(bridge, "a1", address("a1", 4)) is None, "and nothing else"
        assert await site.reach("a1", "outside", OUTSIDE[4]) == HOST[4]


def beside(stack: ExitStack, host: pathlib.Path, bridge: str, own: str) -> pathlib.Path:
    """A container on a bridge of somebody else's, which has the address before its own."""
    number = int(own.split(".")[2])
    container = namespaces.create(f"beside{number}")
    stack.callback(namespaces.destroy, container)
    gate = ip_address(own) - 1
    lines = [f"link add {bridge} type bridge", f"addr add {gate}/24 dev {bridge}", f"link set {bridge} up"]
    lines += [f"link add beside{number} master {bridge} type veth peer name eth0 netns {container}"]
    ip(host, *lines, f"link set beside{number} up")
    ip(container, f"addr add {own}/24 dev eth0", "link set eth0 up", f"route add default via {gate}")
    return container


def ip(netns: pathlib.Path, *lines: str) -> None:
    command = ["nsenter", f"--net={netns}", "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), text=True, check=True, timeout=10)


async def test_what_an_operator_drops_stays_dropped_whatever_the_priority(site: Site) -> None:
    for priority in (-200, -10, 0, 100):
        chain = f"chain f {{\n type filter hook forward priority {priority}; ct state new drop\n }}"
        nft(site.netns["host"], f"table inet mine {{\n {chain}\n}}")
        assert await site.reach("a1", "outside", OUTSIDE[4]) is None
        assert await site.reach("outside", "a1", HOST[4], EVERYWHERE) is None
        nft(site.netns["host"], "delete table inet mine")
    assert await site.reach("a1", "outside", OUTSIDE[4]) == HOST[4]


async def test_what_an_operator_translates_is_his(site: Site) -> None:
    text = (
        "table ip mine {\n chain p {\n type nat hook prerouting priority -100;"
        f" tcp dport {EVERYWHERE} dnat to {address('b1', 4)}:{LISTENING}\n }}\n}}"
    )
    nft(site.netns["host"], text)

    assert await site.reach("outside", "b1", HOST[4], EVERYWHERE) == OUTSIDE[4]


async def test_a_change_of_a_publications_target_is_one_step(site: Site) -> None:
    held = site.firewall.publications
    moved = frozenset(p._replace(to=packed(address("b1", 4 if len(p.to) == 4 else 6))) for p in held)
    wanted = replace(site.firewall, publications=moved)

    assert await site.kernel.apply([SetFirewall(wanted)]) == []

    assert (await site.kernel.read()).firewall == wanted
    assert await site.reach("outside", "b1", HOST[4], EVERYWHERE) == OUTSIDE[4]
    assert await site.reach("outside", "a1", HOST[4], EVERYWHERE) is None
