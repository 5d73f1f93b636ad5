"""A host with one network of each kind of treatment by the firewall, and a neighbour outside: who reaches whom.

    a  plain, publishes ports      b  plain             c  ICC off, publishes a port
    i  internal                    p  peered with a     n  not masqueraded
    r  routed: the other half of its range is behind `outside`, which has an address in there

Driven by operations alone: no controller, no worker, no driver.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from datapath.objects import (
    AddAddress,
    Bridge,
    ContainerSide,
    CreateLink,
    Firewall,
    InterfaceAddress,
    Neighbour,
    Operation,
    Publication,
    ReplaceNeighbour,
    ReplaceRoute,
    Route,
    SetFirewall,
    SetSysctl,
    Veth,
)
from lab import namespaces
from tests.lab.kernel.bed import made, opened
from worker.kernel.linux import LinuxKernel

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
LISTENING = 8080
REACH_SECONDS = 0.4
NUMBER = {"a": 1, "b": 2, "i": 3, "c": 4, "p": 5, "r": 6, "n": 7}
PLACES = {  # workload -> (network, last byte of its address)
    "a1": ("a", 2),
    "a2": ("a", 3),
    "b1": ("b", 2),
    "i1": ("i", 2),
    "i2": ("i", 3),
    "c1": ("c", 2),
    "c2": ("c", 3),
    "p1": ("p", 2),
    "r1": ("r", 2),
    "n1": ("n", 2),
}
BRIDGES = {name: f"kvb{number:012x}" for name, number in NUMBER.items()} | {"p": "br-peer.1"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8::2"}
HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
REMOTE = {4: "10.1.6.129", 6: "fd00:1:6:0:8000::9"}  # a workload of network r on another host, played by `outside`
EVERYWHERE, AT_HOST, ON_LOOPBACK, OF_ISOLATED = 80, 81, 82, 83  # published ports
LOOPBACK = bytes([127, 0, 0, 1])


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def address(place: str, family: int) -> str:
    if place == "outside":
        return OUTSIDE[family]
    if place == "host":
        return HOST[family]
    network, last = PLACES[place]
    return f"10.1.{NUMBER[network]}.{last}" if family == 4 else f"fd00:1:{NUMBER[network]}::{last}"


def gateway(network: str, family: int) -> str:
    return f"10.1.{NUMBER[network]}.1" if family == 4 else f"fd00:1:{NUMBER[network]}::1"


def range_of(network: str, family: int) -> tuple[bytes, int]:
    number = NUMBER[network]
    return (packed(f"10.1.{number}.0"), 24) if family == 4 else (packed(f"fd00:1:{number}::"), 64)


@dataclass(slots=True)
class Site:
    kernel: LinuxKernel
    netns: dict[str, Path]
    firewall: Firewall

    async def reach(
        self, source: str, target: str, to: str, port: int = LISTENING, protocol: int = TCP, bind: str = ""
    ) -> str | None:
        """Whether `source` that asks `to` is answered by `target`: as whom that one sees it. None = it is not."""
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        with (
            namespaces.open_socket(self.netns[target], family, kind, 0) as server,
            namespaces.open_socket(self.netns[source], family, kind, 0) as caller,
        ):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((to if target == "outside" else "", LISTENING))  # it has two addresses
            server.setblocking(False)
            caller.setblocking(False)
            if bind:
                caller.bind((bind, 0))
            try:
                async with asyncio.timeout(REACH_SECONDS):
                    ask = _stream if protocol == TCP else _datagram
                    return await ask(server, caller, (to, port))
            except (TimeoutError, OSError):
                return None


async def _stream(server: socket.socket, caller: socket.socket, to: tuple[str, int]) -> str:
    loop = asyncio.get_running_loop()
    server.listen()
    await loop.sock_connect(caller, to)
    made, peer = await loop.sock_accept(server)
    with made:
        await loop.sock_sendall(made, b"hello")
        assert await loop.sock_recv(caller, 16) == b"hello"
    return str(peer[0])


async def _datagram(server: socket.socket, caller: socket.socket, to: tuple[str, int]) -> str:
    """The caller is connected, so an answer from another address than it asked does not count."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(caller, to)
    await loop.sock_sendall(caller, b"hello?")
    _, peer = await loop.sock_recvfrom(server, 16)
    await loop.sock_sendto(server, b"hello", peer)
    assert await loop.sock_recv(caller, 16) == b"hello"
    return str(peer[0])


def firewall() -> Firewall:
    ranges = {family: {name: range_of(name, family) for name in NUMBER} for family in (4, 6)}
    publications = set()
    for protocol in (TCP, UDP):
        for family in (4, 6):
            a1, c1 = packed(address("a1", family)), packed(address("c1", family))
            publications |= {
                Publication(protocol, b"", EVERYWHERE, a1, LISTENING),
                Publication(protocol, packed(HOST[family]), AT_HOST, a1, LISTENING),
                Publication(protocol, b"", OF_ISOLATED, c1, LISTENING),
            }
        to = packed(address("a1", 4))
        publications.add(Publication(protocol, LOOPBACK, ON_LOOPBACK, to, LISTENING))
    outgoing = [name for name in NUMBER if name not in ("i", "n")]
    return Firewall(
        bridges=frozenset(BRIDGES.values()),
        internal=frozenset({BRIDGES["i"]}),
        isolated=frozenset({BRIDGES["c"]}),
        pairs=frozenset({(BRIDGES["a"], BRIDGES["p"]), (BRIDGES["p"], BRIDGES["a"])}),
        within=frozenset((BRIDGES["r"], ranges[family]["r"]) for family in (4, 6)),
        blocks=frozenset(block for family in (4, 6) for block in ranges[family].values()),
        subnets4=frozenset(ranges[4][name] for name in outgoing),
        subnets6=frozenset(ranges[6][name] for name in outgoing),
        publications=frozenset(publications),
    )


@asynccontextmanager
async def open_site(*, is_filtering_bridged: bool) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        host, outside = made(stack, "host"), made(stack, "outside")
        places = {name: made(stack, name) for name in PLACES}
        kernel = await opened(stack, host)
        filtering = "1" if is_filtering_bridged else "0"
        operations: list[Operation] = [
            SetSysctl("net/ipv4/ip_forward", "1"),
            SetSysctl("net/ipv6/conf/all/forwarding", "1"),
            SetSysctl("net/ipv6/conf/default/accept_dad", "0"),
            SetSysctl("net/bridge/bridge-nf-call-iptables", filtering),
            SetSysctl("net/bridge/bridge-nf-call-ip6tables", filtering),
        ]
        for name in NUMBER:
            operations += _network(name)
        for place in PLACES:
            operations += _workload(place, places[place])
        assert await kernel.apply(operations) == []
        await _cable(stack, host, outside)
        content = firewall()
        beyond = [Route(packed(f"{REMOTE[4][:-1]}8"), 31, "", gateway=packed(OUTSIDE[4]))]
        beyond.append(Route(packed("fd00:1:6:0:8000::"), 65, "", gateway=packed(OUTSIDE[6])))
        last: list[Operation] = [SetFirewall(content), *map(ReplaceRoute, beyond)]
        assert await kernel.apply(last) == []
        yield Site(kernel, {**places, "outside": outside, "host": host}, content)


def _network(name: str) -> list[Operation]:
    device, number = BRIDGES[name], NUMBER[name]
    operations: list[Operation] = [CreateLink(Bridge(device, bytes([2, 0x6B, 0, 0, 0, number]), 1500, True))]
    if name != "i":
        for family in (4, 6):
            block, length = range_of(name, family)
            operations.append(AddAddress(InterfaceAddress(device, packed(gateway(name, family)), length)))
            operations.append(ReplaceRoute(Route(block, length, device)))
    if name == "a":
        operations.append(SetSysctl(f"net/ipv4/conf/{device}/route_localnet", "1"))
    return operations


def _workload(place: str, netns: Path) -> list[Operation]:
    network, last = PLACES[place]
    # The network r has only one half of its range here.
    lengths = (25, 65) if network == "r" else (24, 64)
    own = tuple((packed(address(place, family)), length) for family, length in zip((4, 6), lengths, strict=True))
    ways = tuple(packed(gateway(network, family)) for family in (4, 6) if network != "i")
    mac = bytes([2, 0, 0, 0, NUMBER[network], last])
    side = ContainerSide(str(netns), "eth0", mac, 1500, own, ways)
    is_publishing = place in ("a1", "c1")
    veth = Veth(f"kve{place:0>12}", 1500, BRIDGES[network], isolated=network == "c", hairpin=is_publishing)
    neighbours = (Neighbour(veth.bridge, packed(address(place, family)), mac) for family in (4, 6))
    return [CreateLink(veth, side), *map(ReplaceNeighbour, neighbours)]


async def _cable(stack: AsyncExitStack, host: Path, outside: Path) -> None:
    """From `outside` to the host; `outside` knows a way to our networks, and must still not get in."""
    cable = await opened(stack, outside)
    bridge = Bridge("kvbuplink", bytes.fromhex("026c00000001"), 1500, True)
    addresses = ((packed(HOST[4]), 24), (packed(HOST[6]), 64))
    side = ContainerSide(str(host), "uplink", bytes.fromhex("026c00000002"), 1500, addresses, ())
    ways: list[Operation] = [
        SetSysctl("net/ipv6/conf/default/accept_dad", "0"),
        CreateLink(bridge),
        CreateLink(Veth("kveuplink", 1500, bridge.name), side),
        AddAddress(InterfaceAddress(bridge.name, packed(OUTSIDE[4]), 24)),
        AddAddress(InterfaceAddress(bridge.name, packed(OUTSIDE[6]), 64)),
        AddAddress(InterfaceAddress(bridge.name, packed(REMOTE[4]), 32)),
        AddAddress(InterfaceAddress(bridge.name, packed(REMOTE[6]), 128)),
        ReplaceRoute(Route(packed("192.0.2.0"), 24, bridge.name, source=packed(OUTSIDE[4]))),
        ReplaceRoute(Route(packed("2001:db8::"), 64, bridge.name, source=packed(OUTSIDE[6]))),
        ReplaceRoute(Route(packed("10.1.0.0"), 16, bridge.name, packed(OUTSIDE[4]), packed(HOST[4]))),
        ReplaceRoute(Route(packed("fd00:1::"), 32, bridge.name, packed(OUTSIDE[6]), packed(HOST[6]))),
    ]
    assert await cable.apply(ways) == []
