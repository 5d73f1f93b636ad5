"""Makes a failing script short: takes steps out as long as it still fails in the same way (delta debugging, ddmin).

"The same way" is the kind of the first thing found, not its words: ids and times change when steps go.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.network import Weather
from tests.simulation.pool import outcomes
from tests.simulation.run import Outcome
from tests.simulation.shape import Script, Step

_NAMES = re.compile(r"[0-9a-f]{12,16}|[0-9a-f:.]+/[0-9]+|\d[\d.]*|fd[0-9a-f:]+|/run/netns/\S+|\b[hcwe]\d+\b|net\d+")


def kind_of(outcome: Outcome) -> str:
    """What failed, without names and numbers."""
    if not outcome.found:
        return ""
    first = outcome.found[0]
    words = first if "Traceback" not in first and "File " not in first else first.strip().splitlines()[-1]
    return _NAMES.sub("_", words)[:90]


def shrunk(
    script: Script, kind: str, jobs: int, limit_s: float, told: Callable[[str], None] = lambda _: None
) -> Script:
    """The shortest that was found within the time."""
    until = time.monotonic() + limit_s
    script = _simpler(script, kind, jobs)
    parts = 2
    while len(script.steps) > 1 and time.monotonic() < until:
        found = _without_a_part(script, parts, kind, jobs)
        if found is not None:
            script, parts = found, max(2, parts - 1)
            told(f"{len(script.steps)} steps")
        elif parts >= len(script.steps):
            break
        else:
            parts = min(len(script.steps), 2 * parts)
    return _simpler(script, kind, jobs)


def _without_a_part(script: Script, parts: int, kind: str, jobs: int) -> Script | None:
    size = -(-len(script.steps) // parts)
    starts = range(0, len(script.steps), size)
    shorter = [script.only(script.steps[:at] + script.steps[at + size :]) for at in reversed(starts)]
    return _first(shorter, kind, jobs)


def _simpler(script: Script, kind: str, jobs: int) -> Script:
    """Fewer things that go wrong by themselves."""
    shape, calm = script.shape, Weather()
    tries = [replace(shape, weather=calm), replace(shape, controllers=1, weather=calm), replace(shape, controllers=1)]
    tries += [replace(shape, weather=replace(shape.weather, **{name: 0.0})) for name in ("lost", "slow", "late", "lag")]
    for shape in tries:
        if shape != script.shape:
            found = _first([replace(script, shape=shape)], kind, jobs)
            script = found or script
    return script


def _first(scripts: list[Script], kind: str, jobs: int) -> Script | None:
    for script, outcome in outcomes(scripts, jobs):
        if kind_of(outcome) == kind:
            cut: tuple[Step, ...] = script.steps[: outcome.steps] if outcome.steps else script.steps
            return script.only(cut)
    return None
