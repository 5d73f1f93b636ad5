"""kvnet against Docker's own drivers in the same daemons on the same hosts: bridge, overlay with a store, Swarm's.

Two hosts, one dockerd each. First with a key-value store, where Docker's bridge, its overlay and kvnet take turns; then
the same daemons form a swarm, and kvnet and Swarm's overlay do. What is compared was measured in turns, so that a busy
machine is busy for all. Both hosts are managers of the swarm, which is the quickest for it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import inside
from bench.docker_site import BRIDGE, KVNET, OVERLAY, Refused, Site, open_site, retry_arp_soon
from bench.figures import Figure, not_measured, percentile
from bench.sizes import is_quick, pick
from bench.throughput import Path_, run_path
from lab.docker_hosts import DockerFailed

SWARM: dict[str, Any] = {**OVERLAY, "Attachable": True}
POLL_S = 0.002
SLICE_S, RTT_SLICE_S = 0.7, 0.3
LISTED_S = 20.0
Times = dict[str, list[float]]
# Of what kvnet takes, in proportion to what Docker's own network between hosts takes. Creating a network has none: in a
# swarm that is a word in the memory of its managers, and here a claim in a store that all hosts have heard of.
TARGETS: Mapping[str, Mapping[str, float]] = {
    "connect": {"at_most": 1.0},
    "run_to_first_ping": {"at_most": 1.0},
    "gbit": {"at_least": 0.95},
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`subnet`: of the network that is measured; `many`: where further networks get theirs."""

    options: dict[str, Any]
    subnet: str
    many: str
    crosses: bool = True


WITH_A_STORE: Mapping[str, Kind] = {
    "bridge": Kind(BRIDGE, "10.80.0.0/24", "10.81", crosses=False),
    "overlay": Kind(OVERLAY, "10.82.0.0/24", "10.83"),
    "kvnet": Kind(KVNET, "10.84.0.0/24", "10.85"),
}
IN_A_SWARM: Mapping[str, Kind] = {
    "swarm": Kind(SWARM, "10.86.0.0/24", "10.87"),
    "kvnet_beside_swarm": Kind(KVNET, "10.88.0.0/24", "10.89"),
}


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.peers")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_site(Path(folder)) as site:
            async for figure in _round(site, WITH_A_STORE, "overlay", "kvnet"):
                yield figure
            await _form_swarm(site)
            async for figure in _round(site, IN_A_SWARM, "swarm", "kvnet_beside_swarm"):
                yield figure


async def _round(site: Site, kinds: Mapping[str, Kind], theirs: str, ours: str) -> AsyncIterator[Figure]:
    await _make_networks(site, kinds)
    for part in (_listing, _connecting, _starting, _traffic):
        try:
            times = await part(site, kinds)
        except (Refused, DockerFailed, TimeoutError) as error:
            yield not_measured(f"{ours}{part.__name__}", "", str(error)[:400])
            continue
        for figure in _told(times, theirs, ours):
            yield figure
    await _remove_networks(site, kinds)


def _told(times: Mapping[str, Times], theirs: str, ours: str) -> Iterator[Figure]:
    """The median of each, and kvnet's in proportion to what Docker does between hosts: below 1 is quicker or less."""
    for what, by_name in times.items():
        unit = {"gbit": "Gbit/s", "rtt": "us"}.get(what, "ms")
        for name, found in by_name.items():
            details = {"min": round(min(found), 2), "max": round(max(found), 2), "n": len(found)}
            yield Figure(f"{name}_{what}", percentile(found, 0.5), unit, details=details)
        if ours in by_name and theirs in by_name:
            pairs = [mine / other for mine, other in zip(by_name[ours], by_name[theirs], strict=True)]
            share = median(pairs) if what in ("gbit", "rtt") else median(by_name[ours]) / median(by_name[theirs])
            yield Figure(f"{what}_to_{theirs}", share, "x", **TARGETS.get(what, {}))


async def _make_networks(site: Site, kinds: Mapping[str, Kind]) -> None:
    """With a container on both hosts: the first ones of a network cost extra, and are not what is asked."""
    h1, h2 = site.daemons["h1"], site.daemons["h2"]
    for name, kind in kinds.items():
        await h1.create_network(f"net-{name}", kind.options, kind.subnet)
        await h1.run(f"peer-{name}-h1", f"net-{name}", _address(kind, 11))
        if kind.crosses:
            await site.until_listed("h2", f"net-{name}")
            await h2.run(f"peer-{name}-h2", f"net-{name}", _address(kind, 12))
        else:
            await h1.run(f"peer-{name}-h2", f"net-{name}", _address(kind, 12))


async def _remove_networks(site: Site, kinds: Mapping[str, Kind]) -> None:
    for name, kind in kinds.items():
        await site.daemons["h1"].remove(f"peer-{name}-h1")
        await site.daemons["h2" if kind.crosses else "h1"].remove(f"peer-{name}-h2")
        await site.daemons["h1"].call("DELETE", f"/networks/net-{name}")


async def _listing(site: Site, kinds: Mapping[str, Kind]) -> Mapping[str, Times]:
    """From the call that creates a network on one host until the other's Docker lists it."""
    listed: Times = {name: [] for name, kind in kinds.items() if kind.crosses}
    created: Times = {name: [] for name in kinds}
    for number in range(pick(is_quick(), 2, 15)):
        for name, kind in kinds.items():
            network = f"seen-{name}-{number}"
            seen = asyncio.ensure_future(_seen(site, network)) if kind.crosses else None
            began = time.perf_counter()
            await site.daemons["h1"].create_network(network, kind.options, f"{kind.many}.{number}.0/24")
            created[name].append((time.perf_counter() - began) * 1000)
            if seen is not None:
                listed[name].append((await seen - began) * 1000)
            await site.daemons["h1"].call("DELETE", f"/networks/{network}")
    return {"network_create": created, "network_listed_elsewhere": listed}


async def _seen(site: Site, network: str) -> float:
    async with asyncio.timeout(LISTED_S):
        while not await site.daemons["h2"].lists(network):  # noqa: ASYNC110 - Docker tells it to nobody
            await asyncio.sleep(POLL_S)
    return time.perf_counter()


async def _connecting(site: Site, kinds: Mapping[str, Kind]) -> Mapping[str, Times]:
    h1 = site.daemons["h1"]
    container = await h1.run("connected", "none")
    await h1.disconnect("none", container)
    connects: Times = {name: [] for name in kinds}
    disconnects: Times = {name: [] for name in kinds}
    for _ in range(pick(is_quick(), 2, 20)):
        for name in kinds:
            connects[name].append(await h1.connect(f"net-{name}", container))
            disconnects[name].append(await h1.disconnect(f"net-{name}", container))
    await h1.remove(container)
    return {"connect": connects, "disconnect": disconnects}


async def _starting(site: Site, kinds: Mapping[str, Kind]) -> Mapping[str, Times]:
    """From the call that runs a container to its first answer to one of the other host, which asks all along."""
    h1 = site.daemons["h1"]
    names = [name for name, kind in kinds.items() if kind.crosses]
    asking = {name: await site.netns_of("h2", f"peer-{name}-h2") for name in names}
    for netns in asking.values():
        retry_arp_soon(netns)
    firsts: Times = {name: [] for name in names}
    calls: Times = {name: [] for name in names}
    for number in range(pick(is_quick(), 1, 10)):
        for name in names:
            address = _address(kinds[name], 100 + number)
            first = asyncio.ensure_future(site.until_answered(asking[name], address))
            began = time.perf_counter()
            container = await h1.run(f"start-{name}", f"net-{name}", address)
            calls[name].append((time.perf_counter() - began) * 1000)
            firsts[name].append((await first - began) * 1000)
            await h1.remove(container)
    return {"run": calls, "run_to_first_ping": firsts}


async def _traffic(site: Site, kinds: Mapping[str, Kind]) -> Mapping[str, Times]:
    """In turns, in an order that changes; the bridge's two containers are on one host."""
    paths: dict[str, Path_] = {}
    for name, kind in kinds.items():
        source = await site.netns_of("h1", f"peer-{name}-h1")
        target = await site.netns_of("h2" if kind.crosses else "h1", f"peer-{name}-h2")
        paths[name] = Path_(source, target, _address(kind, 12))
    return await asyncio.to_thread(_measured_traffic, paths)


def _measured_traffic(paths: Mapping[str, Path_]) -> Mapping[str, Times]:
    rates: Times = {name: [] for name in paths}
    trips: Times = {name: [] for name in paths}
    for path in paths.values():  # neighbours are known, both ends are warm
        run_path(path, "send", "receive", 0.2)
    for number in range(pick(is_quick(), 1, 8)):
        for name in _turn(list(paths), number):
            rates[name].append(run_path(paths[name], "send", "receive", SLICE_S) * 8 / 1e9)
            trips[name].append(run_path(paths[name], "answer", "ask", RTT_SLICE_S))
    return {"gbit": rates, "rtt": trips}


def _turn(names: Sequence[str], number: int) -> Sequence[str]:
    return names if number % 2 == 0 else list(reversed(names))


async def _form_swarm(site: Site) -> None:
    """The daemons are started anew without the store, and both become managers of one swarm."""
    for host in site.lab.hosts.values():
        await host.stop()
        host.options = ()
        await host.start()
    addresses = {name: str(host.host.port.underlay) for name, host in site.lab.hosts.items()}
    listen = {"ListenAddr": f"{addresses['h1']}:2377", "AdvertiseAddr": addresses["h1"]}
    await site.daemons["h1"].call("POST", "/swarm/init", listen)
    swarm = await site.daemons["h1"].call("GET", "/swarm")
    join = {"ListenAddr": f"{addresses['h2']}:2377", "AdvertiseAddr": addresses["h2"]}
    remote = {"RemoteAddrs": [f"{addresses['h1']}:2377"], "JoinToken": swarm["JoinTokens"]["Manager"]}
    await site.daemons["h2"].call("POST", "/swarm/join", {**join, **remote})


def _address(kind: Kind, number: int) -> str:
    return kind.subnet.replace("0/24", str(number))


if __name__ == "__main__":
    inside.main(measured)
