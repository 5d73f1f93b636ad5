"""`python -m tests.torture [--store etcd] [--seconds 60] [--seed 1]`: the whole run, and a report.

`python -m tests.torture check FILE` judges a history again; `export FILE` writes it as one register per key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.arena import ALIASES, STORES, arena
from tests.torture.findings import Findings
from tests.torture.history import read_rounds
from tests.torture.linearizable import check
from tests.torture.rounds import Judgement, check_rounds
from tests.torture.run import Options, Report, Run
from tests.torture.storm_run import Storm, StormOptions, StormReport, summary
from tests.torture.wgl import register_lines


def main() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["check"]:
        path = Path(arguments[1])
        findings, _ = check_rounds(path, 0, path.stat().st_size, Judgement())
        _say_findings(findings)
        return 1 if findings.rules else 0
    if arguments[:1] == ["export"]:
        return _export(Path(arguments[1]))
    return _torture(arguments)


def _torture(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--store", default="sqlite", choices=(*STORES, *ALIASES))
    parser.add_argument("--members", type=int, default=3, choices=(1, 3))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--allocations", type=int, default=0, help="go on until so many addresses were allocated")
    parser.add_argument("--history", type=Path, help="the file (default: one in the folder for temporary files)")
    parser.add_argument("--storm", action="store_true", help="many more allocations, and nothing else")
    parser.add_argument("--at-most", type=float, default=3600.0, help="seconds until a storm ends in any case")
    given = parser.parse_args(arguments)
    if given.storm:
        return _storm(given)
    options = Options(given.seconds, given.seed, given.clients, allocations=given.allocations)
    history = given.history or Path(tempfile.gettempdir(), f"kvnet-torture-{given.store}-{given.seed}.jsonl")
    _say(f"torture of {given.store}, seed {given.seed}; the history goes to {history}")
    report = asyncio.run(_run(given.store, given.members, options, history))
    _say_report(given.store, report)
    return 0 if report.is_clean else 1


def _storm(given: argparse.Namespace) -> int:
    allocations = given.allocations or sys.maxsize
    at_most_s = given.at_most if given.allocations else given.seconds
    options = StormOptions(given.seed, allocations, at_most_s)
    history = given.history or Path(tempfile.gettempdir(), f"kvnet-storm-{given.store}-{given.seed}.txt")
    _say(f"storm of {given.store}, seed {given.seed}")
    report = asyncio.run(_run_storm(given.store, given.members, options, history))
    summary(given.store, report, _say)
    return 0 if report.is_clean else 1


async def _run_storm(store: str, members: int, options: StormOptions, history: Path) -> StormReport:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvnet-storm-") as folder:
        async with arena(store, members, Path(folder), random.Random(options.seed)) as here:
            return await Storm(
                here, options, history, lambda text: _say(f"{time.monotonic() - began:6.1f} s  {text}")
            ).run()


async def _run(store: str, members: int, options: Options, history: Path) -> Report:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvnet-torture-") as folder:
        async with arena(store, members, Path(folder), random.Random(options.seed)) as here:
            return await Run(
                here, options, history, lambda text: _say(f"{time.monotonic() - began:6.1f} s  {text}")
            ).run()


def _say_report(store: str, report: Report) -> None:
    counts = report.tally.counts
    _say(f"\n{store}, seed {report.options.seed}, {report.seconds:.0f} s, {len(report.faults)} faults")
    _say(f"{counts['allocations']} contended allocations, {counts['releases']} releases, {counts['networks']} networks")
    _say("outcomes: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    _say_findings(report.findings)
    _say(f"double owners: {report.findings.rules['double-owner']}")
    _say(f"violations: {sum(report.findings.rules.values())}")
    _say(f"history: {report.history}")


def _say_findings(findings: Findings) -> None:
    _say("judged: " + ", ".join(f"{n} {what}" for what, n in sorted(findings.judged.items())))
    for violation in findings.violations:
        _say(f"VIOLATION {violation}")


def _export(path: Path) -> int:
    with path.open(encoding="utf-8") as file:
        for history in read_rounds(file):
            check(history)  # learns the versions of what was unknown
            for line in register_lines(history):
                _say(json.dumps(line))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
