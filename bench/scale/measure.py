"""What is asked of the simulated site: how soon it starts, how soon a change is everywhere, what that costs whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, percentile
from bench.scale.site import Site, Tap, open_site

EVERYWHERE, LARGE = "everywhere", "large"
QUIET_S = 3.0
SETTLED_S = 1.5
PATIENCE_S = 60.0
TTL_S = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """One network has an endpoint on every host; the others are in networks of `group` hosts, two for each host.
    `burst_hosts`: so many hosts carry one network more, into which the burst goes."""

    store: str
    replicas: int
    hosts: int
    endpoints: int
    processes: int
    changes: int
    group: int = 10
    burst_hosts: int = 100
    burst: int = 1_000


async def measured(size: Size) -> AsyncIterator[Figure]:
    prefix = f"{size.store.partition('3')[0]}_{size.hosts}"
    async with open_site(size.store, replicas=size.replicas) as site:
        took_s = await _seed(site, size)
        yield Figure(f"{prefix}_seeded", took_s, "s", details={"endpoints": size.endpoints})
        for figure in await _start(site, size, prefix):
            yield figure
        await asyncio.sleep(QUIET_S)
        for figure in await _at_rest(site, size, prefix):
            yield figure
        for figure in await _changes(site, size, prefix):
            yield figure
        for figure in await _bursts(site, size, prefix):
            yield figure


async def _seed(site: Site, size: Size) -> float:
    began = time.monotonic()
    await site.seed_hosts(size.hosts)
    names = list(site.hosts)
    await site.create_network(EVERYWHERE, "10.64.0.0/16")
    await site.seed_endpoints(EVERYWHERE, names)
    await site.create_network(LARGE, "10.65.0.0/16")
    await site.seed_endpoints(LARGE, names[: size.burst_hosts])
    groups = [names[start : start + size.group] for start in range(0, len(names), size.group)]
    each = (size.endpoints - len(names) - size.burst_hosts) // (2 * len(groups))
    for number in range(2 * len(groups)):
        name, group = f"n{number}", groups[number % len(groups)]
        await site.create_network(name, f"10.{128 + number // 64}.{number % 64 * 4}.0/22")
        await site.seed_endpoints(name, [group[place % len(group)] for place in range(each)])
    return time.monotonic() - began


async def _start(site: Site, size: Size, prefix: str) -> list[Figure]:
    before, began = site.controller_usage(), time.monotonic()
    said = await site.start_workers(size.processes, ttl_s=TTL_S)
    ready_s = max(answer["ready_at"] for answer in said) - began
    used, controllers = await _used(site), site.controller_usage()
    cpu_s = controllers["cpu_s"] - before["cpu_s"]
    return [
        Figure(f"{prefix}_cold_start", ready_s, "s", note="all workers at once, each with all that it carries built"),
        Figure(f"{prefix}_cold_start_worker", used["cpu_s"] / size.hosts * 1e3, "ms", note="of processor, each"),
        Figure(
            f"{prefix}_cold_start_controllers", cpu_s / size.hosts * 1e3, "ms", note="of processor, for each worker"
        ),
        Figure(f"{prefix}_worker_memory", used["rss_mb"] / size.hosts, "MB", note="beyond the interpreter it shares"),
        Figure(f"{prefix}_controller_memory", controllers["rss_mb"], "MB", details={"replicas": size.replicas}),
    ]


async def _at_rest(site: Site, size: Size, prefix: str) -> list[Figure]:
    """Proofs of life and signs of life, and nothing else."""
    workers, controllers, store = await _used(site), site.controller_usage(), site.store_usage()
    began = time.monotonic()
    await asyncio.sleep(2 * QUIET_S)
    seconds = time.monotonic() - began
    spent = {
        "workers": (await _used(site))["cpu_s"] - workers["cpu_s"],
        "controllers": site.controller_usage()["cpu_s"] - controllers["cpu_s"],
        "store": site.store_usage()["cpu_s"] - store["cpu_s"],
    }
    return [
        Figure(f"{prefix}_at_rest_{who}", cpu_s / seconds * 100, "% of a core", details={"hosts": size.hosts})
        for who, cpu_s in spent.items()
    ]


async def _changes(site: Site, size: Size, prefix: str) -> list[Figure]:
    """One endpoint more in the network that is on every host, again and again."""
    applied: list[float] = []
    everywhere: list[float] = []
    late = 0
    before, controllers, store = await _used(site), site.controller_usage(), site.store_usage()
    tap = Tap()
    tapping = asyncio.create_task(tap.run(site.running.store_url))
    await asyncio.sleep(SETTLED_S)
    for number in range(size.changes):
        address, host = f"10.64.200.{number + 1}", f"n{number % size.hosts}"
        took, missing = await _one_change(site, EVERYWHERE, [{"host": host, "name": f"x{number}", "address": address}])
        applied += took
        everywhere.append(max(took, default=0.0))
        late += missing
        await asyncio.sleep(SETTLED_S)
    after, changes = await _used(site), size.changes
    tapping.cancel()
    await asyncio.gather(tapping, return_exceptions=True)
    cpu = site.controller_usage()["cpu_s"] - controllers["cpu_s"]
    store_cpu = site.store_usage()["cpu_s"] - store["cpu_s"]
    worker_us = (after["cpu_s"] - before["cpu_s"]) / changes / size.hosts * 1e6
    details = {"changes": changes, "hosts": size.hosts, "late": late}
    return [
        Figure(f"{prefix}_applied_p50", percentile(applied, 0.5) * 1e3, "ms", details=details),
        Figure(f"{prefix}_applied_p99", percentile(applied, 0.99) * 1e3, "ms", at_most=1000, details=details),
        Figure(f"{prefix}_everywhere_p50", percentile(everywhere, 0.5) * 1e3, "ms", note="until the last host has it"),
        Figure(f"{prefix}_everywhere_max", max(everywhere) * 1e3, "ms"),
        Figure(f"{prefix}_hosts_without", late, "hosts", at_most=0),
        Figure(f"{prefix}_change_worker", worker_us, "us", note="of processor, each host, a change"),
        Figure(f"{prefix}_change_controllers", cpu / changes * 1e3, "ms", note="of processor, a change"),
        Figure(f"{prefix}_change_store", store_cpu / changes * 1e3, "ms", note="of processor, a change"),
        Figure(
            f"{prefix}_change_commits", tap.commits / changes, "commits", note="the endpoint's, and the hosts' reports"
        ),
        Figure(f"{prefix}_change_bytes", tap.bytes / changes / 1024, "KB", note="of keys and values written"),
    ]


async def _bursts(site: Site, size: Size, prefix: str) -> list[Figure]:
    """So many endpoints at once: into one network of many hosts, and over the whole site into networks of a few."""
    names = list(site.hosts)
    hosts = names[: size.burst_hosts]
    into_one: Mapping[str, Sequence[str]] = {LARGE: [hosts[n % len(hosts)] for n in range(size.burst)]}
    groups = len(names) // size.group
    spread: dict[str, list[str]] = {}
    for number in range(size.burst):
        group = number % groups
        spread.setdefault(f"n{group}", []).append(names[group * size.group + number // groups % size.group])
    one_s, one_late = await _burst(site, into_one, "one")
    spread_s, spread_late = await _burst(site, spread, "spread")
    details = {"endpoints": size.burst, "hosts": len(hosts), "behind": one_late}
    return [
        Figure(f"{prefix}_burst_one_network", one_s, "s", at_most=5, details=details),
        Figure(
            f"{prefix}_burst_spread",
            spread_s,
            "s",
            at_most=5,
            details={**details, "hosts": size.hosts, "behind": spread_late},
        ),
    ]


async def _burst(site: Site, wanted: Mapping[str, Sequence[str]], name: str) -> tuple[float, int]:
    """From the first request until every host that takes part has all of it in its kernel."""
    began = time.monotonic()
    latest = await asyncio.gather(
        *(site.seed_endpoints(network, hosts, prefix=name, are_attached=False) for network, hosts in wanted.items())
    )
    versions = {site.networks[network]: version for network, version in zip(wanted, latest, strict=True)}
    said = await site.ask_all("until_applied", versions=versions, patience_s=PATIENCE_S)
    return max(answer["at"] for answer in said) - began, sum(len(answer["behind"]) for answer in said)


async def _one_change(site: Site, network: str, bodies: Sequence[Any]) -> tuple[list[float], int]:
    """Seconds from the request until each host's kernel has it, and how many hosts never had it."""
    await site.ask_all("expect", addresses=[body["address"] for body in bodies])
    began = time.monotonic()
    await site.client.create_endpoints(network, bodies)
    said = await site.ask_all("arrivals", patience_s=PATIENCE_S)
    return [at - began for answer in said for at in answer["at"]], sum(len(answer["late"]) for answer in said)


async def _used(site: Site) -> dict[str, float]:
    said = await site.ask_all("usage")
    return {name: sum(answer[name] for answer in said) for name in ("cpu_s", "rss_mb", "operations", "passes")}
