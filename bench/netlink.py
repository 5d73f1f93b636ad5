"""How many entries a second the kernel takes, and how many of them kvnet's worker gives it: `python -m bench.netlink`.

Raw: messages that are packed beforehand, as many to a send, one answer for each; what the worker does besides is to
plan, to spell and to look at the answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from bench import inside
from bench.figures import Figure
from bench.sizes import is_quick, pick
from datapath.objects import Bridge, CreateLink, HostState, Neighbour, VtepEntry, Vxlan
from datapath.plan import plan
from lab import namespaces
from worker.kernel import messages as m
from worker.kernel.dump import device
from worker.kernel.linux import LinuxKernel
from worker.kernel.netlink import Netlink

ENTRIES = 20_000
ROUNDS = 5
BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
TUNNEL = Vxlan("kvx0000000000aa", 77, bytes([198, 18, 0, 1]), 1450, BRIDGE.name)


async def measured() -> AsyncIterator[Figure]:
    count = pick(is_quick(), 500, ENTRIES)
    raw, ours = [], []
    for _ in range(pick(is_quick(), 1, ROUNDS)):  # in turns: a busy machine is busy for both
        raw.append(await asyncio.to_thread(_raw, count))
        ours.append(await _ours(count))
    yield Figure("netlink_raw", max(raw), "entries/s")
    yield Figure("netlink_worker", max(ours), "entries/s", note="planned, spelled and looked after")
    yield Figure("netlink_share", max(ours) / max(raw), "ratio", at_least=0.4)


def _raw(count: int) -> float:
    netns = namespaces.create("raw")
    try:
        return float(namespaces.call(netns, lambda: _fill(count)))
    finally:
        namespaces.destroy(netns)


def _fill(count: int) -> float:
    netlink = Netlink()
    netlink.one(m.create_bridge(BRIDGE))
    index = device(netlink.get(m.get_link(BRIDGE.name)) or b"").index
    netlink.one(m.create_vxlan(TUNNEL, index))
    tunnel = device(netlink.get(m.get_link(TUNNEL.name)) or b"").index
    made = []
    for number in range(count // 2):
        mac = bytes([2, 0, 0, 1, number >> 8 & 255, number & 255])
        made.append(m.vtep(tunnel, mac, bytes([198, 18, 1, number & 255])))
        made.append(m.neighbour(index, bytes([10, 1 + (number >> 16), number >> 8 & 255, number & 255]), mac))
    began = time.perf_counter()
    refused = netlink.request(made)
    took = time.perf_counter() - began
    netlink.close()
    if refused:
        raise RuntimeError(f"the kernel refused {len(refused)} of {len(made)} entries: {refused[0].text}")
    return len(made) / took


async def _ours(count: int) -> float:
    macs = [bytes([2, 0, 0, 1, number >> 8 & 255, number & 255]) for number in range(count // 2)]
    wanted = HostState(
        links={BRIDGE.name: BRIDGE, TUNNEL.name: TUNNEL},
        vteps=frozenset(VtepEntry(TUNNEL.name, mac, bytes([198, 18, 1, mac[5]])) for mac in macs),
        neighbours=frozenset(Neighbour(BRIDGE.name, bytes([10, 1, mac[4], mac[5]]), mac) for mac in macs),
    )
    netns = namespaces.create("ours")
    try:
        async with await LinuxKernel.open(netns=str(netns)) as kernel:
            await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)])
            there = await kernel.read()
            began = time.perf_counter()
            operations = plan(wanted, there).operations
            failures = await kernel.apply(operations)
            took = time.perf_counter() - began
    finally:
        namespaces.destroy(netns)
    if failures:
        raise RuntimeError(f"the kernel refused {len(failures)} entries: {failures[0].reason}")
    return len(macs) * 2 / took


if __name__ == "__main__":
    inside.main(measured)
