"""Creation of endpoints on etcd: one a request through three controllers, and in lists; beside what the store gives.

The store's own rate is that of transactions of the shape of a creation (`bench.limits`), and how many endpoints the
controllers put into one is read from them: so the ratio says what HTTP, validation, choice and the journal cost.
"""

from __future__ import annotations

import itertools
import json
import re
import urllib.request
from collections.abc import Iterator, Sequence

from bench import servers
from bench.controllers import HOSTS, Running, controllers, truth
from bench.figures import Figure, percentile
from bench.limits import store_limits
from bench.load import Job, Outcome, run_job
from bench.requests import create_network
from bench.sizes import pick

STORE, CONTROLLERS = "etcd3.5", 3
IN_FLIGHT, LISTS_IN_FLIGHT, LIST_SIZE = 192, 12, 100
COMMITS = re.compile(r'^kvnet_store_request_duration_seconds_count\{op="commit"\} (\S+)$', re.MULTILINE)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    at_most = {f.name: f.value or 0.0 for f in store_limits(STORE, seconds=pick(quick, 0.3, 4.0))}
    yield from _one_a_request(pick(quick, 300, 12_000), pick(quick, 100, 1_500), at_most["etcd_commits_packed"])
    yield from _in_lists(pick(quick, 10, 500), at_most["etcd_commits_packed"])


def _one_a_request(count: int, warm_up: int, transactions: float) -> Iterator[Figure]:
    with servers.store(STORE) as url, controllers(CONTROLLERS, store_url=url) as running:
        path = create_network(running.ports[0], "bench", [{"cidr": "10.64.0.0/16"}])
        run_job(Job(running.ports, (path,), tuple(_bodies("warm", warm_up)), IN_FLIGHT))
        outcome, cpu_s, commits = _run(running, Job(running.ports, (path,), tuple(_bodies("one", count)), IN_FLIGHT))
        made = outcome.statuses.get("201", 0)
        rate = made / outcome.seconds
        details = _details(outcome, cpu_s, made, commits)
        note = f"{CONTROLLERS} controllers, {IN_FLIGHT} in flight"
        yield Figure("single_per_s", rate, "1/s", at_least=2500, note=note, details=details)
        yield Figure("single_p50", percentile(outcome.latencies_ms, 0.5), "ms")
        yield Figure("single_p99", percentile(outcome.latencies_ms, 0.99), "ms")
        yield Figure("single_controller_cpu", cpu_s / made * 1e6, "us")
        yield Figure("single_batch", made / commits, "endpoints a transaction")
        yield Figure("single_of_store", rate / (transactions * made / commits), "ratio")
        yield from _truths("single", running, count + warm_up)


def _in_lists(lists: int, transactions: float) -> Iterator[Figure]:
    with servers.store(STORE) as url, controllers(CONTROLLERS, store_url=url) as running:
        path = create_network(running.ports[0], "bench", [{"cidr": "10.64.0.0/12"}])
        run_job(Job(running.ports, (path,), tuple(_lists("warm", 5)), LISTS_IN_FLIGHT))
        outcome, cpu_s, commits = _run(
            running, Job(running.ports, (path,), tuple(_lists("bulk", lists)), LISTS_IN_FLIGHT)
        )
        items = [item["status"] for answer in outcome.answers for item in json.loads(answer)["items"]]
        made = items.count(201)
        rate = made / outcome.seconds
        details = _details(outcome, cpu_s, made, commits)
        note = f"{CONTROLLERS} controllers, lists of {LIST_SIZE}, {LISTS_IN_FLIGHT} in flight"
        yield Figure("bulk_per_s", rate, "1/s", at_least=10_000, note=note, details=details)
        yield Figure("bulk_controller_cpu", cpu_s / made * 1e6, "us")
        yield Figure("bulk_batch", made / commits, "endpoints a transaction")
        yield Figure("bulk_of_store", rate / (transactions * made / commits), "ratio")
        yield from _truths("bulk", running, (lists + 5) * LIST_SIZE)


def _run(running: Running, job: Job) -> tuple[Outcome, float, float]:
    """The outcome, the processor's time of all controllers, and how many store transactions they made of it."""
    cpu_s, commits = running.cpu_seconds, _commits(running.ports)
    outcome = run_job(job)
    return outcome, running.cpu_seconds - cpu_s, max(1.0, _commits(running.ports) - commits)


def _details(outcome: Outcome, cpu_s: float, made: int, commits: float) -> dict[str, object]:
    """`cores_of_others`: what the store took, and whatever else ran on this machine."""
    others = max(0.0, outcome.machine_cpu_seconds - cpu_s - outcome.cpu_seconds) / outcome.seconds
    return {
        "seconds": round(outcome.seconds, 2),
        "statuses": outcome.statuses,
        "transactions": round(commits),
        "generator_cpu_us_each": round(outcome.cpu_seconds / made * 1e6, 1),
        "cores_of_controllers": round(cpu_s / outcome.seconds, 2),
        "cores_of_others": round(others, 2),
    }


def _truths(name: str, running: Running, expected: int) -> Iterator[Figure]:
    found = truth(running.store_url)
    wrong = found.duplicate_addresses + abs(expected - found.endpoints) + len(found.findings)
    yield Figure(f"{name}_wrong", wrong, "endpoints", at_most=0, note="doubled, lost, or found by the check")


def _commits(ports: Sequence[int]) -> float:
    return sum(float(COMMITS.findall(_metrics(port))[0]) for port in ports)


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _bodies(prefix: str, count: int) -> Iterator[str]:
    for number in range(count):
        yield json.dumps({"host": HOSTS[number % len(HOSTS)], "name": f"{prefix}-{number}"})


def _lists(prefix: str, count: int) -> Iterator[str]:
    items = _bodies(prefix, count * LIST_SIZE)
    for _ in range(count):
        yield f'{{"items":[{",".join(itertools.islice(items, LIST_SIZE))}]}}'
