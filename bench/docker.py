"""What Docker's users wait for on kvnet's networks, beside Docker's own bridge and its own overlay with a store.

The three take turns in the same two daemons. Targets that compare are ratios of medians of the same run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import inside
from bench.docker_plugin import handler_times
from bench.docker_site import BRIDGE, KVNET, OVERLAY, Daemon, Refused, Site, open_site, retry_arp_soon
from bench.figures import Figure, not_measured, percentile
from lab.docker_hosts import DockerFailed

ROUNDS = 20
STARTS = 10
CREATIONS = 15
CROWD = 40
POLL_S = 0.002
SUBNETS = {"kvnet": "10.70.0.0/24", "overlay": "10.71.0.0/24"}
# With a subnet: without one a network of kvnet's is made anew at once, so that addresses may be chosen on it.
MANY = {"kvnet": "10.72", "overlay": "10.73"}
KINDS: Mapping[str, dict[str, Any]] = {"bridge": BRIDGE, "overlay": OVERLAY, "kvnet": KVNET}


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.docker")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_site(Path(folder)) as site:
            await _make_networks(site)
            for part in (_connecting, _starting, _listing, _handling, _crowding):
                try:
                    async for figure in part(site):
                        yield figure
                except (Refused, DockerFailed, TimeoutError) as error:
                    yield not_measured(f"docker_{part.__name__.strip('_')}", "", str(error)[:400])


async def _make_networks(site: Site) -> None:
    """One of each, with a container on both hosts: their first endpoints cost extra, and are not what is asked."""
    h1, h2 = site.daemons["h1"], site.daemons["h2"]
    for name, kind in KINDS.items():
        await h1.create_network(f"net-{name}", kind, SUBNETS.get(name, ""))
        await h1.run(f"peer-{name}-h1", f"net-{name}")
        if name != "bridge":
            await site.until_listed("h2", f"net-{name}")
            await h2.run(f"peer-{name}-h2", f"net-{name}", SUBNETS[name].replace("0/24", "10"))


async def _connecting(site: Site) -> AsyncIterator[Figure]:
    h1 = site.daemons["h1"]
    container = await h1.run("connected", "none")
    await h1.disconnect("none", container)
    connects: dict[str, list[float]] = {name: [] for name in KINDS}
    disconnects: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(ROUNDS):
        for name in KINDS:
            connects[name].append(await h1.connect(f"net-{name}", container))
            disconnects[name].append(await h1.disconnect(f"net-{name}", container))
    await h1.remove(container)
    yield from_times("docker_connect_p50", connects["kvnet"])
    yield from_times("docker_connect_own_bridge_p50", connects["bridge"])
    yield from_times("docker_connect_own_overlay_p50", connects["overlay"])
    yield ratio("docker_connect_to_bridge", connects["kvnet"], connects["bridge"], 1.1)
    yield ratio("docker_connect_to_overlay", connects["kvnet"], connects["overlay"], 0.6)
    for name, times in disconnects.items():
        yield from_times(f"docker_disconnect_{name}_p50", times)


async def _starting(site: Site) -> AsyncIterator[Figure]:
    """From the start's call to the first answer to a container of the other host, which asks all along."""
    h1 = site.daemons["h1"]
    firsts: dict[str, list[float]] = {"kvnet": [], "overlay": []}
    calls: dict[str, list[float]] = {"kvnet": [], "overlay": []}
    for name in firsts:
        retry_arp_soon(await site.netns_of("h2", f"peer-{name}-h2"))
    for number in range(STARTS):
        for name in firsts:
            address = SUBNETS[name].replace("0/24", str(100 + number))
            netns = await site.netns_of("h2", f"peer-{name}-h2")
            first = asyncio.ensure_future(site.until_answered(netns, address))
            began = time.perf_counter()
            container = await h1.run(f"start-{name}", f"net-{name}", address)
            calls[name].append((time.perf_counter() - began) * 1000)
            firsts[name].append((await first - began) * 1000)
            await h1.remove(container)
    for name in firsts:
        yield from_times(f"docker_run_{name}_p50", calls[name])
        yield from_times(f"docker_run_to_first_ping_{name}_p50", firsts[name])
    yield ratio("docker_run_to_first_ping_to_overlay", firsts["kvnet"], firsts["overlay"], 0.85)


async def _listing(site: Site) -> AsyncIterator[Figure]:
    """From the call that creates a network on one host until the other's Docker lists it."""
    for name, target in (("kvnet", 100.0), ("overlay", None)):
        times, calls, removals = [], [], []
        for number in range(CREATIONS):
            network = f"seen-{name}-{number}"
            seen = asyncio.ensure_future(_seen(site.daemons["h2"], network))
            began = time.perf_counter()
            await site.daemons["h1"].create_network(network, KINDS[name], f"{MANY[name]}.{number}.0/24")
            calls.append((time.perf_counter() - began) * 1000)
            times.append((await seen - began) * 1000)
            began = time.perf_counter()
            await site.daemons["h1"].call("DELETE", f"/networks/{network}")
            removals.append((time.perf_counter() - began) * 1000)
        yield from_times(f"docker_listed_elsewhere_{name}_p50", times, target)
        yield from_times(f"docker_network_create_{name}_p50", calls)
        yield from_times(f"docker_network_rm_{name}_p50", removals)


async def _seen(daemon: Daemon, network: str) -> float:
    async with asyncio.timeout(10.0):
        while not await daemon.lists(network):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    return time.perf_counter()


async def _handling(site: Site) -> AsyncIterator[Figure]:
    """Every call of one attachment or detachment, made as Docker makes them, and what each waited for its answer."""
    attached, detached = await handler_times(site, "h1", "net-kvnet", SUBNETS["kvnet"])
    for name, calls, target in (("attach", attached, 8.0), ("detach", detached, 10.0)):
        whole = [sum(each.values()) for each in calls]
        details = {method: round(median(each[method] for each in calls), 2) for method in calls[0]}
        yield Figure(f"docker_plugin_{name}_p50", percentile(whole, 0.5), "ms", at_most=target, details=details)


async def _crowding(site: Site) -> AsyncIterator[Figure]:
    """So many `docker run` at once, half of them on each host."""
    for name in ("kvnet", "overlay"):
        began = time.perf_counter()
        runs = [partial(site.daemons[f"h{n % 2 + 1}"].run, f"crowd-{name}-{n}", f"net-{name}") for n in range(CROWD)]
        outcomes = await asyncio.gather(*(run() for run in runs), return_exceptions=True)
        took = time.perf_counter() - began
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        addresses = []
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                addresses.append(await site.daemons[f"h{number % 2 + 1}"].address(outcome, f"net-{name}"))
        is_ours = name == "kvnet"
        words = {"first": str(failures[0])[:200]} if failures else {}
        yield Figure(f"docker_crowd_{name}_s", took, "s", note=f"{CROWD} at once on 2 hosts")
        yield Figure(f"docker_crowd_{name}_failures", len(failures), "", at_most=0 if is_ours else None, details=words)
        duplicates = len(addresses) - len(set(addresses))
        yield Figure(f"docker_crowd_{name}_duplicates", duplicates, "", at_most=0 if is_ours else None)


def from_times(name: str, times: Sequence[float], at_most: float | None = None) -> Figure:
    details = {"min": round(min(times), 1), "max": round(max(times), 1), "n": len(times)}
    return Figure(name, percentile(times, 0.5), "ms", at_most=at_most, details=details)


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], at_most: float) -> Figure:
    return Figure(name, percentile(ours, 0.5) / percentile(theirs, 0.5), "x", at_most=at_most)


if __name__ == "__main__":
    inside.main(measured)
