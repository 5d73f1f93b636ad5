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
from lab.crowd import Member, open_crowd, operations_meanwhile, until_applied
from lab.exact import missing_and_extra
from lab.lab import Lab, open_lab

HOSTS = 100
EACH = 10
NETWORK = "hundred"
SUBNET = "10.77.0.0/16"
BUILT_S = 30.0
PATIENCE_S = 150.0
MESSAGES = 4  # a tunnel entry, a forwarding entry, a neighbour in each family


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
    subnets = [{"cidr": SUBNET}]
    network = await lab.client.create_network({"name": NETWORK, "driver": "overlay", "subnets": subnets})
    for name in crowd:
        for number in range(EACH + 1):
            namespaces.create(f"{name}-{number}")
    began = time.perf_counter()
    await asyncio.gather(*(attach(member, range(EACH)) for member in crowd.values()))
    attached = time.perf_counter() - began
    endpoints = [endpoint async for endpoint in lab.client.endpoints(network=NETWORK)]
    await until_applied(crowd, network["id"], max(e["version"] for e in endpoints), PATIENCE_S)
    built = time.perf_counter() - began
    details = {"endpoints": len(endpoints), "attached_s": round(attached, 1)}
    yield Figure(f"{HOSTS}_hosts_built", built, "s", at_most=BUILT_S, details=details)
    different = [await missing_and_extra(endpoints, lab.hosts, member.host) for member in crowd.values()]
    yield Figure(f"{HOSTS}_hosts_missing_entries", sum(len(missing) for missing, _ in different), "entries", at_most=0)
    yield Figure(f"{HOSTS}_hosts_extra_entries", sum(len(extra) for _, extra in different), "entries", at_most=0)
    first = next(iter(crowd.values()))
    done = await operations_meanwhile(crowd, attach(first, range(EACH, EACH + 1)))
    worst = max((kinds for name, kinds in done.items() if name != first.host.name), key=lambda k: sum(k.values()))
    details = {"operations": worst, "where_it_is_attached": done[first.host.name]}
    yield Figure("one_more_endpoint_operations", sum(worst.values()), "operations", at_most=MESSAGES, details=details)


async def attach(member: Member, numbers: range) -> None:
    """At once, as a host that boots does: what comes together is built together."""
    names = [f"{member.host.name}-{number}" for number in numbers]
    asked = (member.ask("attach", network=NETWORK, netns=str(namespaces.FOLDER / n), name=n) for n in names)
    await asyncio.gather(*asked)


if __name__ == "__main__":
    inside.main(measured)
