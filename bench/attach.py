"""How long an attachment takes, and how soon another host reaches it. Real workers and kernel, hosts as namespaces."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bench import inside
from bench.figures import Figure, percentile
from lab import namespaces
from lab.lab import Lab, open_lab

WARM_UP = 10
ATTACHMENTS = 150
NETWORK = "bench"
PEER = "peer"
PATIENCE_S = 3.0
PROBE_S = 0.004
# Linux asks for an unknown neighbour once a second: far too coarse to see when a path opens.
ARP_RETRY_MS = 2


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.attach")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=2) as lab:
            await _bring_up(lab)
            for i in range(WARM_UP):
                await _attach(lab, f"warm{i}")
            attached: list[float] = []
            parts: dict[str, list[float]] = {}
            reached: list[float] = []
            for i in range(ATTACHMENTS):
                took, returned, answer = await _attach(lab, f"w{i}")
                attached.append(took * 1000)
                for part, milliseconds in answer.get("timing_ms", {}).items():
                    parts.setdefault(part, []).append(milliseconds)
                reached.append(await _until_reached(lab, answer["endpoint"]["address"], returned) * 1000)
            detached = [await _detach(lab, f"w{i}") * 1000 for i in range(ATTACHMENTS)]
    medians = {part: round(percentile(values, 0.5), 2) for part, values in parts.items()}
    yield Figure("attach_p50", percentile(attached, 0.5), "ms", at_most=12, details={"parts_p50": medians})
    yield Figure("attach_p99", percentile(attached, 0.99), "ms", at_most=40)
    yield Figure("reachable_after_attach_p50", percentile(reached, 0.5), "ms", note="first answer to another host")
    yield Figure("reachable_after_attach_p99", percentile(reached, 0.99), "ms", at_most=50)
    yield Figure("detach_p50", percentile(detached, 0.5), "ms")
    yield Figure("detach_p99", percentile(detached, 0.99), "ms")


async def _bring_up(lab: Lab) -> None:
    await lab.start_controller()
    for name in lab.hosts:
        await lab.start_worker(name)
    for name in lab.hosts:
        await lab.until_ready(name)
    await lab.client.create_network({"name": NETWORK, "subnets": [{"cidr": "10.64.0.0/16"}]})
    peer = await lab.add_workload(PEER, "h2")
    answer = await lab.attach(NETWORK, PEER)
    namespaces.call(peer.netns, lambda: _retry_arp_soon(answer["interface"]))


def _retry_arp_soon(interface: str) -> None:
    settings = Path("/proc/sys/net/ipv4/neigh", interface)
    settings.joinpath("retrans_time_ms").write_text(str(ARP_RETRY_MS))
    settings.joinpath("mcast_solicit").write_text("1000")


async def _attach(lab: Lab, name: str) -> tuple[float, float, dict[str, Any]]:
    """How long it took, when it returned, and the worker's answer."""
    await lab.add_workload(name, "h1")
    started = time.perf_counter()
    answer = await lab.attach(NETWORK, name)
    returned = time.perf_counter()
    return returned - started, returned, answer


async def _detach(lab: Lab, name: str) -> float:
    started = time.perf_counter()
    await lab.detach(NETWORK, name)
    return time.perf_counter() - started


async def _until_reached(lab: Lab, address: str, returned: float) -> float:
    """Seconds from the return of the attachment until another host has the first answer."""
    while True:
        answer = await lab.ping(PEER, address, timeout_s=PROBE_S)
        took = time.perf_counter() - returned
        if answer.ok or took > PATIENCE_S:
            return took


if __name__ == "__main__":
    inside.main(measured)
