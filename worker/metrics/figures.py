"""Everything that a worker counts and times, by name. Its parts are told what happened and do not know of Prometheus.

Labels are bounded: operations, codes, calls, runtimes; networks only where `scrape` sets them, and so many at most.
Never an endpoint, an address or a request.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import get_args

from datapath.objects import Failure, Operation
from worker.metrics.text import Registry

PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ATTACH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0)
STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
NAME_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
CALL_BUCKETS = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 25.0)
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
# create_link, of CreateLink.
WORDS: Mapping[type[Operation], str] = {
    kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(Operation)
}


class Figures:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._build_passes(registry)
        self._build_doings(registry)
        self._build_asked(registry)

    def _build_passes(self, r: Registry) -> None:
        """What the reconciler does to the kernel."""
        self._passes = r.counter("kvnet_worker_passes_total", "Reconcile passes", "kind", "outcome")
        self._pass_s = r.histogram(
            "kvnet_worker_pass_duration_seconds", "What a reconcile pass took", PASS_BUCKETS, "kind"
        )
        self._operations = r.counter(
            "kvnet_worker_operations_total", "Operations on the kernel, by what they do", "operation", "result"
        )
        self._repairs = r.counter(
            "kvnet_worker_repairs_total", "Operations that mended what somebody else changed", "operation"
        )
        self._errors = r.counter("kvnet_worker_kernel_errors_total", "What the kernel refused, by its error", "error")
        self.events_lost = r.counter(
            "kvnet_worker_kernel_events_lost_total", "Times that events of the kernel were lost, so all was read anew"
        ).of()

    def _build_doings(self, r: Registry) -> None:
        """What workloads wait for."""
        self._doings_s = {
            doing: r.histogram(
                f"kvnet_worker_{doing}_duration_seconds", f"A workload's {doing}", ATTACH_BUCKETS, "runtime"
            )
            for doing in ("attach", "detach")
        }
        self._doings_failed = {
            doing: r.counter(f"kvnet_worker_{doing}_failures_total", f"A workload's {doing} that failed", "code")
            for doing in ("attach", "detach")
        }
        self._store_s = r.histogram("kvnet_store_request_duration_seconds", "Store requests", STORE_BUCKETS, "op")
        self._store_failed = r.counter(
            "kvnet_store_failures_total", "Store requests that raised, by error", "op", "error"
        )

    def _build_asked(self, r: Registry) -> None:
        """What others ask of this host: controllers, workloads for names, Docker."""
        self._questions = r.counter(
            "kvnet_worker_questions_total", "What controllers asked this host", "kind", "outcome"
        )
        self._names = r.counter("kvnet_worker_dns_queries_total", "Questions for names", "protocol")
        self._answers = r.counter(
            "kvnet_worker_dns_answers_total", "Answers, by code and where they came from", "rcode", "source"
        )
        self._names_s = r.histogram("kvnet_worker_dns_duration_seconds", "What an answer took", NAME_BUCKETS, "source")
        self._calls = r.counter("kvnet_worker_docker_calls_total", "Docker's calls", "call", "outcome")
        self._calls_s = r.histogram(
            "kvnet_worker_docker_call_duration_seconds", "What a call of Docker's took", CALL_BUCKETS, "call"
        )

    def passed(self, kind: str, seconds: float, *, is_failed: bool) -> None:
        self._passes.of(kind, _outcome(is_failed)).add()
        self._pass_s.of(kind).observe(seconds)

    def applied(self, operations: Mapping[type[Operation], int], failures: Mapping[type[Operation], int]) -> None:
        for kind, number in operations.items():
            failed = failures.get(kind, 0)
            if failed:
                self._operations.of(WORDS[kind], "failed").add(failed)
            if number > failed:
                self._operations.of(WORDS[kind], "done").add(number - failed)

    def refused(self, failure: Failure) -> None:
        self._errors.of(errno.errorcode.get(failure.errno, "other")).add()

    def repaired(self, operations: Mapping[type[Operation], int]) -> None:
        for kind, number in operations.items():
            self._repairs.of(WORDS[kind]).add(number)

    def did(self, doing: str, runtime: str, seconds: float) -> None:
        """`doing`: attach or detach."""
        self._doings_s[doing].of(runtime).observe(seconds)

    def failed(self, doing: str, code: str) -> None:
        self._doings_failed[doing].of(code).add()

    def stored(self, op: str, seconds: float, error: str) -> None:
        self._store_s.of(op).observe(seconds)
        if error:
            self._store_failed.of(op, error).add()

    def answered_question(self, kind: str, *, is_failed: bool) -> None:
        self._questions.of(kind, _outcome(is_failed)).add()

    def asked_name(self, *, over_tcp: bool) -> None:
        self._names.of("tcp" if over_tcp else "udp").add()

    def answered_name(self, answer: bytes, source: str, seconds: float) -> None:
        """`source`: memory, or others who had to be asked."""
        self._answers.of(RCODES.get(answer[3] & 0xF, "other") if len(answer) > 3 else "none", source).add()
        self._names_s.of(source).observe(seconds)

    def called(self, call: str, seconds: float, *, is_failed: bool) -> None:
        self._calls.of(call, _outcome(is_failed)).add()
        self._calls_s.of(call).observe(seconds)


def _outcome(is_failed: bool) -> str:
    return "failed" if is_failed else "done"
