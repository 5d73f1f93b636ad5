"""What a controller pays for all there is: to create one more, to list, to start, its memory; on the embedded store.

Processor time of the controller for each request, so that the generator and others do not count.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.controllers import HOSTS, Running, controllers
from bench.figures import Figure
from bench.fit import curve
from bench.load import Job, run_job
from bench.requests import create_network
from bench.scale.site import rss_mb
from bench.sizes import pick

IN_FLIGHT, LIST_SIZE, LISTS_IN_FLIGHT = 32, 100, 8
CREATED, LISTED = 1_000, 100
Points = list[tuple[float, float]]


@dataclass(slots=True)
class Curves:
    """By the number of things that are there already."""

    create: Points = field(default_factory=list)
    page: Points = field(default_factory=list)
    start: Points = field(default_factory=list)
    memory: Points = field(default_factory=list)

    def figures(self, name: str) -> Iterator[Figure]:
        yield curve(f"controller_create_by_{name}", "us", self.create, at_most=0.3)
        yield curve(f"controller_page_by_{name}", "us", self.page, at_most=0.3)
        yield curve(f"controller_start_by_{name}", "s", self.start)
        yield curve(f"controller_memory_by_{name}", "MB", self.memory)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    sizes = pick(quick, (100, 200), (1_000, 10_000, 100_000))
    created, listed = pick(quick, (50, 5), (CREATED, LISTED))
    yield from _grown("endpoints", sizes, _fill_endpoints, "/v1/endpoints?limit=100", created, listed)
    sizes = pick(quick, (10, 20), (10, 100, 1_000, 10_000))
    yield from _grown("networks", sizes, _fill_networks, "/v1/networks?limit=100", min(created, 200), listed)


def _grown(
    name: str, sizes: tuple[int, ...], fill: Callable[[Running, int, int], None], page: str, created: int, listed: int
) -> Iterator[Figure]:
    """One store that grows; at each size a controller of its own that finds it so."""
    found, made = Curves(), 0
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        url = f"sqlite://{folder}/kvnet.db"
        for size in sizes:
            with controllers(store_url=url) as running:
                fill(running, made, size)
                made = size
            began = time.perf_counter()
            with controllers(store_url=url) as running:
                found.start.append((size, time.perf_counter() - began))
                found.memory.append((size, rss_mb(running.pids[0])))
                found.page.append((size, _cost_us(running, listed, lambda n, r=running: _read(r, page, n))))
                found.create.append((size, _cost_us(running, created, lambda n, r=running, s=size: _create(r, n, s))))
    yield from found.figures(name)


def _cost_us(running: Running, times: int, work: Callable[[int], None]) -> float:
    before = running.cpu_seconds
    work(times)
    return max((running.cpu_seconds - before) / times * 1e6, 1.0)


def _read(running: Running, path: str, times: int) -> None:
    for _ in range(times):
        with urllib.request.urlopen(f"http://127.0.0.1:{running.ports[0]}{path}", timeout=10) as answer:
            answer.read()


def _create(running: Running, times: int, size: int) -> None:
    """In a network of their own, which is as empty at each size: what grows is all the rest."""
    number = size.bit_length() * 8
    path = create_network(running.ports[0], f"more-{size}", [{"cidr": f"192.168.{number}.0/21"}])
    bodies = tuple(json.dumps({"host": HOSTS[n % 3], "name": f"more-{size}-{n}"}) for n in range(times))
    outcome = run_job(Job(running.ports, (path,), bodies, IN_FLIGHT))
    if set(outcome.statuses) != {"201"}:
        raise RuntimeError(f"not all was created: {outcome.statuses}, {outcome.answers[0][:300]}")


def _fill_endpoints(running: Running, made: int, size: int) -> None:
    """Ten thousand to a network."""
    for start in range(made, size, 10_000):
        count = min(10_000, size - start)
        octet = 64 + start // 1_000 + (0 < start < 1_000)
        path = create_network(running.ports[0], f"full-{start}", [{"cidr": f"10.{octet}.0.0/16"}])
        names = itertools.count(start)
        lists = []
        for first in range(0, count, LIST_SIZE):
            some = range(min(LIST_SIZE, count - first))
            items = [{"host": HOSTS[n % 3], "name": f"e{next(names)}"} for n in some]
            lists.append(json.dumps({"items": items}))
        run_job(Job(running.ports, (path,), tuple(lists), LISTS_IN_FLIGHT))


def _fill_networks(running: Running, made: int, size: int) -> None:
    bodies = tuple(
        json.dumps({"name": f"net-{n}", "subnets": [{"cidr": f"10.{64 + n // 256}.{n % 256}.0/24"}]})
        for n in range(made, size)
    )
    if bodies:
        run_job(Job(running.ports, ("/v1/networks",), bodies, IN_FLIGHT))
