"""A second opinion on small histories: Wing and Gong's search with Lowe's memory, one key at a time.

Knows nothing of the order of revisions: it looks for any order of the operations on one key that agrees with real time
and with what each was told. Exponential in the worst case, so it is bounded, and says when it gave up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.torture.history import Commit, Demand, History, Outcome
from tests.torture.timeline import holds

MAX_STEPS = 200_000
FOREVER = 1 << 62
UNSEEN = -1  # the version of a put that nobody was told


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on one key. `is_refused`: the demand failed. `may_skip`: it need not have happened at all."""

    id: int
    process: str
    called: int
    returned: int
    demand: Demand | None
    put: int | None  # the version that it leaves
    deletes: bool
    is_refused: bool = False
    may_skip: bool = False

    def apply(self, version: int) -> int | None:
        """The key's version afterwards; None: it cannot be now."""
        if self.demand is not None and holds(self.demand, version) == self.is_refused:
            return None
        if self.is_refused:
            return version
        if self.put is not None:
            return self.put
        return 0 if self.deletes else version


def steps_of(history: History) -> dict[str, list[Step]]:
    """Per key; but those that sessions put, which vanish by themselves. Unknown versions are resolved before."""
    bound = {key for commit in history.commits for key in commit.bound}
    found: dict[str, list[Step]] = {}
    for commit in history.commits:
        for step_key, step in _steps(commit):
            if step_key not in bound:
                found.setdefault(step_key, []).append(step)
    return found


def _steps(commit: Commit) -> Iterator[tuple[str, Step]]:
    if commit.outcome is Outcome.FAIL and not commit.conflict:
        return
    is_open = commit.outcome is Outcome.INFO
    returned = FOREVER if commit.returned is None else commit.returned
    demands = {demand.key: demand for demand in commit.demands}
    for key in {*demands, *commit.puts, *commit.deletes}:
        demand = demands.get(key)
        if commit.conflict:
            if demand is None:
                continue
            refused = key in commit.conflict
            yield key, Step(commit.id, commit.process, commit.called, returned, demand, None, False, refused)
            continue
        put = (commit.revision or UNSEEN) if key in commit.puts else None
        skip = is_open and not commit.revision
        step = Step(commit.id, commit.process, commit.called, returned, demand, put, key in commit.deletes, False, skip)
        yield key, step


def is_linearizable(steps: Sequence[Step], version: int = 0, max_steps: int = MAX_STEPS) -> bool | None:
    """None: given up."""
    ordered = sorted(steps, key=lambda step: step.called)
    required = sum(1 << i for i, step in enumerate(ordered) if not step.may_skip)
    seen: set[tuple[int, int]] = set()
    stack = [(0, version)]
    while stack:
        done, now = stack.pop()
        if done & required == required:
            return True
        if (done, now) in seen:
            continue
        seen.add((done, now))
        if len(seen) > max_steps:
            return None
        deadline = min((s.returned for i, s in enumerate(ordered) if not done >> i & 1), default=FOREVER)
        for i, step in enumerate(ordered):
            if step.called > deadline:
                break
            if not done >> i & 1 and (after := step.apply(now)) is not None:
                stack.append((done | 1 << i, after))
    return False


def register_lines(history: History) -> Iterator[dict[str, object]]:
    """One key's operations at a time, as porcupine and Knossos read a register's: value = [demand, version left]."""
    for key, steps in sorted(steps_of(history).items()):
        for step in sorted(steps, key=lambda step: step.called):
            f = "check" if step.put is None and not step.deletes else "write"
            value = [list(step.demand) if step.demand else None, 0 if step.deletes else step.put]
            line = {"process": step.process, "f": f, "key": key, "value": value, "op": step.id}
            yield {**line, "type": "invoke", "time": step.called}
            if step.returned != FOREVER:
                yield {**line, "type": "fail" if step.is_refused else "ok", "time": step.returned}
            else:
                yield {**line, "type": "info", "time": None}
