"""How long a user waits: for `kvnet --help`, and for the whole demo."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bench.figures import Figure, not_measured, percentile

HELP_RUNS = 15
DEMO_RUNS = 3
TIMEOUT_S = 90.0
KVNET = (sys.executable, "-m", "cli.main")


def figures() -> Iterator[Figure]:
    _timed([*KVNET, "--help"])  # byte code is compiled, the files are in the page cache
    times = [_timed([*KVNET, "--help"])[0] * 1000 for _ in range(HELP_RUNS)]
    details = {"fastest": round(min(times), 1), "bare_python": round(_bare_python_ms(), 1)}
    yield Figure("kvnet_help_p50", percentile(times, 0.5), "ms", at_most=150, details=details)
    yield from _demo()


def _bare_python_ms() -> float:
    return min(_timed([sys.executable, "-c", ""])[0] for _ in range(5)) * 1000


def _demo() -> Iterator[Figure]:
    seconds, first_pings = [], []
    for _ in range(DEMO_RUNS):
        took, done = _timed([*KVNET, "demo", "--once", "--json"])
        if done.returncode:
            yield not_measured("demo_once", "s", (done.stderr or done.stdout)[-800:])
            return
        seconds.append(took)
        first_pings.append(float(json.loads(done.stdout)["seconds_to_first_ping"]))
    yield Figure(
        "demo_once", percentile(seconds, 0.5), "s", at_most=4, details={"runs": [round(s, 2) for s in seconds]}
    )
    yield Figure("demo_first_ping", percentile(first_pings, 0.5), "s", at_most=2, details={"runs": first_pings})


def _timed(command: Sequence[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return time.perf_counter() - started, done
