"""The rules across hosts: peered overlays, whose answers take another way than the requests, and the gateway's MAC."""

from __future__ import annotations

import socket
from dataclasses import replace
from struct import pack

import pytest

from lab import namespaces
from tests.lab.kernel.bed import Bed, can_connect, network
from worker.kernel.rules import MARK
from worker.kernel.sysctls import write_sysctl

KIND = 0x88B5  # of frames: for experiments
ALL = 3  # ETH_P_ALL: seen before the bridge takes them

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture(params=["1", "0"], ids=["bridged-frames-filtered", "bridged-frames-not-filtered"])
async def peered(request: pytest.FixtureRequest, bed: Bed) -> Bed:
    """a1 on h1, b2 on h2, and a c2 of a network that is nobody's peer."""
    a, b, c = network(1), network(2), network(3)
    a, b = replace(a, peers=(b.id,)), replace(b, peers=(a.id,))
    for net, name, host, last in ((a, "a1", "h1", 11), (b, "b2", "h2", 12), (c, "c2", "h2", 13), (c, "c1", "h1", 14)):
        bed.add(net, name, host, last)
    for host in bed.netns.values():
        for setting in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            namespaces.call(host, lambda path=f"net/bridge/{setting}": write_sysctl(path, request.param))
    assert await bed.converge() == []
    return bed


@pytest.mark.parametrize("family", [4, 6])
async def test_peers_meet_across_hosts_and_nobody_else_does(peered: Bed, family: int) -> None:
    def address(number: int, last: int) -> str:
        return f"10.{number}.0.{last}" if family == 4 else f"fd00:{number}::{last:x}"

    async def reaches(source: str, target: str, to: str) -> bool:
        return await can_connect(peered.workloads[source], peered.workloads[target], to)

    assert {
        "a1 to b2": await reaches("a1", "b2", address(2, 12)),
        "b2 to a1": await reaches("b2", "a1", address(1, 11)),
        "c1 to c2": await reaches("c1", "c2", address(3, 13)),
        "a1 to c2": await reaches("a1", "c2", address(3, 13)),
        "c2 to a1": await reaches("c2", "a1", address(1, 11)),
    } == {"a1 to b2": True, "b2 to a1": True, "c1 to c2": True, "a1 to c2": False, "c2 to a1": False}


async def test_a_frame_with_the_gateways_mac_leaves_only_if_it_was_routed(peered: Bed) -> None:
    """What the host itself says from that MAC stays at home: other hosts have the same gateway."""
    bridge, tunnel, net = "kvb000000000003", "kvx000000000003", peered.networks["000000000003"]
    target = next(e.mac for e in peered.endpoints[net.id].values() if e.name == "c2")
    macs = bytes.fromhex((target + net.gateway_mac).replace(":", ""))
    with (
        namespaces.open_socket(peered.netns["h2"], socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as wire,
        namespaces.open_socket(peered.netns["h1"], socket.AF_PACKET, socket.SOCK_RAW, 0) as host,
    ):
        wire.bind((tunnel, ALL))
        wire.settimeout(2.0)
        for words, mark in ((b"from the host", 0), (b"admitted", MARK)):
            host.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            host.sendto(macs + pack(">H", KIND) + words.ljust(46), (bridge, KIND))

        frame = wire.recv(100)
        while frame[12:14] != pack(">H", KIND):
            frame = wire.recv(100)
        assert frame[14:].strip() == b"admitted"
