"""What is looked up when somebody scrapes: how far networks are, whether the store is heard, what is wrong, what the
process costs. From memory alone, but for this process's own figures in /proc.

A series per network only of those that this host carries, by name, `MOST_NETWORKS` at most: the furthest behind.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvnet import __version__
from worker.attachments import Phase
from worker.metrics.text import Family, Number, Registry
from worker.source import Mode

if TYPE_CHECKING:
    from worker.agent import Worker

MOST_NETWORKS = 200
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Progress:
    """A network's, on this host."""

    name: str
    applied: int
    wanted: int
    lag_s: float


class Scrape:
    """`registry` gets gauges that are set anew before each scrape."""

    def __init__(self, worker: Worker, registry: Registry, started_at: float) -> None:
        self._worker = worker
        self._started_at = started_at
        gauge = registry.gauge
        registry.gauge("kvnet_build_info", "What runs", "version", "component").of(__version__, "worker").set(1)
        self._mode = gauge("kvnet_worker_mode", "1 for the mode that the worker is in", "mode")
        self._is = {
            "ready": gauge("kvnet_worker_ready", "1 while the host is ready").of(),
            "session": gauge("kvnet_worker_session_held", "1 while the host's session is held").of(),
            "fenced": gauge("kvnet_worker_fenced", "1 while this host claims nothing").of(),
        }
        self._stale_s = gauge("kvnet_worker_mirror_stale_seconds", "How long a mirror has not heard the store").of()
        self._revision = gauge("kvnet_worker_store_revision", "The newest store revision that was heard").of()
        self._networks = gauge("kvnet_worker_networks", "Networks that this host takes part in").of()
        self._applied = gauge("kvnet_worker_network_applied_revision", "What is in the kernel", "network")
        self._wanted = gauge("kvnet_worker_network_wanted_revision", "What is to be in the kernel", "network")
        self._lag_s = gauge("kvnet_worker_network_lag_seconds", "How long a change waits for the kernel", "network")
        self._most_lag_s = gauge("kvnet_worker_lag_max_seconds", "The largest lag of this host's networks").of()
        self._attachments = gauge("kvnet_worker_attachments", "Attachments, by how far they are", "phase")
        self._objects = gauge("kvnet_worker_kernel_objects", "What kvnet has in the kernel", "kind")
        self._conditions = gauge("kvnet_worker_conditions", "Networks that have a problem here, by its code", "code")
        self._follows_docker = gauge("kvnet_worker_docker_reachable", "1 while this host's Docker is followed")
        self._process(registry)
        registry.looks.append(self.look)

    def _process(self, registry: Registry) -> None:
        """Named as Prometheus names them of every process."""
        self._cpu_s = registry.counter("process_cpu_seconds_total", "Processor time").of()
        self._rss = registry.gauge("process_resident_memory_bytes", "Memory that is in use").of()
        self._files = registry.gauge("process_open_fds", "Open files and sockets").of()
        started = registry.gauge("process_start_time_seconds", "When the process began, since the epoch")
        started.of().set(self._started_at)

    def look(self) -> None:
        worker = self._worker
        mode = worker.source.mode()
        self._mode.replace({(one.value,): Number(float(one is mode)) for one in Mode})
        self._is["ready"].set(not self.unready())
        self._is["session"].set(worker.lifeline.is_held)
        self._is["fenced"].set(not worker.lifeline.is_open)
        stale = worker.view.stale_since
        self._stale_s.set(0.0 if stale is None else max(0.0, worker.monotonic() - stale))
        self._revision.set(worker.view.revision)
        self._set_networks()
        self._set(self._attachments, Counter(record.phase.value for record in worker.attachments), list(Phase))
        self._set(self._objects, worker.reconciler.objects())
        self._set(self._conditions, self._problems())
        if worker.docker is not None:
            self._follows_docker.of().set(bool(worker.docker.status()["reachable"]))
        self._cpu_s.set(sum(os.times()[:2]))
        self._rss.set(_resident())
        self._files.set(_open_files())

    def unready(self) -> str:
        """Why this host is not ready; "" if it is."""
        worker = self._worker
        doubt = worker.source.doubt()
        if doubt is not None:
            return f"{doubt.code}: {doubt.detail}"
        if worker.source.mode() is not Mode.LIVE:
            return "the store has not told all that this host needs to know"
        if not worker.lifeline.is_open:
            return "this host has no session, so it claims nothing"
        if not (worker.registration.is_done and worker.reconciler.has_seen_everything):
            return "this host is not registered yet, or not all of it has been built"
        return ""

    def _set_networks(self) -> None:
        found = sorted(self._progress(), key=lambda one: (-one.lag_s, one.name))
        self._networks.set(len(found))
        self._most_lag_s.set(found[0].lag_s if found else 0.0)
        shown = {one.name: one for one in found[:MOST_NETWORKS]}
        self._applied.replace({(name,): Number(one.applied) for name, one in shown.items()})
        self._wanted.replace({(name,): Number(one.wanted) for name, one in shown.items()})
        self._lag_s.replace({(name,): Number(one.lag_s) for name, one in shown.items()})

    def _progress(self) -> list[Progress]:
        worker = self._worker
        observed = worker.reconciler.observed()
        found = []
        for id_ in worker.source.present():
            wanted = worker.source.version(id_)
            applied = observed[id_].version if id_ in observed else 0
            lag_s = worker.chronicle.lag_s(id_)
            found.append(Progress(worker.view.name_of(id_) or id_, applied, wanted, lag_s))
        return found

    def _problems(self) -> Counter[str]:
        worker = self._worker
        found = Counter[str]()
        for seen in worker.reconciler.observed().values():
            found.update({condition.code for condition in seen.conditions})
        for problem in (worker.lifeline.problem, worker.registration.problem):
            if problem is not None:
                found[problem.code] = max(1, found[problem.code])
        if worker.docker is not None:
            found.update(condition.code for _, condition in worker.docker.conditions())
        return found

    def _set(self, family: Family[Number], values: Mapping[str, int], always: list[Phase] | None = None) -> None:
        known: dict[tuple[str, ...], Number] = {(one.value,): Number() for one in always or ()}
        family.replace({**known, **{(name,): Number(value) for name, value in values.items()}})


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return float(int(file.read().split()[1]) * PAGE)


def _open_files() -> float:
    return float(len(os.listdir("/proc/self/fd")))
