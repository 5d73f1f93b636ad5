"""Every store in one run: creation over HTTP, what it costs the store, when others see it, and a start on much data.

`python -m bench stores` measures; `python -m bench.stores [KIND...] --write` also puts the table into
docs/performance.md.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import servers
from bench.controllers import HOSTS, Running, controllers, truth
from bench.figures import Figure, machine, percentile
from bench.load import Job, Outcome, run_job
from bench.requests import create_network, post
from bench.seen import watcher

IN_FLIGHT = 64
WARM_UP = 500
SINGLE = 6_000
SEEN = 200
SEEN_EVERY_S = 0.02
MANY, LIST_SIZE, LISTS_IN_FLIGHT = 50_000, 100, 4
AT_LEAST = {"sqlite": 1500.0, "etcd3.4": 1500.0, "etcd3.5": 1500.0, "consul": 1500.0, "zookeeper": 1200.0}
COMMITS = re.compile(r'^kvnet_store_request_duration_seconds_count\{op="commit"\} (\S+)$', re.MULTILINE)
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench stores -->", "<!-- end -->"


def figures(kinds: Sequence[str] = servers.KINDS) -> Iterator[Figure]:
    for kind in kinds:
        with servers.store(kind) as url:
            yield from _creation(kind, url)
        with servers.store(kind) as url:
            yield from _visibility(kind, url)
        with servers.store(kind) as url:
            yield from _start(kind, url)
    if "etcd3.5" in kinds:
        yield from _three_controllers()


def _creation(kind: str, url: str) -> Iterator[Figure]:
    with controllers(store_url=url) as running:
        outcome, commits = _create(running)
        others = max(0.0, outcome.machine_cpu_seconds - outcome.cpu_seconds) / outcome.seconds
        details = {"statuses": outcome.statuses, "cores_used_beside_the_generator": round(others, 2)}
        rate = outcome.statuses.get("201", 0) / outcome.seconds
        yield Figure(f"{kind}_endpoints_per_s", rate, "1/s", at_least=AT_LEAST[kind], details=details)
        yield Figure(f"{kind}_create_p50", percentile(outcome.latencies_ms, 0.5), "ms", note="64 in flight")
        yield Figure(f"{kind}_create_p99", percentile(outcome.latencies_ms, 0.99), "ms", note="64 in flight")
        yield Figure(f"{kind}_transactions_per_1000", commits / SINGLE * 1000, "commits")
        yield from _truths(kind, running, SINGLE + WARM_UP)


def _create(running: Running) -> tuple[Outcome, float]:
    """One endpoint a request; the outcome, and how many store transactions all controllers made of it."""
    path = create_network(running.ports[0], "bench", [{"cidr": "10.64.0.0/16"}])
    run_job(Job(running.ports, (path,), tuple(itertools.islice(_endpoints("warm"), WARM_UP)), IN_FLIGHT))
    before = _commits(running)
    outcome = run_job(Job(running.ports, (path,), tuple(itertools.islice(_endpoints("one"), SINGLE)), IN_FLIGHT))
    return outcome, _commits(running) - before


def _commits(running: Running) -> float:
    return sum(float(COMMITS.findall(_metrics(port))[0]) for port in running.ports)


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _truths(name: str, running: Running, expected: int) -> Iterator[Figure]:
    found = truth(running.store_url)
    yield Figure(f"{name}_duplicates", found.duplicate_addresses, "addresses", at_most=0)
    yield Figure(f"{name}_lost", expected - found.endpoints, "endpoints", at_most=0)
    yield Figure(f"{name}_findings", len(found.findings), "findings", at_most=0, details={"first": found.findings[:3]})


def _visibility(kind: str, url: str) -> Iterator[Figure]:
    """From the request's first byte until another process's mirror has the endpoint: directly, and by the gateway."""
    with controllers(store_url=url) as running, tempfile.TemporaryDirectory() as folder:
        port = running.ports[0]
        path = create_network(port, "bench", [{"cidr": "10.64.0.0/16"}])
        prefix = f"endpoints/{path.split('/')[3]}/"
        gateway = f"http://127.0.0.1:{port}"
        with (
            watcher(url, prefix, Path(folder, "direct")) as direct,
            watcher(gateway, prefix, Path(folder, "gateway")) as through,
        ):
            sent = {}
            for number in range(SEEN):
                began = time.monotonic_ns()
                made = post(port, path, {"host": HOSTS[0], "name": f"seen-{number}"})
                sent[prefix + made["id"]] = began
                time.sleep(SEEN_EVERY_S)
            time.sleep(0.5)
            for name, seen in (("direct", direct.times), ("gateway", through.times)):
                took = [(seen[key] - began) / 1e6 for key, began in sent.items() if key in seen]
                missing = {"missing": SEEN - len(took)} if len(took) < SEEN else {}
                yield Figure(f"{kind}_seen_{name}_p50", percentile(took, 0.5), "ms", at_most=10, details=missing)
                yield Figure(f"{kind}_seen_{name}_p99", percentile(took, 0.99), "ms", at_most=60)


def _start(kind: str, url: str) -> Iterator[Figure]:
    with controllers(store_url=url) as running:
        path = create_network(running.ports[0], "bench", [{"cidr": "10.64.0.0/12"}])
        lists = tuple(_lists(MANY // LIST_SIZE))
        outcome = run_job(Job(running.ports, (path,), lists, LISTS_IN_FLIGHT))
        yield Figure(f"{kind}_endpoints_per_s_bulk", MANY / outcome.seconds, "1/s", details=outcome.statuses)
    began = time.perf_counter()
    with controllers(store_url=url):
        yield Figure(f"{kind}_start_on_{MANY}", time.perf_counter() - began, "s", at_most=10)


def _three_controllers() -> Iterator[Figure]:
    """As many in flight in total, once through one controller and once through three."""
    rates = {}
    for count in (1, 3):
        with servers.store("etcd3.5") as fresh, controllers(count, store_url=fresh) as running:
            outcome, _ = _create(running)
            rates[count] = outcome.statuses.get("201", 0) / outcome.seconds
            yield Figure(f"etcd3.5_{count}_controllers_endpoints_per_s", rates[count], "1/s")
            yield from _truths(f"etcd3.5_{count}_controllers", running, SINGLE + WARM_UP)
    yield Figure("etcd3.5_three_to_one", rates[3] / rates[1], "x", at_least=1.0)


def _endpoints(prefix: str) -> Iterator[str]:
    for i in itertools.count():
        yield json.dumps({"host": HOSTS[i % len(HOSTS)], "name": f"{prefix}-{i}"})


def _lists(count: int) -> Iterator[str]:
    items = _endpoints("many")
    for _ in range(count):
        yield f'{{"items":[{",".join(itertools.islice(items, LIST_SIZE))}]}}'


def table(measured: Sequence[Figure]) -> str:
    """The figures of all stores, a row a figure and a column a store."""
    values = {figure.name: figure for figure in measured}
    rows = [
        ("endpoints created/s, 64 in flight", "endpoints_per_s"),
        ("one creation, p50 / p99 ms (64 in flight)", "create_p50 create_p99"),
        ("store transactions per 1,000 endpoints", "transactions_per_1000"),
        ("endpoints created/s, in lists of 100", "endpoints_per_s_bulk"),
        ("request sent -> in another host's mirror, p50 / p99 ms", "seen_direct_p50 seen_direct_p99"),
        ("the same through the gateway, p50 / p99 ms", "seen_gateway_p50 seen_gateway_p99"),
        ("controller ready on 50,000 endpoints, s", f"start_on_{MANY}"),
        ("addresses with two owners, endpoints lost, findings", "duplicates lost findings"),
    ]
    lines = ["| |" + "|".join(f" {kind} " for kind in servers.KINDS) + "|", "|---" * (len(servers.KINDS) + 1) + "|"]
    for title, names in rows:
        cells = [" / ".join(_cell(values.get(f"{kind}_{name}")) for name in names.split()) for kind in servers.KINDS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    return f"{figure.value:,.0f}" if figure.value >= 100 or figure.value == int(figure.value) else f"{figure.value:.1f}"


def main(argv: Sequence[str]) -> int:
    facts = machine()
    measured = []
    kinds = [word for word in argv if word in servers.KINDS] or servers.KINDS
    for figure in figures(kinds):
        measured.append(figure)
        print(f"{figure.name} = {_cell(figure)} {figure.unit}{'' if figure.is_met else '  NOT MET'}", file=sys.stderr)
    print(json.dumps({"machine": facts, "figures": [figure.plain() for figure in measured]}, indent=2))
    if "--write" in argv:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{rest.partition(END)[2]}")
    return 0 if all(figure.is_met for figure in measured) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
