"""`make simulate`: many seeds, and what becomes of those that fail: told, shrunk, and kept for CI to replay.

python -m tests.simulation --seeds 1000 [--from 1] [--steps 1000] [--jobs 2]
python -m tests.simulation --seed 17 --steps 1000            one seed, with its trace
python -m tests.simulation --replay tests/simulation/regressions/some.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.pool import outcome_of, outcomes
from tests.simulation.run import Outcome
from tests.simulation.shape import Script
from tests.simulation.shrink import Shrinking, kind_of

REGRESSIONS = Path(__file__).parent / "regressions"
SHRINK_RUNS = 300


def main() -> int:
    asked = _arguments()
    if asked.replay or asked.seed is not None:
        return _replay(asked)
    began, bad, virtual_s, cpu_s = time.monotonic(), list[tuple[Script, Outcome]](), 0.0, 0.0
    seeds = range(asked.start, asked.start + asked.seeds)
    scripts = (Script.draw(seed, asked.steps, asked.broken) for seed in seeds)
    for done, (script, outcome) in enumerate(outcomes(scripts, asked.jobs), 1):
        virtual_s, cpu_s = virtual_s + outcome.virtual_s, cpu_s + outcome.cpu_s
        if asked.digests:
            print(f"seed {script.seed} is {outcome.digest}", flush=True)
        if not outcome.is_good:
            bad.append((script, outcome))
            _tell(script, outcome, asked.steps)
            if asked.first:
                return 1
        if done % 100 == 0:
            print(f"{done} seeds, {len(bad)} failed, {done / (time.monotonic() - began) * 60:.0f} a minute", flush=True)
    took_s = time.monotonic() - began
    print(
        f"{asked.seeds} seeds of {asked.steps} steps: {len(bad)} failed; {took_s:.0f} s with {asked.jobs} jobs, "
        f"{asked.seeds / took_s * 60:.0f} seeds a minute, {cpu_s / asked.seeds:.2f} s of CPU a seed; "
        f"{virtual_s / 3600:.1f} hours passed"
    )
    kinds: Counter[str] = Counter(kind_of(outcome) for _, outcome in bad)
    for kind, count in kinds.most_common():
        print(f"  {count} x {kind}")
    if not asked.no_shrink:
        for kind in list(kinds)[: asked.shrink]:
            script = min((s for s, o in bad if kind_of(o) == kind), key=lambda one: one.seed)
            _keep(script, kind, asked)
    return 1 if bad else 0


def _keep(script: Script, kind: str, asked: argparse.Namespace) -> None:
    short = Shrinking(kind, asked.jobs, asked.shrink_runs).shortest(script)
    folder = Path(asked.keep)
    folder.mkdir(exist_ok=True)
    path = folder / f"seed-{script.seed}.json"
    path.write_text(short.to_json())
    print(f"seed {script.seed} in {len(short.steps)} steps: python -m tests.simulation --replay {path}", flush=True)


def _replay(asked: argparse.Namespace) -> int:
    if asked.replay:
        script = Script.from_json(Path(asked.replay).read_text())
    else:
        script = Script.draw(asked.seed, asked.steps, asked.broken)
    outcome = outcome_of(script, with_trace=True)
    for line in outcome.trace[max(0, len(outcome.trace) - asked.lines) :]:
        print(line)
    _tell(script, outcome, len(script.steps))
    if asked.shrink_it and not outcome.is_good:
        _keep(script, kind_of(outcome), asked)
    return 0 if outcome.is_good else 1


def _tell(script: Script, outcome: Outcome, steps: int) -> None:
    state = "good" if outcome.is_good else "FAILED"
    broken = f" --broken {script.broken}" if script.broken else ""
    print(
        f"seed {script.seed} {state} after {outcome.steps} steps ({outcome.digest[:12]}, {outcome.cpu_s:.1f} s): "
        f"python -m tests.simulation --seed {script.seed} --steps {steps}{broken}",
        flush=True,
    )
    for found in outcome.found[:6]:
        print(f"    {found}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate whole clusters.")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", type=int, default=1, dest="start")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--replay", help="a script that was kept")
    parser.add_argument("--lines", type=int, default=100_000, help="of the trace, the last ones")
    parser.add_argument("--broken", default="", help="with this bug planted")
    parser.add_argument("--shrink", type=int, default=3, help="so many kinds of failures")
    parser.add_argument("--shrink-runs", type=int, default=SHRINK_RUNS, help="tried at most for each")
    parser.add_argument("--keep", default=str(REGRESSIONS), help="where to")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--first", action="store_true", help="end with the first failure, unshrunk")
    parser.add_argument("--digests", action="store_true", help="tell of each seed what stands for all that happened")
    parser.add_argument("--shrink-it", action="store_true", help="with --seed or --replay")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
