"""One figure each with its target, and the facts of the machine that they are worth nothing without."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """`at_most` and `at_least` are targets; a figure with neither is told for the record and is always ok."""

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def plain(self) -> dict[str, Any]:
        target = None
        if self.at_most is not None:
            target = f"<= {self.at_most:g}"
        elif self.at_least is not None:
            target = f">= {self.at_least:g}"
        value = None if self.value is None else round(self.value, 3)
        plain = {"name": self.name, "value": value, "unit": self.unit, "target": target, "ok": self.is_met}
        return plain | ({"note": self.note} if self.note else {}) | ({"details": self.details} if self.details else {})


def not_measured(name: str, unit: str, why: str) -> Figure:
    """A figure that this machine cannot give; counts as not met, with the reason."""
    return Figure(name, None, unit, note=why)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first_in("/proc/cpuinfo", "model name"),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_before": round(os.getloadavg()[0], 2),
    }


def busy_cpu_seconds() -> float:
    """What the whole machine has used since it started: how much of a run was ours, and how much somebody else's."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _first_in(path: str, label: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(label):
            return line.partition(":")[2].strip()
    return ""
