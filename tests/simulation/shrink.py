"""Makes a failing script short: takes steps out as long as it still fails in the same way (delta debugging, ddmin).

"The same way" is the kind of the first thing found, not its words: ids and times change when steps go.
"""

from __future__ import annotations

import re
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


class Shrinking:
    """`runs`: how many may be tried, whatever each of them takes; what was found by then is the answer."""

    def __init__(self, kind: str, jobs: int, runs: int) -> None:
        self._kind = kind
        self._jobs = jobs
        self._left = runs

    def shortest(self, script: Script) -> Script:
        parts = 2
        while len(script.steps) > 1 and self._left > 0:
            found = self._without_a_part(script, parts)
            if found is not None:
                script, parts = found, max(2, parts - 1)
            elif parts >= len(script.steps):
                break
            else:
                parts = min(len(script.steps), 2 * parts)
        return self._simpler(script)

    def _without_a_part(self, script: Script, parts: int) -> Script | None:
        size = -(-len(script.steps) // parts)
        starts = range(0, len(script.steps), size)
        return self._first([script.only(script.steps[:at] + script.steps[at + size :]) for at in starts])

    def _simpler(self, script: Script) -> Script:
        """Fewer things that go wrong by themselves."""
        calm = Weather()
        for change in ({"weather": calm}, {"controllers": 1}):
            shape = replace(script.shape, **change)  # type: ignore[arg-type]
            if shape != script.shape:
                script = self._first([replace(script, shape=shape)]) or script
        return script

    def _first(self, scripts: list[Script]) -> Script | None:
        for script, outcome in outcomes(scripts, self._jobs):
            self._left -= 1
            if kind_of(outcome) == self._kind:
                cut: tuple[Step, ...] = script.steps[: outcome.steps] if outcome.steps else script.steps
                return script.only(cut)
            if self._left <= 0:
                return None
        return None
