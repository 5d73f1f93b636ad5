"""The nftables tables: who reaches whom, and what happens when somebody changes them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from datapath.objects import (
    AddAddress,
    Bridge,
    ContainerSide,
    CreateLink,
    Firewall,
    Hint,
    InterfaceAddress,
    Operation,
    Publication,
    ReplaceRoute,
    Route,
    SetFirewall,
    SetSysctl,
    Veth,
)
from kvnet.errors import Unfit
from lab import namespaces
from tests.lab.kernel.bed import can_connect, made, opened
from worker.kernel.firewall import find_nft
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SOME = Firewall(
    bridges=frozenset({"kvb0000000000aa", "kvb0000000000bb"}),
    internal=frozenset({"kvb0000000000bb"}),
    subnets4=frozenset({(bytes([10, 1, 0, 0]), 24), (bytes([10, 1, 1, 0]), 24), (bytes([255, 255, 255, 0]), 24)}),
    subnets6=frozenset({(bytes([0xFD, *bytes(15)]), 64), (bytes([0xFD, *bytes(6), 1, *bytes(8)]), 64)}),
    vxlans=frozenset({"kvx0000000000aa"}),
    gateway_macs=frozenset({bytes.fromhex("026b00000001")}),
    isolated=frozenset({"kvb0000000000bb"}),
    pairs=frozenset({("kvb0000000000aa", "br-lan.7"), ("br-lan.7", "kvb0000000000aa"), ("br-x", "br-x")}),
    within=frozenset(
        {
            ("kvb0000000000aa", (bytes([10, 1, 0, 0]), 16)),
            ("kvb0000000000aa", (bytes([198, 18, 0, 2]), 32)),
            ("br-lan.7", (bytes([10, 1, 0, 0]), 16)),
            ("br-lan.7", (bytes([0xFD, *bytes(15)]), 64)),
            ("br-lan.7", (bytes([0xFE, *bytes(14), 9]), 128)),
        }
    ),
    blocks=frozenset({(bytes([10, 1, 0, 0]), 24), (bytes([10, 1, 1, 0]), 24), (bytes([0xFD, *bytes(15)]), 64)}),
    publications=frozenset(
        {
            Publication(TCP, b"", 80, bytes([10, 1, 0, 2]), 8080),
            Publication(UDP, b"", 80, bytes([10, 1, 0, 2]), 8080),
            Publication(UDP, bytes([192, 0, 2, 1]), 53, bytes([10, 1, 0, 3]), 53),
            Publication(TCP, b"", 80, bytes([0xFD, *bytes(14), 2]), 8080),
            Publication(TCP, bytes([0xFD, *bytes(14), 7]), 65535, bytes([0xFD, *bytes(14), 2]), 1),
        }
    ),
)


def nft(netns: Path, text: str) -> str:
    """As an administrator would, in the host's namespace."""
    arguments = [find_nft(), "-f", "-"]
    done = namespaces.call(
        netns, lambda: subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=10, check=False)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def content(kernel: LinuxKernel) -> Firewall | None:
    return (await kernel.read()).firewall


async def test_what_was_set_is_read_back(kernel: LinuxKernel) -> None:
    assert await content(kernel) is None, "no tables yet"

    assert await kernel.apply([SetFirewall(SOME)]) == []

    assert await content(kernel) == SOME


async def test_a_change_of_content_leaves_the_rules_sealed(kernel: LinuxKernel) -> None:
    await kernel.apply([SetFirewall(SOME)])
    less = Firewall(bridges=frozenset({"kvb0000000000aa"}), subnets4=frozenset({(bytes([10, 1, 0, 0]), 23)}))

    assert await kernel.apply([SetFirewall(less)]) == []
    assert await content(kernel) == less
    assert await kernel.apply([SetFirewall(Firewall())]) == []
    assert await content(kernel) == Firewall()


async def test_a_restarted_worker_finds_its_rules_intact(kernel: LinuxKernel, netns: Path) -> None:
    await kernel.apply([SetFirewall(SOME)])

    async with await LinuxKernel.open(netns=str(netns)) as again:
        assert await content(again) == SOME


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table inet kvnet",
        "delete table bridge kvnet",
        "add rule inet kvnet forward accept",
        "insert rule inet kvnet from_ours accept",
        "flush chain inet kvnet postrouting",
        "flush chain bridge kvnet forward",
        "add chain inet kvnet mine { type filter hook forward priority 0; policy drop; }",
        "add table inet kvnet { flags dormant; }",
        'delete element inet kvnet loops { "kvb0000000000aa" . "kvb0000000000aa" }',
        'add element inet kvnet same { "kvb0000000000aa" . "eth0" }',
        "delete element inet kvnet same4 { 10.1.0.0/24 . 10.1.0.0/24 }",
        "add element inet kvnet same4 { 10.1.0.0/24 . 10.9.0.0/24 }",
        'add element inet kvnet within4 { "br-x" . 10.9.0.1-10.9.0.5 }',
    ],
)
async def test_damage_is_seen_and_repaired(kernel: LinuxKernel, netns: Path, damage: str) -> None:
    await kernel.apply([SetFirewall(SOME)])
    nft(netns, damage)

    assert await content(kernel) is None

    assert await kernel.apply([SetFirewall(SOME)]) == []
    assert await content(kernel) == SOME


async def test_a_foreign_flush_is_hinted_at_at_once(kernel: LinuxKernel, netns: Path) -> None:
    await kernel.apply([SetFirewall(SOME)])
    hints = kernel.hints()
    waiting = asyncio.ensure_future(anext(hints))
    await _listening(kernel)

    nft(netns, "flush ruleset")

    async with asyncio.timeout(1.0):
        assert (await waiting) == Hint(firewall=True)
    await hints.aclose()


async def test_other_tables_are_left_alone_and_are_no_hint(kernel: LinuxKernel, netns: Path) -> None:
    foreign = "table ip docker {\n chain forward {\n type filter hook forward priority 0; policy accept;\n }\n}\n"
    nft(netns, foreign)
    before = nft(netns, "list table ip docker")

    await kernel.apply([SetFirewall(SOME)])
    await kernel.apply([SetFirewall(Firewall())])

    assert nft(netns, "list table ip docker") == before


@pytest.mark.parametrize("name", ['kvb"; flush ruleset; "', "kvb a", "kvb*", "kvb0 }", "kvb\n", "", "-x", "x" * 16])
async def test_a_name_that_could_break_out_of_the_rules_is_refused(kernel: LinuxKernel, netns: Path, name: str) -> None:
    nft(netns, "add table ip canary")

    (failure,) = await kernel.apply([SetFirewall(Firewall(bridges=frozenset({name})))])

    assert "cannot be the name of a device" in failure.reason
    assert "canary" in nft(netns, "list tables")


def test_a_missing_program_is_named_with_what_to_install() -> None:
    with pytest.raises(Unfit) as caught:
        find_nft({"PATH": "/nonexistent", "KVNET_NFT": "/nonexistent/nft"})
    assert "KVNET_NFT" in caught.value.detail


# --- packets -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Site:
    """A host with networks a and b and an internal network i, and a neighbour on its uplink."""

    kernel: LinuxKernel
    netns: dict[str, Path]


PLACES = {  # workload -> (network, last byte of its address)
    "a1": ("a", 2),
    "a2": ("a", 3),
    "b1": ("b", 2),
    "i1": ("i", 2),
    "i2": ("i", 3),
}
NUMBER = {"a": 1, "b": 2, "i": 3}


def address(place: str, family: int) -> str:
    if place == "outside":
        return "192.0.2.2" if family == 4 else "2001:db8::2"
    network, last = PLACES[place]
    return f"10.1.{NUMBER[network]}.{last}" if family == 4 else f"fd00:1:{NUMBER[network]}::{last}"


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


@pytest.fixture(params=["1", "0"], ids=["bridged-frames-filtered", "bridged-frames-not-filtered"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        host, outside = made(stack, "host"), made(stack, "outside")
        places = {name: made(stack, name) for name in PLACES}
        kernel = await opened(stack, host)
        operations: list[Operation] = [
            SetSysctl("net/ipv4/ip_forward", "1"),
            SetSysctl("net/ipv6/conf/all/forwarding", "1"),
            SetSysctl("net/bridge/bridge-nf-call-iptables", request.param),
            SetSysctl("net/bridge/bridge-nf-call-ip6tables", request.param),
        ]
        bridges = {name: f"kvb{number:012x}" for name, number in NUMBER.items()}
        for name, device in bridges.items():
            number = NUMBER[name]
            operations.append(CreateLink(Bridge(device, bytes([2, 0x6B, 0, 0, 0, number]), 1500, True)))
            if name != "i":
                for text, length in ((f"10.1.{number}.1", 24), (f"fd00:1:{number}::1", 64)):
                    operations.append(AddAddress(InterfaceAddress(device, packed(text), length)))
                    prefix = packed(text)[: length // 8] + bytes(len(packed(text)) - length // 8)
                    operations.append(ReplaceRoute(Route(prefix, length, device)))
        for place, (name, last) in PLACES.items():
            own = [(packed(address(place, 4)), 24), (packed(address(place, 6)), 64)]
            ways = [packed(f"10.1.{NUMBER[name]}.1"), packed(f"fd00:1:{NUMBER[name]}::1")]
            mac = bytes([2, 0, 0, 0, NUMBER[name], last])
            side = ContainerSide(str(places[place]), "eth0", mac, 1500, tuple(own), tuple(ways if name != "i" else []))
            operations.append(CreateLink(Veth(f"kve{place:0>12}", 1500, bridges[name]), side))
        operations += await _uplink(stack, host, outside)
        blocks = [(packed(f"10.1.{n}.0"), 24) for n in (1, 2)], [(packed(f"fd00:1:{n}::"), 64) for n in (1, 2)]
        operations.append(
            SetFirewall(
                Firewall(
                    bridges=frozenset(bridges.values()),
                    internal=frozenset({bridges["i"]}),
                    subnets4=frozenset(blocks[0]),
                    subnets6=frozenset(blocks[1]),
                )
            )
        )
        assert await kernel.apply(operations) == []
        yield Site(kernel, {**places, "outside": outside, "host": host})


async def _uplink(stack: AsyncExitStack, host: Path, outside: Path) -> list[Operation]:
    """A cable from `outside` to the host; `outside` knows a way to our networks, and must still not get in."""
    cable = await opened(stack, outside)
    bridge = Bridge("kvbuplink", bytes.fromhex("026c00000001"), 1500, True)
    addresses = ((packed("192.0.2.1"), 24), (packed("2001:db8::1"), 64))
    side = ContainerSide(str(host), "uplink", bytes.fromhex("026c00000002"), 1500, addresses, ())
    ways: list[Operation] = [
        CreateLink(bridge),
        CreateLink(Veth("kveuplink", 1500, bridge.name), side),
        AddAddress(InterfaceAddress(bridge.name, packed("192.0.2.2"), 24)),
        AddAddress(InterfaceAddress(bridge.name, packed("2001:db8::2"), 64)),
        ReplaceRoute(Route(packed("192.0.2.0"), 24, bridge.name)),
        ReplaceRoute(Route(packed("2001:db8::"), 64, bridge.name)),
        ReplaceRoute(Route(packed("10.1.0.0"), 16, bridge.name, gateway=packed("192.0.2.1"))),
        ReplaceRoute(Route(packed("fd00:1::"), 32, bridge.name, gateway=packed("2001:db8::1"))),
    ]
    assert await cable.apply(ways) == []
    return []


@pytest.mark.parametrize("family", [4, 6])
async def test_every_path_is_open_or_closed_as_meant(site: Site, family: int) -> None:
    paths = {
        ("a1", "a2"): True,
        ("i1", "i2"): True,
        ("a1", "outside"): True,
        ("a1", "b1"): False,
        ("b1", "a1"): False,
        ("a1", "i1"): False,
        ("i1", "outside"): False,
        ("outside", "a1"): False,
        ("outside", "i1"): False,
    }

    async def is_open(source: str, target: str) -> bool:
        return await can_connect(site.netns[source], site.netns[target], address(target, family))

    got = {path: await is_open(*path) for path in paths}

    assert got == paths


async def _listening(kernel: LinuxKernel) -> None:
    """Whatever ran in the kernel thread before this has opened its sockets."""
    for _ in range(3):
        await kernel.has_namespace("/proc/self/ns/net")
        await asyncio.sleep(0)
