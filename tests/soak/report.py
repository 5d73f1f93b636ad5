"""What a soak came to: as JSON for machines, and as lines for people. Both say the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.bystanders import Pings
from tests.soak.faults import Inflicted
from tests.soak.ledger import Ledger, Outcome
from tests.soak.recovery import percentiles
from tests.soak.settings import Options
from tests.soak.violations import Violations
from tests.soak.vitals import Life

SHOWN = 12


@dataclass(slots=True)
class Report:
    """`began`: on the monotonic clock, what all times are told from. `figures`: whatever else was counted."""

    options: Options
    commit: str
    began: float
    seconds: float
    ledger: Ledger
    faults: Sequence[Inflicted]
    pings: Mapping[str, Pings]
    lives: Sequence[Life]
    conditions: Mapping[str, int]
    violations: Violations
    figures: Mapping[str, Any] = field(default_factory=dict)
    tracebacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not self.violations.counts

    def as_json(self) -> dict[str, Any]:
        operations = {kind: dict(counts) for kind, counts in sorted(self.ledger.counts.items())}
        total = sum((Counter(counts) for counts in operations.values()), Counter())
        return {
            "ok": self.is_clean,
            "replay": self.options.replay,
            "options": self.options.told(),
            "commit": self.commit,
            "seconds": round(self.seconds, 1),
            "violations": dict(self.violations.counts),
            "violations_told": self.violations.kept,
            "operations": {
                "all": dict(total),
                "by_kind": operations,
                "refusals": dict(self.ledger.codes.most_common()),
            },
            "faults": {
                "count": len(self.faults),
                "by_kind": dict(Counter(i.fault.kind for i in self.faults).most_common()),
                "recovery_s": self._recovery(),
                "log": [inflicted.told(self.began) for inflicted in self.faults],
            },
            "pings": {
                "sent": sum(p.sent for p in self.pings.values()),
                "lost": sum(p.lost for p in self.pings.values()),
                "explained": sum(p.explained for p in self.pings.values()),
                "unexplained": sum(len(p.unexplained) for p in self.pings.values()),
                "pairs": {name: self._told_pings(p) for name, p in self.pings.items()},
            },
            "processes": [life.told() for life in sorted(self.lives, key=lambda life: (life.name, life.pid))],
            "conditions": dict(self.conditions),
            "tracebacks": dict(self.tracebacks),
            **self.figures,
        }

    def _recovery(self) -> dict[str, Any]:
        by_kind: dict[str, list[float]] = defaultdict(list)
        for inflicted in self.faults:
            if inflicted.recovered_s is not None:
                by_kind["all"].append(inflicted.recovered_s)
                by_kind[inflicted.fault.kind].append(inflicted.recovered_s)
        return {kind: percentiles(values) for kind, values in sorted(by_kind.items())}

    def _told_pings(self, pings: Pings) -> dict[str, Any]:
        return {
            "sent": pings.sent,
            "answered": pings.answered,
            "lost": pings.lost,
            "explained": pings.explained,
            "slowest_ms": pings.slowest_ms,
            "slowest_without_bad_wire_ms": pings.slowest_fine_ms,
            "unexplained": [[round(at - self.began, 3), why] for at, why in pings.unexplained[:100]],
        }


def lines(told: Mapping[str, Any]) -> Iterable[str]:
    """For people."""
    options, operations, faults, pings = told["options"], told["operations"], told["faults"], told["pings"]
    yield f"soak of {options['store']}: seed {options['seed']}, {told['seconds']:.0f} s, commit {told['commit']}"
    counts = operations["all"]
    yield "operations: " + ", ".join(f"{counts.get(outcome, 0)} {outcome}" for outcome in Outcome)
    for kind, of_kind in operations["by_kind"].items():
        yield f"  {kind:16}" + ", ".join(f"{of_kind.get(outcome, 0):5} {outcome}" for outcome in Outcome)
    yield f"faults: {faults['count']}"
    for kind, count in faults["by_kind"].items():
        recovery = faults["recovery_s"].get(kind, {"count": 0})
        took = f"recovered in p50 {recovery['p50']} s, p99 {recovery['p99']} s" if recovery["count"] else ""
        yield f"  {kind:24}{count:4}  {took}"
    overall = faults["recovery_s"].get("all", {"count": 0})
    if overall["count"]:
        yield f"recovery of all: p50 {overall['p50']} s, p99 {overall['p99']} s, longest {overall['max']} s"
    yield (
        f"pings: {pings['sent']} sent, {pings['lost']} lost, {pings['explained']} of them on a wire that was bad on "
        f"purpose, {pings['unexplained']} without an explanation"
    )
    for name, pair in pings["pairs"].items():
        yield f"  {name:36}{pair['sent']:8} sent,{pair['lost']:6} lost,{pair['lost'] - pair['explained']:4} unexplained"
    yield f"looks into kernels: {told['looks']}, acquired: {told['acquired']}, double owners: {told['double_owners']}"
    for life in told["processes"]:
        if "rss_slope_kb_per_min" in life:
            first, last = life["rss_mb"]
            slope = f"{life['rss_slope_kb_per_min']:+.0f} KB/min, files {life['files'][0]} to {life['files'][1]}"
            yield f"  {life['name']:6} lived {life['seconds']} s: {first} to {last} MB, {slope}"
    yield "conditions told meanwhile: " + (", ".join(f"{c} {n}" for c, n in told["conditions"].items()) or "none")
    if told["tracebacks"]:
        yield "tracebacks: " + ", ".join(f"{name} {count}" for name, count in told["tracebacks"].items())
    for violation in told["violations_told"]:
        yield f"VIOLATION at {violation['at_s']} s: {violation['rule']}: {violation['detail']}"
    yield f"violations: {sum(told['violations'].values())}"
    if told["violations"]:
        yield f"replay with: {told['replay']}"
