"""Counts and times what passes: requests by route, store requests by operation.

Own registry, so that nothing of the process leaks in unasked and tests can make many. Labels are bounded: routes and
operations, never a path or a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from backends.passing import TimedStore
from backends.store import Store

HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
STREAMS = frozenset({"/v1/events", "/v1/store/watch"})  # their duration says how long somebody listened
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def new_registry() -> CollectorRegistry:
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


class HttpMetrics:
    """Requests by method, route and status. Labelled children are kept: looking one up costs more than counting."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "kvnet_http_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "kvnet_http_request_duration_seconds",
            "From the request's head to the end of the answer",
            ["method", "route"],
            buckets=HTTP_BUCKETS,
            registry=registry,
        )
        self._known_requests: dict[tuple[str, str, int], Counter] = {}
        self._known_seconds: dict[tuple[str, str], Histogram] = {}
        self.streams = Gauge("kvnet_sse_streams", "Open event streams", registry=registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        counter = self._known_requests.get((method, route, status))
        if counter is None:
            counter = self._requests.labels(method, route or "none", str(status))
            self._known_requests[method, route, status] = counter
        counter.inc()
        if route in STREAMS:
            return
        histogram = self._known_seconds.get((method, route))
        if histogram is None:
            histogram = self._seconds.labels(method, route or "none")
            self._known_seconds[method, route] = histogram
        histogram.observe(seconds)


class MeasuredStore(TimedStore):
    """A store whose requests are counted and timed."""

    def __init__(
        self, inner: Store, registry: CollectorRegistry, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(inner, self._count, clock)
        seconds = Histogram(
            "kvnet_store_request_duration_seconds", "Store requests", ["op"], buckets=STORE_BUCKETS, registry=registry
        )
        self._failures = Counter(
            "kvnet_store_failures", "Store requests that raised, by error", ["op", "error"], registry=registry
        )
        self._seconds = {op: seconds.labels(op) for op in ("get", "list", "commit", "session")}

    def _count(self, op: str, seconds: float, error: str) -> None:
        self._seconds[op].observe(seconds)
        if error:
            self._failures.labels(op, error).inc()
