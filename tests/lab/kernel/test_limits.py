"""The kernel's limits: met, told with what to do, and everything else goes on."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.objects import (
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Neighbour,
    Operation,
    PortEntry,
    RemoveNeighbour,
    RemovePort,
    ReplaceNeighbour,
    ReplacePort,
    Veth,
)
from lab import namespaces
from tests.lab.eye import everything
from worker.kernel.failures import BRIDGE_PORTS
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1500, False)
ENDPOINTS = 500
DELETE_SECONDS = 5.0


@pytest.fixture
def workload() -> Iterator[Path]:
    """One for all: interfaces that nobody configures need no namespace of their own."""
    path = namespaces.create("workload")
    yield path
    namespaces.destroy(path)


def veth(number: int) -> Veth:
    return Veth(f"kve{number:012x}", 1500, BRIDGE.name)


def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, *number.to_bytes(2, "big")])


def creation(workload: Path, number: int) -> CreateLink:
    return CreateLink(veth(number), ContainerSide(str(workload), f"e{number}", mac(number), 1500, (), ()))


async def test_a_bridge_takes_1023_ports_and_says_so_at_the_next(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE)]) == []
    operations = [creation(workload, number) for number in range(BRIDGE_PORTS + 1)]

    (failure,) = await kernel.apply(operations)

    assert failure.operation == operations[-1]
    assert (failure.code, failure.errno) == ("bridge-full", errno.EXFULL)
    assert failure.reason == (
        f"the bridge {BRIDGE.name} has 1,023 ports, the kernel's limit; put endpoints on other hosts or use several "
        "networks"
    )
    assert veth(BRIDGE_PORTS).name not in (await kernel.read(firewall=False)).links, "no half of it stays"
    assert f"e{BRIDGE_PORTS}" not in everything(workload).links
    await kernel.apply([DeleteLink(veth(number)) for number in range(BRIDGE_PORTS)])


async def test_five_hundred_endpoints_go_together(kernel: LinuxKernel, netns: Path, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE)]) == []
    before = everything(netns)
    makes: list[Operation] = [creation(workload, number) for number in range(ENDPOINTS)]
    makes += [ReplacePort(PortEntry(veth(n).name, mac(n))) for n in range(ENDPOINTS)]
    makes += [ReplaceNeighbour(Neighbour(BRIDGE.name, bytes([10, 1, n >> 8, n & 255]), mac(n))) for n in range(500)]
    assert await kernel.apply(makes) == []
    ends: list[Operation] = [RemoveNeighbour(op.neighbour) for op in makes if isinstance(op, ReplaceNeighbour)]
    ends += [RemovePort(op.entry) for op in makes if isinstance(op, ReplacePort)]
    ends += [DeleteLink(veth(number)) for number in range(ENDPOINTS)]

    started = time.perf_counter()
    assert await kernel.apply(ends) == []
    assert time.perf_counter() - started <= DELETE_SECONDS, "one by one it takes 9 s"

    seen = everything(netns)
    assert (seen.links, seen.neighbours, seen.forwarding) == (before.links, before.neighbours, before.forwarding)
    assert everything(workload).links.keys() == {"lo"}
