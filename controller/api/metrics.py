"""/metrics: what Prometheus gets. Counters come from `measure`, everything else is read from memory at the scrape.

Labels are bounded: networks, pools and hosts; never an address or an endpoint. A scrape never reads the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import Request, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from controller.api.routing import operations_router, service
from controller.cluster import Cluster
from kvnet import __version__

router = operations_router()


class ClusterCollector:
    """The cluster's figures as they are at the scrape."""

    def __init__(self, cluster: Callable[[], Cluster | None]) -> None:
        self._cluster = cluster

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield _gauge("kvnet_build_info", "What runs", {"version": __version__}, 1)
        cluster = self._cluster()
        if cluster is None:
            return
        yield from _overall(cluster)
        yield from _hosts(cluster)
        yield from _ipam(cluster)


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
    yield _gauge("kvnet_networks", "Networks", {}, status.networks)
    yield _gauge("kvnet_endpoints", "Endpoints", {}, status.endpoints)
    hosts = GaugeMetricFamily("kvnet_hosts", "Hosts by whether their worker lives", labels=["alive"])
    hosts.add_metric(["true"], status.hosts_alive)
    hosts.add_metric(["false"], status.hosts - status.hosts_alive)
    yield hosts


def _hosts(cluster: Cluster) -> Iterable[Metric]:
    seen = GaugeMetricFamily(
        "kvnet_host_last_seen_timestamp_seconds", "When the host's worker was alive last", labels=["host"]
    )
    lag = GaugeMetricFamily("kvnet_watch_lag_revisions", "Store revisions a host has not applied yet", labels=["host"])
    for status in cluster.hosts.list():
        if status.last_seen is not None:
            seen.add_metric([status.host.name], status.last_seen)
        lag.add_metric([status.host.name], max(status.lag.values(), default=0))
    yield seen
    yield lag


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


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus metrics in the text format."""
    body = generate_latest(service(request).registry)
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
