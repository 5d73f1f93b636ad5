"""TCP throughput and round trips over kvnet's networks, against the same made by hand in the same hosts.

One run, the same namespaces, the same program at both ends. The two are measured in turns, in an order that changes,
and compared pair by pair: a busy machine is busy for both.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from bench import byhand, inside
from bench.figures import Figure
from bench.sizes import is_quick, pick
from lab import namespaces
from lab.lab import Lab, open_lab

ROUNDS = 10
SLICE_S = 0.7
RTT_SLICE_S = 0.4
PORT = 5201
LEAST = 0.97
STREAM = Path(__file__).with_name("stream.py")


@dataclass(frozen=True, slots=True)
class Path_:
    """From one namespace to an address in another."""

    source: Path
    target: Path
    address: str


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.throughput")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=2) as lab:
            await lab.start_controller()
            for name in lab.hosts:
                await lab.start_worker(name)
            for name in lab.hosts:
                await lab.until_ready(name)
            for kind in (_overlay, _bridge, _routed):
                ours, by_hand = await kind(lab)
                for figure in await asyncio.to_thread(_compared, kind.__name__.strip("_"), ours, by_hand):
                    yield figure


async def _overlay(lab: Lab) -> tuple[Path_, Path_]:
    ours, mtu = await _attached(lab, "overlay", "h1", "h2")
    hosts = list(lab.hosts.values())
    for number, (host, other) in enumerate((hosts, reversed(hosts)), 1):
        byhand.bridge(host.netns, byhand.BRIDGE, mtu)
        byhand.tunnel(host.netns, byhand.BRIDGE, str(host.port.underlay), str(other.port.underlay), mtu)
        _plug(host.netns, byhand.BRIDGE, _workload(lab, "overlay", number), number, byhand.OVERLAY, mtu)
    return ours, _by_hand(ours, byhand.OVERLAY, 2)


async def _bridge(lab: Lab) -> tuple[Path_, Path_]:
    ours, mtu = await _attached(lab, "bridge", "h1", "h1")
    host = lab.hosts["h1"].netns
    byhand.bridge(host, "byhandl0", mtu)
    for number in (1, 2):
        _plug(host, "byhandl0", _workload(lab, "bridge", number), 10 + number, byhand.LOCAL, mtu)
    return ours, _by_hand(ours, byhand.LOCAL, 12)


async def _routed(lab: Lab) -> tuple[Path_, Path_]:
    """By hand: a block of the range per host, its gateway on a bridge, one route to the other host's."""
    ours, mtu = await _attached(lab, "routed", "h1", "h2")
    blocks = list(byhand.ROUTED.subnets(new_prefix=24))[1:3]
    hosts = list(lab.hosts.values())
    for number, (host, other) in enumerate((hosts, reversed(hosts)), 1):
        own, far = blocks[number - 1], blocks[2 - number]
        workload = _workload(lab, "routed", number)
        byhand.bridge(host.netns, "byhandr0", mtu, IPv4Interface((own[1], 24)))
        byhand.plug(host.netns, "byhandr0", workload, 20 + number, IPv4Interface((own[10], 24)), mtu)
        byhand.route(workload, byhand.ROUTED, str(own[1]))
        byhand.route(host.netns, far, str(other.port.underlay))
    return ours, Path_(ours.source, ours.target, str(blocks[1][10]))


async def _attached(lab: Lab, driver: str, *hosts: str) -> tuple[Path_, int]:
    """kvnet's own, and its MTU."""
    network = await lab.client.create_network({"name": driver, "driver": driver})
    for number, host in enumerate(hosts, 1):
        workload = f"{driver}{number}"
        await lab.add_workload(workload, host)
        await lab.attach(network["name"], workload)
    source, target = (_workload(lab, driver, number) for number in (1, 2))
    mtu = byhand.in_namespace(source, lambda ip: ip.get_links(ifname="eth0")[0].get_attr("IFLA_MTU"))
    return Path_(source, target, lab.address_of(f"{driver}2", driver)), int(mtu)


def _workload(lab: Lab, driver: str, number: int) -> Path:
    return lab.workloads[f"{driver}{number}"].netns


def _plug(host: Path, bridge: str, workload: Path, number: int, block: IPv4Network, mtu: int) -> None:
    byhand.plug(host, bridge, workload, number, IPv4Interface((block[number], block.prefixlen)), mtu)


def _by_hand(ours: Path_, block: IPv4Network, number: int) -> Path_:
    return Path_(ours.source, ours.target, str(block[number]))


def _compared(name: str, ours: Path_, by_hand: Path_) -> list[Figure]:
    for path in (ours, by_hand):  # neighbours are known, both ends are warm
        run_path(path, "send", "receive", 0.2)
    rates = _in_turns(ours, by_hand, "send", "receive", SLICE_S)
    trips = _in_turns(ours, by_hand, "answer", "ask", RTT_SLICE_S)
    gigabits = [round(statistics.median(side) * 8 / 1e9, 2) for side in zip(*rates, strict=True)]
    microseconds = [round(statistics.median(side), 1) for side in zip(*trips, strict=True)]
    return [
        Figure(
            f"{name}_throughput_to_by_hand",
            statistics.median(mine / theirs for mine, theirs in rates),
            "ratio",
            at_least=LEAST,
            details={"gbit_s": gigabits[0], "by_hand_gbit_s": gigabits[1], "pairs": len(rates)},
        ),
        Figure(
            f"{name}_rtt_of_by_hand_to_ours",
            statistics.median(theirs / mine for mine, theirs in trips),
            "ratio",
            at_least=LEAST,
            details={"rtt_us": microseconds[0], "by_hand_rtt_us": microseconds[1], "pairs": len(trips)},
        ),
    ]


def _in_turns(ours: Path_, by_hand: Path_, there: str, here: str, seconds: float) -> list[tuple[float, float]]:
    """Pairs of (ours, by hand), as ABBA: what drifts during a pair and the next cancels out."""
    pairs = []
    for number in range(pick(is_quick(), 1, ROUNDS)):
        order = (ours, by_hand) if number % 2 == 0 else (by_hand, ours)
        took = {path: run_path(path, there, here, seconds) for path in order}
        pairs.append((took[ours], took[by_hand]))
    return pairs


def run_path(path: Path_, there: str, here: str, seconds: float) -> float:
    """What `here` prints. `there` is in the source's namespace, `here` in the target's."""
    with (
        namespaces.open_socket(path.target, socket.AF_INET, socket.SOCK_STREAM, 0) as listener,
        namespaces.open_socket(path.source, socket.AF_INET, socket.SOCK_STREAM, 0) as caller,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((path.address, PORT))
        listener.listen()
        caller.settimeout(5.0)
        listener.settimeout(5.0)
        caller.connect((path.address, PORT))
        accepted, _ = listener.accept()
        with accepted, _end(here, accepted, seconds) as measuring, _end(there, caller, seconds) as other:
            accepted.close()
            caller.close()
            said, _ = measuring.communicate(timeout=seconds + 30)
            other.wait(30)
            return float(said)


def _end(role: str, connection: socket.socket, seconds: float) -> subprocess.Popen[str]:
    connection.setblocking(True)
    descriptor = connection.fileno()
    command = [sys.executable, "-I", "-S", str(STREAM), role, str(descriptor), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(descriptor,))


if __name__ == "__main__":
    inside.main(measured)
