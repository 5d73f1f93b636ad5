"""Three controllers on one SQLite file, all creating at once: no overlap, no duplicate, no loss."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

from bench.controllers import HOSTS, Running, controllers, truth
from bench.figures import Figure, percentile
from bench.load import Job, Outcome, run_job
from bench.requests import create_network

CONTROLLERS = 3
IN_FLIGHT = 96
NETWORKS = 900
ENDPOINTS = 6_000
RACED_NETWORKS = 4
CONTESTED_NAMES, CONTENDERS = 50, 12
TIGHT_SUBNET, TIGHT_SIZE = "10.65.0.0/24", 253


def figures() -> Iterator[Figure]:
    with controllers(CONTROLLERS) as running:
        networks = run_job(Job(running.ports, ("/v1/networks",), tuple(_networks()), IN_FLIGHT))
        yield from _rates("races_networks_per_s", networks)
        yield from _contested_names(running)
        paths = tuple(
            create_network(running.ports[0], f"raced-{i}", [{"cidr": f"10.64.{i * 64}.0/18"}])
            for i in range(RACED_NETWORKS)
        )
        endpoints = run_job(Job(running.ports, paths, tuple(itertools.islice(_endpoints(), ENDPOINTS)), IN_FLIGHT))
        yield from _rates("races_endpoints_per_s", endpoints)
        yield from _last_address(running)
        found = truth(running.store_url)
    expected = networks.statuses.get("201", 0) + CONTESTED_NAMES + RACED_NETWORKS + 1
    overlaps = [finding for finding in found.findings if finding.startswith("I1")]
    yield Figure("races_overlaps", len(overlaps), "subnets", at_most=0)
    yield Figure("races_duplicate_addresses", found.duplicate_addresses, "addresses", at_most=0)
    yield Figure("races_networks_lost", abs(expected - found.networks), "networks", at_most=0)
    acknowledged = endpoints.statuses.get("201", 0) + TIGHT_SIZE
    yield Figure("races_endpoints_lost", abs(acknowledged - found.endpoints), "endpoints", at_most=0)
    yield Figure("races_findings", len(found.findings), "findings", at_most=0, details={"first": found.findings[:5]})


def _networks() -> Iterator[str]:
    """Automatic subnets, and every third one explicit: each of those is asked for twice, and refused once."""
    for i in range(NETWORKS):
        wanted = {"subnets": [{"cidr": f"10.{66 + i % 2}.{i // 12 % 128}.0/24"}]} if i % 3 == 0 else {}
        yield json.dumps({"name": f"net-{i}", **wanted})


def _endpoints() -> Iterator[str]:
    for i in itertools.count():
        yield json.dumps({"host": HOSTS[i % len(HOSTS)], "name": f"web-{i}"})


def _rates(name: str, outcome: Outcome) -> Iterator[Figure]:
    made = outcome.statuses.get("201", 0)
    unexpected = {s: n for s, n in outcome.statuses.items() if s not in ("201", "409")}
    details = {"statuses": outcome.statuses, "p99_ms": round(percentile(outcome.latencies_ms, 0.99), 1)}
    yield Figure(name, made / outcome.seconds, "1/s", note=f"{CONTROLLERS} controllers on one file", details=details)
    wrong = next((a for a in outcome.answers if '"status":5' in a), "")
    yield Figure(
        name.replace("_per_s", "_failed"),
        sum(unexpected.values()),
        "requests",
        at_most=0,
        details={"first": wrong[:300]},
    )


def _contested_names(running: Running) -> Iterator[Figure]:
    """A dozen requests for each name, spread over the controllers: exactly one wins."""
    bodies = [json.dumps({"name": f"contested-{i}"}) for i in range(CONTESTED_NAMES) for _ in range(CONTENDERS)]
    outcome = run_job(Job(running.ports, ("/v1/networks",), tuple(bodies), IN_FLIGHT))
    winners = Counter(json.loads(a)["name"] for a in outcome.answers if '"vni":' in a)
    yield Figure("races_names_with_one_winner", list(winners.values()).count(1), "names", at_least=CONTESTED_NAMES)


def _last_address(running: Running) -> Iterator[Figure]:
    """More requests than addresses: every address is given once, the rest is told that there is none."""
    path = create_network(running.ports[0], "tight", [{"cidr": TIGHT_SUBNET}])
    outcome = run_job(Job(running.ports, (path,), tuple(itertools.islice(_endpoints(), TIGHT_SIZE + 100)), IN_FLIGHT))
    addresses = {json.loads(a)["address"] for a in outcome.answers if '"mac":' in a}
    yield Figure("races_addresses_of_a_full_subnet", len(addresses), "addresses", at_least=TIGHT_SIZE)
