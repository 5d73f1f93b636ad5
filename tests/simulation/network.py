"""What lies between two programs of the simulated cluster: delay, loss and partitions, drawn from the step's seed.

A link has a near end, which asks, and a far one, which answers. Decides nothing but whether and when something arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.loop import SimulatedLoop
from tests.simulation.processes import Process

QUICK_S = 0.003
SLOW_S = 1.5
LATE_S = 8.0
REFUSED_S = 0.05  # nobody listens there
UNREACHABLE_S = 3.0  # nobody is there: a router says so, after a while


@dataclass(slots=True)
class Weather:
    """How bad links are in this run, as shares of what is sent. All zero: nothing is ever lost, but time still passes.

    `lost`: one way of a message. `slow`: it takes up to 1.5 s. `late`: of requests that were lost, those that arrive
    when nobody waits any more. `lag`: watches that tell late.
    """

    lost: float = 0.0
    slow: float = 0.0
    late: float = 0.0
    lag: float = 0.0


class Link:
    """`is_cut`: nothing arrives. `is_refused`: whoever asks is told at once."""

    def __init__(self, loop: SimulatedLoop, weather: Weather, near: Process, far: Process) -> None:
        self.loop = loop
        self.near = near
        self.far = far
        self.is_cut = False
        self.is_refused = False
        self.is_slow = False
        self.cuts = 0
        self.on_cut: list[Callable[[], None]] = []
        self.on_heal: list[Callable[[], None]] = []
        self._weather = weather

    def cut(self) -> None:
        self.is_cut = True
        self.cuts += 1
        for told in self.on_cut:
            told()

    def refuse(self) -> None:
        self.is_refused = True
        self.cut()

    def heal(self) -> None:
        self.is_cut = self.is_refused = self.is_slow = False
        for told in self.on_heal:
            told()

    def way_s(self) -> float:
        rng = self.loop.rng
        if self.is_slow or rng.random() < self._weather.slow:
            return rng.random() * SLOW_S
        return rng.random() * QUICK_S

    def is_delivered(self) -> bool:
        return not self.is_cut and self.loop.rng.random() >= self._weather.lost

    def late_s(self) -> float | None:
        """When a request that was lost arrives after all; None: never."""
        rng = self.loop.rng
        return rng.random() * LATE_S if rng.random() < self._weather.late else None

    def watch_lag_s(self) -> float:
        rng = self.loop.rng
        if self.is_slow or rng.random() < self._weather.lag:
            return rng.random() * SLOW_S
        return rng.random() * QUICK_S

    async def pause(self) -> None:
        """Before whoever asks is told that it is refused."""
        rng = self.loop.rng
        await asyncio.sleep(rng.random() * (REFUSED_S if rng.random() < 0.5 else UNREACHABLE_S))
