"""Tracked connections of an address end; those of others do not."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.objects import ForgetCallers, ForgetFlows
from lab import namespaces
from lab.lab import until
from tests.lab.kernel.physical import cable, give
from worker.kernel.conntrack import AF_INET, AF_INET6, Flow, Flows, dump_flows, parsed
from worker.kernel.firewall import find_nft
from worker.kernel.linux import LinuxKernel
from worker.kernel.netlink import NETLINK_NETFILTER, Netlink

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

HOST, PEER = ("192.0.2.10", "2001:db8::10"), ("192.0.2.1", "2001:db8::1")
BYSTANDERS = ("192.0.2.77", "2001:db8::77")  # of the same families
UDP = 17
TRACKING = (
    "table inet track { chain out { type filter hook output priority 0; ct state new accept; }; "
    "chain in { type filter hook input priority 0; ct state new accept; }; }"
)


@pytest.fixture
def lan(netns: Path) -> Iterator[Path]:
    """Connections are tracked here as soon as a rule asks for their state."""
    path = namespaces.create("lan")
    cable(netns, path, addresses=[f"{a}/{24 if i % 2 == 0 else 64}" for i, a in enumerate(PEER + BYSTANDERS)])
    give(netns, "up0", "192.0.2.10/24")
    give(netns, "up0", "2001:db8::10/64")
    namespaces.call(netns, lambda: subprocess.run([find_nft(), TRACKING], check=True))
    yield path
    namespaces.destroy(path)


def packed(text: str) -> bytes:
    return ip_address(text).packed


def talk(netns: Path, target: str, *ports: int) -> None:
    """One datagram to each port: a flow whose replier is the target."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with ExitStack() as stack:
        for port in ports:
            made = stack.enter_context(namespaces.open_socket(netns, family, socket.SOCK_DGRAM, 0))
            made.sendto(b"x", (target, port))


def flows(netns: Path) -> set[tuple[bytes, int]]:
    """(replier, port) of all UDP flows."""

    def read() -> list[Flow]:
        with closing(Netlink(NETLINK_NETFILTER)) as netlink:
            bodies = [body for family in (AF_INET, AF_INET6) for body in netlink.dump(dump_flows(family))]
        return [flow for body in bodies if (flow := parsed(body)) is not None]

    return {(flow.replier, flow.port) for flow in namespaces.call(netns, read) if flow.protocol == UDP}


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_the_flows_of_a_published_port_end_and_no_others(
    kernel: LinuxKernel, netns: Path, lan: Path, family: int
) -> None:
    for peer in PEER + BYSTANDERS:
        talk(netns, peer, 5001, 5002)
    target = packed(PEER[family])
    before = flows(netns)
    assert (target, 5001) in before

    assert await kernel.apply([ForgetFlows(target, UDP, 5001)]) == []

    assert flows(netns) == before - {(target, 5001)}


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_all_flows_to_and_from_an_address_end(kernel: LinuxKernel, netns: Path, lan: Path, family: int) -> None:
    for peer in PEER + BYSTANDERS:
        talk(netns, peer, 5001, 5002)
    others = {(packed(a), port) for a in (PEER[1 - family], *BYSTANDERS) for port in (5001, 5002)}

    assert await kernel.apply([ForgetFlows(packed(PEER[family]))]) == []
    assert flows(netns) == others

    assert await kernel.apply([ForgetFlows(packed(HOST[family]))]) == [], "as the one who began them"
    assert flows(netns) == {(a, port) for a, port in others if len(a) != len(packed(HOST[family]))}


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("is_many", [False, True], ids=["one", "many"])
async def test_callers_of_a_port_of_this_host_end_and_what_it_asks_others_does_not(
    kernel: LinuxKernel, netns: Path, lan: Path, family: int, is_many: bool
) -> None:
    for caller in (netns, lan):
        talk(caller, HOST[family], 5001, 5002)
    talk(netns, "::1" if family else "127.0.0.1", 5001)
    talk(netns, PEER[family], 5001)
    talk(netns, PEER[1 - family], 5001)
    here = {packed(HOST[family]), packed("::1" if family else "127.0.0.1")}
    await until_tracked(netns, {(address, 5001) for address in here})
    before = flows(netns)
    version = 6 if family else 4
    others = [ForgetCallers(version, UDP, port) for port in range(6000, 6020)] if is_many else []

    assert await kernel.apply([ForgetCallers(version, UDP, 5001, packed(BYSTANDERS[family]))]) == []
    assert flows(netns) == before
    assert await kernel.apply([ForgetCallers(version, UDP, 5001), *others]) == []

    assert flows(netns) == {flow for flow in before if flow not in {(address, 5001) for address in here}}


async def until_tracked(netns: Path, wanted: set[tuple[bytes, int]]) -> None:
    """What another namespace sent arrives a moment later."""

    async def are_there() -> bool:
        return wanted <= flows(netns)

    await until(are_there, "all of them are tracked", seconds=3)


async def test_that_there_are_none_is_no_failure(kernel: LinuxKernel, netns: Path) -> None:
    assert await kernel.apply([ForgetFlows(packed(PEER[0])), ForgetFlows(packed(PEER[1]), UDP, 1)]) == []


def many(netns: Path) -> list[ForgetFlows]:
    for peer in PEER:
        talk(netns, peer, *range(5000, 5030))
    return [ForgetFlows(packed(peer), UDP, port) for peer in PEER for port in range(5000, 5020)]


async def test_many_are_ended_after_one_look(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    wanted = many(netns)

    assert await kernel.apply(wanted) == []

    assert flows(netns) == {(packed(peer), port) for peer in PEER for port in range(5020, 5030)}


async def test_a_kernel_that_cannot_filter_gets_them_one_by_one(netns: Path, lan: Path) -> None:
    """What such a kernel answers: EINVAL (a tuple has to be whole) or EOPNOTSUPP."""
    talk(netns, PEER[0], 5001, 5002)
    talk(netns, PEER[1], 5001)

    def forget() -> list[object]:
        with closing(Flows()) as made:
            made._can_filter = False
            return [*made.forget([ForgetFlows(packed(PEER[0]), UDP, 5001), ForgetFlows(packed(PEER[1]))])]

    assert namespaces.call(netns, forget) == []
    assert flows(netns) == {(packed(PEER[0]), 5002)}


async def test_a_flow_that_began_here_is_ended_whatever_way_it_is_looked_for(netns: Path, lan: Path) -> None:
    ways: list[Callable[[Flows], None]] = [lambda _: None, lambda made: setattr(made, "_can_filter", False)]
    for way in ways:
        talk(netns, PEER[0], 5001)

        def forget(way: Callable[[Flows], None] = way) -> list[object]:
            with closing(Flows()) as made:
                way(made)
                return [*made.forget([ForgetFlows(packed(HOST[0]))])]

        assert namespaces.call(netns, forget) == []
        assert flows(netns) == set()


def test_what_is_no_flow_is_left_alone() -> None:
    assert parsed(bytes(4)) is None
