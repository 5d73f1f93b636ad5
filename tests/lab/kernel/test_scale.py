"""Tens of thousands of entries: written, read and compared within their budgets, best of a few on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from datapath.objects import (
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    HostState,
    Neighbour,
    Operation,
    PortEntry,
    Scope,
    Veth,
    VtepEntry,
    Vxlan,
)
from datapath.plan import plan
from lab import namespaces
from tests.lab.eye import look
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
TUNNEL = Vxlan("kvx0000000000aa", 77, bytes([198, 18, 0, 1]), 1450, BRIDGE.name)
ENTRIES = 10_000
APPLY_SECONDS = 1.0
NO_OP_SECONDS = 0.150
ATTEMPTS = 5


def many(entries: int) -> HostState:
    """As many tunnel entries as neighbours."""
    macs = [bytes([2, 0, 0, 1, i >> 8, i & 255]) for i in range(entries)]
    return HostState(
        links={BRIDGE.name: BRIDGE, TUNNEL.name: TUNNEL},
        vteps=frozenset(VtepEntry(TUNNEL.name, mac, bytes([198, 18, 1, mac[5]])) for mac in macs),
        neighbours=frozenset(Neighbour(BRIDGE.name, bytes([10, 1, mac[4], mac[5]]), mac) for mac in macs),
    )


async def best(action: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        await action()
        times.append(time.perf_counter() - started)
    return min(times)


async def test_ten_thousand_remote_endpoints_are_programmed_within_a_second(kernel: LinuxKernel, netns: Path) -> None:
    wanted = many(ENTRIES)
    await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)])
    operations = plan(wanted, await kernel.read()).operations
    assert len(operations) == 2 * ENTRIES

    async def programmed() -> None:  # all of it each time: writing an entry again costs as much as the first time
        assert await kernel.apply(operations) == []

    assert await best(programmed) <= APPLY_SECONDS

    seen = look(netns)
    assert len([n for n in seen.neighbours if n[0] == BRIDGE.name and n[1].startswith("10.")]) == ENTRIES
    assert len([f for f in seen.forwarding if f[0] == TUNNEL.name and f[2]]) == ENTRIES


async def test_a_full_pass_over_twenty_thousand_entries_that_finds_nothing_is_quick(kernel: LinuxKernel) -> None:
    wanted = many(ENTRIES)
    assert await kernel.apply(plan(wanted, await kernel.read()).operations) == []

    async def full_pass() -> None:
        assert plan(wanted, await kernel.read()).operations == ()

    assert await best(full_pass) <= NO_OP_SECONDS


async def test_one_network_is_read_in_the_time_that_it_takes_not_the_host(kernel: LinuxKernel) -> None:
    assert await kernel.apply(plan(many(ENTRIES), await kernel.read()).operations) == []
    small = Bridge("kvb0000000000bb", bytes.fromhex("026b00000002"), 1450, True)
    assert await kernel.apply([CreateLink(small)]) == []

    async def read() -> None:
        assert set((await kernel.read(Scope("0000000000bb"), firewall=False)).links) == {small.name}

    assert await best(read) <= 0.010


async def test_everything_is_there_whatever_the_kinds_and_families(kernel: LinuxKernel) -> None:
    macs = [bytes([2, 0, 0, 1, 0, i]) for i in range(200)]
    wanted = HostState(
        links={BRIDGE.name: BRIDGE, TUNNEL.name: TUNNEL},
        vteps=frozenset(VtepEntry(TUNNEL.name, mac, bytes([198, 18, 1, mac[5]])) for mac in macs),
        ports=frozenset(PortEntry(TUNNEL.name, mac) for mac in macs),
        neighbours=frozenset(
            Neighbour(BRIDGE.name, address, mac)
            for mac in macs
            for address in (bytes([10, 1, 0, mac[5]]), bytes([0xFD, *bytes(14), mac[5]]))
        ),
    )

    assert await kernel.apply(plan(wanted, await kernel.read()).operations) == []

    state = await kernel.read()
    assert (state.vteps, state.ports, state.neighbours) == (wanted.vteps, wanted.ports, wanted.neighbours)
    part = await kernel.read(Scope("0000000000aa"), firewall=False)
    assert (part.vteps, part.ports, part.neighbours) == (wanted.vteps, wanted.ports, wanted.neighbours)


async def test_a_hundred_interfaces_come_one_by_one_and_go_together(kernel: LinuxKernel) -> None:
    await kernel.apply([CreateLink(BRIDGE)])
    workloads = [namespaces.create(f"many{i}") for i in range(100)]
    veths = [Veth(f"kve{i:012x}", 1450, BRIDGE.name) for i in range(100)]
    creations: list[Operation] = []
    for i, (veth, workload) in enumerate(zip(veths, workloads, strict=True)):
        mac = bytes([2, 0, 0, 0, 0, i])
        side = ContainerSide(str(workload), "eth0", mac, 1450, ((bytes([10, 1, 0, i + 2]), 24),), ())
        creations.append(CreateLink(veth, side))
    try:
        assert await kernel.apply(creations) == []

        started = time.perf_counter()
        assert await kernel.apply([DeleteLink(veth) for veth in veths]) == []
        assert time.perf_counter() - started <= APPLY_SECONDS, "one by one it takes 2 s"

        assert set((await kernel.read()).links) == {BRIDGE.name}
    finally:
        for workload in workloads:
            namespaces.destroy(workload)
