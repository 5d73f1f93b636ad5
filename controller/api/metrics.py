"""/metrics: what Prometheus gets. Counters come from `measure`, everything else is read from memory at the scrape.

Labels are bounded: networks, pools and hosts; never an address or an endpoint. Pairs of host and network only where the
host is behind, the furthest `MOST_PAIRS`. A scrape never reads the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastapi import Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from controller.api.routing import operations_router, problems, service
from controller.cluster import Cluster
from controller.views import HostStatus
from kvnet import __version__

MOST_PAIRS = 200

router = operations_router()


class ClusterCollector:
    """The cluster's figures as they are at the scrape."""

    def __init__(self, cluster: Callable[[], Cluster | None]) -> None:
        self._cluster = cluster

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        what = {"version": __version__, "component": "controller"}
        yield _gauge("kvnet_build_info", "What runs", what, 1)
        cluster = self._cluster()
        if cluster is None:
            return
        hosts = cluster.hosts.list()
        yield from _overall(cluster)
        yield from _hosts(hosts)
        yield from _convergence(cluster, hosts)
        yield from _ipam(cluster)
        yield from _work(cluster)


def _overall(cluster: Cluster) -> Iterable[Metric]:
    status = cluster.status()
    yield _gauge(
        "kvnet_store_revision",
        "The store revision that answers from memory are at least as new as",
        {},
        status.revision,
    )
    yield _gauge("kvnet_leader", "1 on the replica that does the upkeep", {}, int(status.is_leader))
    yield _gauge(
        "kvnet_mirrors_stale", "1 while a mirror is cut off from the store", {}, int(status.stale_since is not None)
    )
    yield _gauge("kvnet_store_doubted", "1 while the store is not believed", {}, int(status.trouble is not None))
    yield _gauge(
        "kvnet_audit_broken", "1 while the journal does not fit its seals", {}, int(cluster.vigil.broken is not None)
    )
    yield _gauge("kvnet_networks", "Networks", {}, status.networks)
    yield _gauge("kvnet_endpoints", "Endpoints", {}, status.endpoints)
    hosts = GaugeMetricFamily("kvnet_hosts", "Hosts by whether their worker lives", labels=["alive"])
    hosts.add_metric(["true"], status.hosts_alive)
    hosts.add_metric(["false"], status.hosts - status.hosts_alive)
    yield hosts


def _hosts(hosts: Iterable[HostStatus]) -> Iterable[Metric]:
    alive = GaugeMetricFamily("kvnet_host_alive", "1 while the host's worker lives", labels=["host"])
    seen = GaugeMetricFamily(
        "kvnet_host_last_seen_timestamp_seconds", "When the host's worker was alive last", labels=["host"]
    )
    endpoints = GaugeMetricFamily("kvnet_host_endpoints", "Endpoints that the host carries", labels=["host"])
    problems = GaugeMetricFamily(
        "kvnet_problems", "Networks that hosts report a problem of, by its code", labels=["code"]
    )
    counts: dict[str, int] = {}
    for status in hosts:
        name = [status.host.name]
        alive.add_metric(name, int(status.alive))
        endpoints.add_metric(name, status.endpoints)
        if status.last_seen is not None:
            seen.add_metric(name, status.last_seen)
        for observed in status.observed.networks.values() if status.observed is not None else ():
            for code in {condition.code for condition in observed.conditions}:
                counts[code] = counts.get(code, 0) + 1
    for code, count in sorted(counts.items()):
        problems.add_metric([code], count)
    yield from (alive, seen, endpoints, problems)


def _convergence(cluster: Cluster, hosts: Iterable[HostStatus]) -> Iterable[Metric]:
    """Of living hosts: nobody waits for the others."""
    most = GaugeMetricFamily(
        "kvnet_host_lag_revisions",
        "Store revisions that a host has not applied, of its furthest network",
        labels=["host"],
    )
    most_s = GaugeMetricFamily(
        "kvnet_host_lag_seconds", "How long the host's oldest change has waited", labels=["host"]
    )
    of_pairs = GaugeMetricFamily(
        "kvnet_convergence_lag_revisions",
        "Store revisions of a network that a host has not applied",
        labels=["host", "network"],
    )
    of_pairs_s = GaugeMetricFamily(
        "kvnet_convergence_lag_seconds",
        "How long a change of a network has waited for a host",
        labels=["host", "network"],
    )
    pairs = []
    for status in hosts:
        if not status.alive:
            continue
        behind = {network: lag for network, lag in status.lag.items() if lag > 0}
        lags = {network: cluster.convergence.lag_s(network, status.host.name) or 0.0 for network in behind}
        most.add_metric([status.host.name], max(behind.values(), default=0))
        most_s.add_metric([status.host.name], max(lags.values(), default=0.0))
        pairs += [(lags[network], lag, status.host.name, network) for network, lag in behind.items()]
    names = {one.value.id: one.value.name for one in cluster.networks.list()} if pairs else {}
    for lag_s, lag, host, network in sorted(pairs, reverse=True)[:MOST_PAIRS]:
        labels = [host, names.get(network, network)]
        of_pairs.add_metric(labels, lag)
        of_pairs_s.add_metric(labels, lag_s)
    yield from (most, most_s, of_pairs, of_pairs_s)
    yield _gauge("kvnet_convergence_lagging", "Pairs of host and network that lag", {}, len(pairs))


def _ipam(cluster: Cluster) -> Iterable[Metric]:
    use = cluster.ipam.utilisation()
    addresses = GaugeMetricFamily("kvnet_ipam_addresses", "Addresses by network and state", labels=["network", "state"])
    for network, used in use.networks:
        addresses.add_metric([network.value.name, "used"], used.used)
        addresses.add_metric([network.value.name, "free"], used.size - used.used)
    subnets = GaugeMetricFamily("kvnet_ipam_subnets", "Subnets by pool and state", labels=["pool", "state"])
    for pool in use.pools:
        subnets.add_metric([pool.pool.name, "used"], pool.subnets_used)
        subnets.add_metric([pool.pool.name, "free"], pool.subnets_total - pool.subnets_used)
    yield addresses
    yield subnets


def _work(cluster: Cluster) -> Iterable[Metric]:
    """What this replica did."""
    upkeep, questions, commits = cluster.upkeep, cluster.questions, cluster.commits
    yield _counter("kvnet_upkeep_sweeps", "Sweeps of this replica's upkeep", ["outcome"], _keyed(upkeep.sweeps))
    yield _counter("kvnet_upkeep_done", "What the upkeep removed or mended", ["kind"], _keyed(upkeep.done))
    yield _counter(
        "kvnet_questions",
        "What was asked of hosts",
        ["kind", "outcome"],
        {(kind, outcome): count for (kind, outcome), count in questions.outcomes.items()},
    )
    for name, text, key in (
        ("kvnet_commit_conflicts", "Changes whose commit lost a race", "conflicts"),
        ("kvnet_commit_repeats", "Further attempts at a change that had lost a race", "repeats"),
        ("kvnet_commit_given_up", "Changes that were refused because others were faster each time", "given-up"),
    ):
        yield _counter(name, text, [], {(): commits.get(key, 0)})
    yield _counter(
        "kvnet_sse_dropped",
        "Event streams that were cut off because nobody read them",
        [],
        {(): cluster.events.dropped},
    )


def _keyed(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}


def _counter(name: str, text: str, labels: list[str], counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(list(values), count)
    return family


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


@router.get("/metrics", response_class=Response, responses=problems(also={200: {"content": {"text/plain": {}}}}))
async def metrics(request: Request) -> Response:
    """Prometheus metrics in the text format."""
    body = generate_latest(service(request).registry)
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
