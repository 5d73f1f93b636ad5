"""What a worker costs: a pass over a large host, many new entries, memory with many remote endpoints, and idleness."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

from backends.open import open_store
from backends.store import Absent, Put
from bench import inside
from bench.figures import Figure, percentile
from bench.sizes import is_quick, pick
from datapath.objects import Bridge, CreateLink, HostState, Neighbour, VtepEntry, Vxlan
from datapath.plan import plan
from kvnet import codec, keys
from kvnet.model import Host
from kvnet.wire import EndpointBody
from lab import namespaces
from lab.lab import open_lab, until
from worker.kernel.linux import LinuxKernel

ENTRIES = 10_000
PASSES = 7
REMOTE_ENDPOINTS = 1_000
LIST_SIZE = 100
IDLE_SECONDS = 15.0
BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
TUNNEL = Vxlan("kvx0000000000aa", 77, bytes([198, 18, 0, 1]), 1450, BRIDGE.name)


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.worker")


async def measured() -> AsyncIterator[Figure]:
    async for figure in _kernel():
        yield figure
    async for figure in _process():
        yield figure


async def _kernel() -> AsyncIterator[Figure]:
    """As many tunnel entries as neighbours, through the worker's own planner and netlink code."""
    macs = [bytes([2, 0, 0, 1, i >> 8, i & 255]) for i in range(pick(is_quick(), 100, ENTRIES))]
    wanted = HostState(
        links={BRIDGE.name: BRIDGE, TUNNEL.name: TUNNEL},
        vteps=frozenset(VtepEntry(TUNNEL.name, mac, bytes([198, 18, 1, mac[5]])) for mac in macs),
        neighbours=frozenset(Neighbour(BRIDGE.name, bytes([10, 1, mac[4], mac[5]]), mac) for mac in macs),
    )
    netns = namespaces.create("kernel")
    async with await LinuxKernel.open(netns=str(netns)) as kernel:
        await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)])
        operations = plan(wanted, await kernel.read()).operations
        started = time.perf_counter()
        failures = await kernel.apply(operations)
        took = time.perf_counter() - started
        yield Figure("apply_10000_remote_endpoints", took, "s", at_most=1, details={"operations": len(operations)})
        yield Figure("apply_failures", len(failures), "operations", at_most=0)
        passes, left = [], 0
        for _ in range(pick(is_quick(), 1, PASSES)):
            started = time.perf_counter()
            left += len(plan(wanted, await kernel.read()).operations)
            passes.append((time.perf_counter() - started) * 1000)
    yield Figure("no_op_pass_20000_entries", percentile(passes, 0.5), "ms", at_most=150, details={"worst": max(passes)})
    yield Figure("no_op_pass_operations", left, "operations", at_most=0)
    namespaces.destroy(netns)


async def _process() -> AsyncIterator[Figure]:
    """A real worker whose network has a thousand endpoints on another host."""
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=1) as lab:
            await lab.start_controller()
            worker = await lab.start_worker("h1")
            await lab.until_ready("h1")
            bare = _rss_mb(worker.pid)
            await _add_host(lab.store_url, "far")
            network = await lab.client.create_network({"name": "bench", "subnets": [{"cidr": "10.64.0.0/16"}]})
            await lab.add_workload("w", "h1")
            await lab.attach("bench", "w")
            for start in range(0, REMOTE_ENDPOINTS, LIST_SIZE):
                items: list[EndpointBody] = [{"host": "far", "name": f"e{start + i}"} for i in range(LIST_SIZE)]
                await lab.client.create_endpoints("bench", items)
            latest = max([e["version"] async for e in lab.client.endpoints(network="bench")])

            async def is_applied() -> bool:
                host = await lab.client.get_host("h1")
                return bool(host["alive"]) and host["lag_revisions"] == 0

            await until(is_applied, f"h1 applied revision {latest} of network {network['id']}", watched=worker)
            await asyncio.sleep(2.0)  # what follows is about quiet
            before = _cpu_seconds(worker.pid)
            idle_s = pick(is_quick(), 1.0, IDLE_SECONDS)
            await asyncio.sleep(idle_s)
            share = (_cpu_seconds(worker.pid) - before) / idle_s * 100
            details = {"without_endpoints": round(bare, 1), "peak": round(_status_mb(worker.pid, "VmHWM"), 1)}
            yield Figure("worker_rss_1000_remote", _rss_mb(worker.pid), "MB", at_most=40, details=details)
            yield Figure("worker_idle_cpu", share, "%", at_most=1, details={"seconds": idle_s})


async def _add_host(store_url: str, name: str) -> None:
    """A host that only exists in the store."""
    async with await open_store(store_url) as store:
        host = Host(name, ip_address("198.18.9.9"), 1500)
        await store.commit([Absent(keys.host(name))], [Put(keys.host(name), codec.encode(host))])


def _rss_mb(pid: int) -> float:
    return _status_mb(pid, "VmRSS")


def _status_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    inside.main(measured)
