"""What a host pays: for the endpoints, hosts and networks that it carries, and for those that it does not.

A pass is a copy of what is known, desired state, findings and plan, as the worker makes it; a pass over everything
holds that against entries that are equal and not the same, as a kernel's are. Memory is what Python has allocated for
the mirrored values, the desired state and what is remembered between passes. What a host does not carry it is not told
of: that is measured with a real worker on the gateway, in a cluster that grows around it.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from bench.figures import Figure
from bench.fit import curve
from bench.scale import as_they_come
from bench.scale.site import Site, open_site
from bench.sizes import pick
from datapath.census import Course
from datapath.conditions import findings
from datapath.desired import Attachment, HostView, Memo, desired
from datapath.objects import HostState
from datapath.plan import plan
from kvnet.model import Driver, Endpoint, Host, Network, Subnet

ROUNDS = 5
FEW, MANY = (1_000, 3_000, 10_000, 30_000, 100_000), (10, 30, 100, 300, 1_000)
NETWORKS = (10, 100, 1_000, 10_000)
CARRIED = 1_000
CHANGES_ELSEWHERE = 200
SETTLED_S = 2.0
# A host that carries the same pays the same: what differs is noise.
INDEPENDENT = 0.2


def figures(*, quick: bool = False) -> Iterator[Figure]:
    yield from _passes("endpoints", pick(quick, (100, 300), FEW), lambda n: _view(endpoints=n, hosts=20))
    yield from _passes("hosts", pick(quick, (10, 30), MANY), lambda n: _view(endpoints=CARRIED, hosts=n))
    yield from _passes(
        "networks", pick(quick, (3, 9), NETWORKS), lambda n: _view(endpoints=3 * n, hosts=20, networks=n)
    )
    yield from as_they_come(_elsewhere(pick(quick, (100, 200), (1_000, 5_000, 20_000, 50_000))))


def _passes(name: str, sizes: tuple[int, ...], made: Callable[[int], HostView]) -> Iterator[Figure]:
    """A pass over everything, one more endpoint, and memory, for each size."""
    whole, more, memory = [], [], []
    for size in sizes:
        tracemalloc.start(1)
        view, memo = made(size), Memo()
        wanted = desired(view, memo=memo)
        memory.append((size, tracemalloc.get_traced_memory()[0] / 1024))
        tracemalloc.stop()
        whole.append((size, _pass_ms(view, memo, desired(view, memo=Memo()))))
        del wanted
        more.append((size, _one_more_ms(view, memo)))
        gc.collect()
    yield curve(f"host_pass_by_{name}", "ms", whole)
    yield curve(f"host_change_by_{name}", "ms", more)
    yield curve(f"host_memory_by_{name}", "KB", memory)


def _pass_ms(view: HostView, memo: Memo, there: HostState) -> float:
    return _best_ms(lambda: plan(desired(_given(view), memo=memo), there))


def _given(view: HostView, network: str | None = None, changed: Sequence[str] = ()) -> HostView:
    """As the worker gives it to a pass, over everything or one network: copies, and which changes led to that."""
    given = view.endpoints if network is None else {network: view.endpoints[network]}
    course = Course(view.hosts, len(changed), changed)
    return replace(view, endpoints={id_: dict(of) for id_, of in given.items()}, courses=dict.fromkeys(given, course))


def _one_more_ms(view: HostView, memo: Memo) -> float:
    """One endpoint more, on another host, in the first network: as the pass that a watch causes."""
    network = next(iter(view.networks))
    before = desired(_given(view), network, memo)
    endpoints = view.endpoints[network]
    changed: list[str] = []
    best = float("inf")
    for number in range(ROUNDS):
        one = _endpoint(network, len(endpoints) + 1, "h1", f"more{number}")
        endpoints = {**endpoints, one.id: one}
        changed.append(one.id)
        mirrored = replace(view, endpoints={network: endpoints})
        began = time.process_time()
        after = _given(mirrored, network, tuple(changed))
        wanted = desired(after, network, memo)
        findings(after, network, memo)
        plan(wanted, before)
        best = min(best, time.process_time() - began)
        before = wanted
    return max(best * 1000, 0.001)


def _view(*, endpoints: int, hosts: int, networks: int = 1) -> HostView:
    """One endpoint of each network is here, the others are spread over the other hosts."""
    known = {f"h{n}": Host(f"h{n}", ip_address("198.18.0.1") + n, 1500) for n in range(hosts)}
    each = endpoints // networks
    found: dict[str, dict[str, Endpoint]] = {}
    specified: dict[str, Network] = {}
    attachments: dict[str, Attachment] = {}
    for number in range(networks):
        id_ = f"{number:012x}"
        cidr = ip_network(
            (int(ip_address("10.0.0.0")) + (number << 8 if networks > 1 else 0), 24 if networks > 1 else 8)
        )
        subnet = Subnet(cidr, cidr.network_address + 1)
        specified[id_] = Network(id_, f"n{number}", Driver.OVERLAY, (subnet,), 0.0, vni=number + 1)
        here = _endpoint(id_, 1, "h0", f"{number}-0", cidr.network_address)
        others = [
            _endpoint(id_, n + 1, f"h{1 + n % (hosts - 1)}", f"{number}-{n}", cidr.network_address)
            for n in range(1, each)
        ]
        found[id_] = {endpoint.id: endpoint for endpoint in (here, *others)}
        attachments[here.id] = Attachment(here.id, f"/run/netns/{number}", "eth0")
    return HostView("h0", known, specified, found, attachments)


def _endpoint(network: str, number: int, host: str, id_: str, base: object = ip_address("10.0.0.0")) -> Endpoint:
    address = ip_address(str(base)) + number + 1
    mac = "02:" + ":".join(f"{int(address) >> shift & 255:02x}" for shift in (32, 24, 16, 8, 0))
    return Endpoint(id_, network, host, f"e{id_}", (address,), mac, 0.0)


def _best_ms(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return max(best * 1000, 0.001)


async def _elsewhere(sizes: tuple[int, ...]) -> AsyncIterator[Figure]:
    """A worker that carries a hundred endpoints, while the rest of the cluster grows and changes."""
    processor, memory = [], []
    async with open_site("sqlite") as site:
        await site.seed_hosts(100)
        names = list(site.hosts)
        await site.create_network("here", "10.64.0.0/16")
        await site.seed_endpoints("here", names[:10] * 10)
        await site.create_network("elsewhere", "10.128.0.0/12")
        site.hosts = {names[0]: site.hosts[names[0]]}
        made = 0
        await site.start_workers(1, ttl_s=60.0)
        for size in sizes:
            await site.seed_endpoints("elsewhere", names[1:100] * ((size - made) // 99 + 1), prefix=f"at{size}-")
            made = size
            await asyncio.sleep(SETTLED_S)
            processor.append((size, await _idle_ms(site, names, size)))
            memory.append((size, (await site.ask_all("usage"))[0]["rss_mb"]))
    note = f"of processor, while {CHANGES_ELSEWHERE} endpoints are made in networks that it does not carry"
    found = curve("host_idle_by_cluster", "ms", processor, at_most=INDEPENDENT)
    yield replace(found, note=note)
    yield curve("host_resident_by_cluster", "MB", memory, at_most=INDEPENDENT)


async def _idle_ms(site: Site, names: list[str], size: int) -> float:
    before = (await site.ask_all("usage"))[0]["cpu_s"]
    for start in range(0, CHANGES_ELSEWHERE, 20):
        await site.seed_endpoints("elsewhere", names[1:21], prefix=f"change{size}-{start}-")
        await asyncio.sleep(0.2)
    return max(((await site.ask_all("usage"))[0]["cpu_s"] - before) * 1000, 1.0)
