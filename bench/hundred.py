"""A hundred hosts with ten endpoints each in one network: how soon it is built, how exactly, what one more costs.

The worker's own code on a hundred kernels in one process, for a hundred processes do not fit a small machine; so what
is measured is an upper bound: one interpreter does the work of all hosts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from bench import inside
from bench.figures import Figure
from lab import namespaces
from lab.crowd import Member, open_crowd
from lab.exact import missing_and_extra
from lab.lab import Lab, open_lab, until

HOSTS = 100
EACH = 10
NETWORK = "hundred"
SUBNET = "10.77.0.0/16"
BUILT_S = 30.0
PATIENCE_S = 150.0
POLL_S = 0.2


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.hundred")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=HOSTS) as lab:
            await lab.start_controller()
            async with open_crowd(lab) as crowd:
                async for figure in _figures(lab, crowd):
                    yield figure


async def _figures(lab: Lab, crowd: Mapping[str, Member]) -> AsyncIterator[Figure]:
    await lab.client.create_network({"name": NETWORK, "driver": "overlay", "subnets": [{"cidr": SUBNET}]})
    for name in crowd:
        for number in range(EACH):
            namespaces.create(f"{name}-{number}")
    began = time.perf_counter()
    await asyncio.gather(*(attach_all(member, range(EACH)) for member in crowd.values()))
    attached = time.perf_counter() - began
    await until_exact(lab, crowd)
    built = time.perf_counter() - began
    details = {"hosts": HOSTS, "endpoints": HOSTS * EACH, "attached_s": round(attached, 1)}
    yield Figure("hundred_hosts_built", built, "s", at_most=BUILT_S, details=details)
    different = [await missing_and_extra(lab, NETWORK, member.host) for member in crowd.values()]
    yield Figure("hundred_hosts_missing_entries", sum(len(missing) for missing, _ in different), "entries", at_most=0)
    yield Figure("hundred_hosts_extra_entries", sum(len(extra) for _, extra in different), "entries", at_most=0)
    worst, kinds = await one_more(lab, crowd)
    details = {"operations": kinds, "endpoints_before": HOSTS * EACH}
    yield Figure("one_more_endpoint_operations_per_host", worst, "operations", at_most=8, details=details)


async def attach_all(member: Member, numbers: range) -> None:
    for number in numbers:
        name = f"{member.host.name}-{number}"
        await member.ask("attach", network=NETWORK, netns=str(namespaces.FOLDER / name), name=name)


async def until_exact(lab: Lab, crowd: Mapping[str, Member]) -> None:
    """Every host has all entries and no others."""
    for member in crowd.values():

        async def is_exact(member: Member = member) -> bool:
            missing, extra = await missing_and_extra(lab, NETWORK, member.host)
            if missing or extra:
                await asyncio.sleep(POLL_S)
            return not (missing or extra)

        await until(is_exact, f"{member.host.name} has every entry", seconds=PATIENCE_S)


async def one_more(lab: Lab, crowd: Mapping[str, Member]) -> tuple[int, dict[str, int]]:
    """How many operations the host with the most of them does for one endpoint on another; and which."""
    first = next(iter(crowd.values()))
    await _until_idle(crowd)
    before = {name: dict(member.kernel.counted.operations) for name, member in crowd.items()}
    namespaces.create(f"{first.host.name}-{EACH}")
    await attach_all(first, range(EACH, EACH + 1))
    await until_exact(lab, crowd)
    await _until_idle(crowd)
    done = {
        name: {
            kind: count - before[name].get(kind, 0)
            for kind, count in member.kernel.counted.operations.items()
            if count != before[name].get(kind, 0)
        }
        for name, member in crowd.items()
        if member is not first
    }
    worst = max(done.values(), key=lambda kinds: sum(kinds.values()))
    return sum(worst.values()), worst


async def _until_idle(crowd: Mapping[str, Member]) -> None:
    """No kernel is asked for anything for a moment."""
    last = -1

    async def is_idle() -> bool:
        nonlocal last
        before, last = last, sum(member.kernel.counted.total for member in crowd.values())
        await asyncio.sleep(1.0)
        return before == last

    await until(is_idle, "all hosts are idle", seconds=PATIENCE_S)


if __name__ == "__main__":
    inside.main(measured)
