"""What the reconciler's passes did, told: one log line for each network that a pass changed, and figures for metrics.

A line names the requests whose changes the pass brought into the kernel, so that one can be followed from the API call
to every host. A pass that changed nothing is not told. Only listens: nothing that happens here can hold a pass up or
fail it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from datapath.objects import Failure, HostState, Operation
from datapath.words import describe
from kvnet.errors import KvnetError
from kvnet.spans import UNTOLD, Tracer
from worker.drafts import Draft
from worker.log import Log
from worker.passes import changes_something
from worker.ports import Time
from worker.provenance import NOTHING, Brought, Origins

WHOLE_HOST = ""
MOST_TRACES = 16  # of a pass


@dataclass(slots=True)
class Part:
    """What a pass did of one network; `is_new`: it brought it to a version that it did not have.
    `is_same`: a look found that something else is there than the last pass wanted, and nothing else is wanted now."""

    operations: list[Operation] = field(default_factory=list)
    brought: Brought = NOTHING
    is_new: bool = False
    is_same: bool | None = None


class Figures(Protocol):
    """What counts passes and operations."""

    def passed(self, kind: str, seconds: float, *, is_failed: bool) -> None: ...

    def applied(self, operations: Mapping[type[Operation], int], failed: Mapping[type[Operation], int]) -> None: ...

    def refused(self, failure: Failure) -> None: ...

    def repaired(self, operations: Mapping[type[Operation], int]) -> None: ...


class Chronicle:
    """`origins`: whose changes of a network wait to be in the kernel; `name_of`: how people call the network.

    `tell`: writes a line in place of us, when it knows who removed what went; None: it is written without that.
    `on_repair`: is told what a pass put right of a network ("": of the whole host) that nobody had asked for.
    """

    def __init__(
        self,
        log: Log,
        time: Time,
        *,
        origins: Callable[[str], Origins | None] = lambda _: None,
        name_of: Callable[[str], str] = lambda _: "",
        figures: Figures | None = None,
        tell: Callable[[Told], None] | None = None,
        on_lost: Callable[[], None] = lambda: None,
        tracer: Tracer = UNTOLD,
        on_repair: Callable[[str, Sequence[Operation]], None] = lambda _network, _operations: None,
    ) -> None:
        self.events_lost = on_lost
        self._tracer = tracer
        self._on_repair = on_repair
        self._log = log
        self._time = time
        self._origins = origins
        self._name_of = name_of
        self._figures = figures
        self._tell = tell or (lambda told: told.write(log))
        self._parts: dict[str, Part] = {}
        self._began = self._planned_at = 0.0
        self._waiting: dict[str, float] = {}
        self._looked: Collection[str] = ()
        self._marks: dict[str, tuple[Origins, int]] = {}

    def changed(self, networks: Collection[str]) -> None:
        """The store has told something new of them."""
        now = self._time.monotonic()
        for network_id in networks:
            self._waiting.setdefault(network_id, now)

    def lag_s(self, network_id: str) -> float:
        """How long the oldest change of it has been waiting for the kernel."""
        since = self._waiting.get(network_id)
        return 0.0 if since is None else max(0.0, self._time.monotonic() - since)

    def forget(self, network_id: str) -> None:
        self._waiting.pop(network_id, None)

    def begin(self, looked: Collection[str], *, is_settled: bool) -> None:
        """`looked`: of which networks the kernel is read before anything is planned. `is_settled`: all was built once,
        so whatever differs there without a change in the store was undone by somebody."""
        self._parts = {}
        self._began = self._time.monotonic()
        self._looked = looked if is_settled else ()

    def planned(self, networks: Collection[str]) -> None:
        """What is known of them at this moment goes into the plan."""
        found = ((network_id, self._origins(network_id)) for network_id in networks)
        self._planned_at = self._time.monotonic()
        self._marks = {network_id: (origins, origins.mark) for network_id, origins in found if origins is not None}

    def carried_out(self, draft: Draft, operations: Sequence[Operation], failures: Sequence[Failure]) -> None:
        if not operations:
            return
        failed = Counter(type(failure.operation) for failure in failures)
        if self._figures is not None:
            self._figures.applied(Counter(map(type, operations)), failed)
            for failure in failures:
                self._figures.refused(failure)
        only = next(iter(draft.desired)) if len(draft.desired) == 1 else None
        owners = draft.owners if only is None else None
        undone = {id(failure.operation) for failure in failures}
        for operation in operations:
            if changes_something(operation) and id(operation) not in undone:
                network_id = only if owners is None else owners.of_operation(operation)
                self._part(network_id or WHOLE_HOST).operations.append(operation)

    def compare(self, network_id: str, before: HostState | None, wanted: HostState) -> None:
        """What was wanted of it when it was planned last, and what is now: only where that is the same, whatever a look
        finds to do was undone by somebody."""
        part = self._parts.get(network_id)
        if part is not None and part.is_same is None and network_id in self._looked:
            part.is_same = before is not None and before == wanted

    def arrived(self, network_id: str, before: int, version: int) -> None:
        """What was planned of the network is in the kernel, which had it up to `before`."""
        if self._waiting.get(network_id, self._planned_at) <= self._planned_at:
            self.forget(network_id)
        origins, mark = self._marks.get(network_id, (None, 0))
        brought = NOTHING if origins is None else origins.take(mark)
        if network_id in self._parts or (brought is not NOTHING and before):
            part = self._part(network_id)
            part.brought, part.is_new = brought, version > before

    def end(self, kind: str, error: KvnetError | None = None) -> None:
        """`kind`: full or part."""
        took_s = self._time.monotonic() - self._began
        if self._figures is not None:
            self._figures.passed(kind, took_s, is_failed=error is not None)
        parts, self._parts = self._parts, {}
        for network_id, part in parts.items():
            is_repair = part.is_same is True and not part.is_new and part.brought is NOTHING and bool(part.operations)
            if is_repair:
                self._on_repair(network_id, part.operations)
            if is_repair and self._figures is not None:
                self._figures.repaired(Counter(map(type, part.operations)))
            self._tell_of(network_id, part, "repaired" if is_repair else "applied", took_s)

    def _part(self, network_id: str) -> Part:
        return self._parts.setdefault(network_id, Part())

    def _trace(self, network_id: str, part: Part, took_s: float) -> None:
        """Below each request that the pass worked for: its way ends in this host's kernel."""
        now = self._time.now()
        for trace in list(dict.fromkeys(stamp.trace for stamp in part.brought.stamps if stamp.trace))[-MOST_TRACES:]:
            name, operations = self._name_of(network_id), len(part.operations)
            self._tracer.record("worker pass", now - took_s, now, trace, network=name, operations=operations)

    def _tell_of(self, network_id: str, part: Part, event: str, took_s: float) -> None:
        self._trace(network_id, part, took_s)
        if self._log.tells_all:
            for operation in part.operations:
                self._log.debug("operation", network=self._name_of(network_id), operation=describe(operation))
        self._tell(
            Told(
                event,
                network_id,
                self._name_of(network_id),
                part.brought,
                len(part.operations),
                round(took_s * 1000, 1),
                part.brought.request_ids,
            )
        )


@dataclass(frozen=True, slots=True)
class Told:
    """A line about to be written; `request_ids` may grow by those of the removals."""

    event: str
    network_id: str
    network: str
    brought: Brought
    operations: int
    duration_ms: float
    request_ids: list[str]

    def with_ids(self, request_ids: Sequence[str]) -> Told:
        more = [one for one in request_ids if one not in self.request_ids]
        return replace(self, request_ids=[*self.request_ids, *more])

    def write(self, log: Log) -> None:
        log.info(
            self.event,
            network=self.network or self.network_id or None,
            network_id=self.network_id or None,
            revision=self.brought.revision or None,
            request_ids=self.request_ids or None,
            more_requests=self.brought.more or None,
            removed=list(self.brought.removed) or None,
            operations=self.operations,
            duration_ms=self.duration_ms,
        )
