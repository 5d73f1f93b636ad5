"""Creation over HTTP on the embedded store: one endpoint a request, a hundred a request, and networks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from bench.controllers import HOSTS, Running, controllers, truth
from bench.figures import Figure, percentile
from bench.load import Job, Outcome, run_job
from bench.requests import create_network

IN_FLIGHT = 64
WARM_UP = 500
SINGLE = 10_000
LISTS, LIST_SIZE, LISTS_IN_FLIGHT = 400, 100, 8
NETWORKS = 2_000


def figures() -> Iterator[Figure]:
    yield from _single("endpoints_per_s", [{"cidr": "10.64.0.0/16"}], at_least=1500)
    yield from _single("endpoints_per_s_dual_stack", [{"cidr": "10.64.0.0/16"}, {"cidr": "fd00:64::/64"}])
    yield from _bulk()
    yield from _networks()


def _single(name: str, subnets: list[dict[str, str]], at_least: float | None = None) -> Iterator[Figure]:
    with controllers() as running:
        path = create_network(running.ports[0], "bench", subnets)
        run_job(Job(running.ports, (path,), tuple(itertools.islice(_endpoints("warm"), WARM_UP)), IN_FLIGHT))
        before = running.cpu_seconds
        outcome = run_job(Job(running.ports, (path,), tuple(itertools.islice(_endpoints("one"), SINGLE)), IN_FLIGHT))
        cpu = running.cpu_seconds - before
        yield _rate(name, outcome, SINGLE, cpu, at_least, "one endpoint a request, 64 in flight")
        yield from _latencies(name.replace("_per_s", "_create"), outcome)
        yield from _truths(name, running, outcome, SINGLE + WARM_UP)


def _bulk() -> Iterator[Figure]:
    with controllers() as running:
        path = create_network(running.ports[0], "bench", [{"cidr": "10.64.0.0/12"}])
        run_job(Job(running.ports, (path,), tuple(_lists("warm", 5)), LISTS_IN_FLIGHT))
        before = running.cpu_seconds
        outcome = run_job(Job(running.ports, (path,), tuple(_lists("bulk", LISTS)), LISTS_IN_FLIGHT))
        cpu = running.cpu_seconds - before
        total = LISTS * LIST_SIZE
        yield _rate(
            "endpoints_per_s_bulk", outcome, total, cpu, 8000, "lists of 100, answered item by item, 8 in flight"
        )
        items = [item["status"] for answer in outcome.answers for item in json.loads(answer)["items"]]
        yield Figure("bulk_items_refused", len(items) - items.count(201), "items", at_most=0)
        yield from _truths("endpoints_bulk", running, outcome, total + 5 * LIST_SIZE)


def _networks() -> Iterator[Figure]:
    with controllers() as running:
        bodies = [json.dumps({"name": f"net-{i}"}) for i in range(NETWORKS + WARM_UP)]
        run_job(Job(running.ports, ("/v1/networks",), tuple(bodies[:WARM_UP]), IN_FLIGHT))
        before = running.cpu_seconds
        outcome = run_job(Job(running.ports, ("/v1/networks",), tuple(bodies[WARM_UP:]), IN_FLIGHT))
        cpu = running.cpu_seconds - before
        yield _rate("networks_per_s", outcome, NETWORKS, cpu, 300, "automatic dual-stack subnets, 64 in flight")
        yield from _latencies("network_create", outcome)
        found = truth(running.store_url)
        yield Figure("networks_lost", NETWORKS + WARM_UP - found.networks, "networks", at_most=0)
        yield Figure("networks_findings", len(found.findings), "findings", at_most=0, details=_first(found.findings))


def _rate(name: str, outcome: Outcome, count: int, cpu: float, at_least: float | None, note: str) -> Figure:
    wrong = {status: n for status, n in outcome.statuses.items() if status not in ("200", "201")}
    others = max(0.0, outcome.machine_cpu_seconds - cpu - outcome.cpu_seconds) / outcome.seconds
    details = {
        "cores_used_by_others": round(others, 2),
        "seconds": round(outcome.seconds, 2),
        "controller_cpu_us_each": round(cpu / count * 1e6, 1),
        "generator_cpu_us_each": round(outcome.cpu_seconds / count * 1e6, 1),
        **({"refused": wrong, "first": next(a for a in outcome.answers if '"status":' in a)} if wrong else {}),
    }
    done = count if not wrong else count - sum(wrong.values())
    return Figure(name, done / outcome.seconds, "1/s", at_least=at_least, note=note, details=details)


def _latencies(name: str, outcome: Outcome) -> Iterator[Figure]:
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        yield Figure(f"{name}_{label}", percentile(outcome.latencies_ms, share), "ms", note="at 64 in flight")


def _truths(name: str, running: Running, outcome: Outcome, expected: int) -> Iterator[Figure]:
    found = truth(running.store_url)
    yield Figure(f"{name}_duplicates", found.duplicate_addresses, "addresses", at_most=0)
    yield Figure(
        f"{name}_lost", expected - found.endpoints, "endpoints", at_most=0, note="acknowledged, not in the store"
    )
    yield Figure(f"{name}_findings", len(found.findings), "findings", at_most=0, details=_first(found.findings))


def _first(findings: tuple[str, ...]) -> dict[str, list[str]]:
    return {"first": list(findings[:5])} if findings else {}


def _endpoints(prefix: str) -> Iterator[str]:
    for i in itertools.count():
        yield json.dumps({"host": HOSTS[i % len(HOSTS)], "name": f"{prefix}-{i}"})


def _lists(prefix: str, count: int) -> Iterator[str]:
    items = _endpoints(prefix)
    for _ in range(count):
        yield f'{{"items":[{",".join(itertools.islice(items, LIST_SIZE))}]}}'
