"""How much the product's processes take: memory and open files of workers and controllers, by incarnation, over time.

Read from /proc, every few seconds. A process that faults never kill lives through the whole soak: its slope says
whether it leaks. Early samples do not count: caches fill, and the allocator settles.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from kvnet.errors import KvnetError
from tests.soak.site import Soaked

EVERY_S = 5.0
WARM_UP_S = 60.0
SLOPE_AFTER_S = 240.0
# A leak, and not a cache: so much more in the last quarter than in the first.
GROWN_KB, GROWN_FILES = 40 << 10, 40


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    rss_kb: int
    files: int


@dataclass(slots=True)
class Life:
    """One incarnation of a process."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def settled(self) -> Sequence[Sample]:
        return [s for s in self.samples if s.at - self.samples[0].at >= WARM_UP_S]

    @property
    def seconds(self) -> float:
        return self.samples[-1].at - self.samples[0].at if self.samples else 0.0

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": self.name,
            "seconds": round(self.seconds),
            "rss_mb": [round(s.rss_kb / 1024, 1) for s in (self.samples[0], self.samples[-1])],
            "rss_peak_mb": round(max(s.rss_kb for s in self.samples) / 1024, 1),
            "files": [self.samples[0].files, self.samples[-1].files],
            "files_peak": max(s.files for s in self.samples),
        }
        if self.seconds >= SLOPE_AFTER_S:
            told["rss_slope_kb_per_min"] = round(slope([(s.at, float(s.rss_kb)) for s in self.settled]) * 60, 1)
            told["files_slope_per_min"] = round(slope([(s.at, float(s.files)) for s in self.settled]) * 60, 2)
        return told

    def complaints(self) -> list[str]:
        """What grew beyond what it may, from the first to the last quarter of its settled life."""
        settled = self.settled
        if self.seconds < SLOPE_AFTER_S or len(settled) < 8:
            return []
        quarter = len(settled) // 4
        first, last = settled[:quarter], settled[-quarter:]
        memory = median(s.rss_kb for s in last) - median(s.rss_kb for s in first)
        files = median(s.files for s in last) - median(s.files for s in first)
        found = []
        if memory > GROWN_KB:
            found.append(f"{self.name} grew by {memory / 1024:.0f} MB in {self.seconds:.0f} s")
        if files > GROWN_FILES:
            found.append(f"{self.name} has {files:.0f} more files open after {self.seconds:.0f} s")
        return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares, per second; 0 of less than two points."""
    if len(points) < 2:
        return 0.0
    x0 = sum(x for x, _ in points) / len(points)
    y0 = sum(y for _, y in points) / len(points)
    spread = sum((x - x0) ** 2 for x, _ in points)
    return sum((x - x0) * (y - y0) for x, y in points) / spread if spread else 0.0


class Vitals:
    """`conditions`: how often each code was told by a host, over all looks."""

    def __init__(self, site: Soaked, clock: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._clock = clock
        self.lives: dict[tuple[str, int], Life] = {}
        self.conditions: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        for name in [*self._site.hosts, *(controller.name for controller in self._site.controllers)]:
            process = self._site.process_of(name)
            if process is None or not process.is_running:
                continue
            sample = _sample(process.pid, self._clock())
            if sample is not None:
                self.lives.setdefault((name, process.pid), Life(name, process.pid)).samples.append(sample)
        for name in self._site.hosts:
            if name not in self._site.away:
                self.conditions.update(await conditions_of(self._site, name))


async def conditions_of(site: Soaked, host: str) -> list[str]:
    """What the host's worker tells of itself and its networks; nothing if it does not answer."""
    try:
        async with asyncio.timeout(2.0):
            status = await site.lab.hosts[host].local.status()
    except (KvnetError, TimeoutError):
        return []
    all_of = [*status["conditions"], *(c for network in status["networks"] for c in network["conditions"])]
    return [condition["code"] for condition in all_of]


def _sample(pid: int, now: float) -> Sample | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        rss = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None  # it ended meanwhile
    return None if rss is None else Sample(now, rss, files)
