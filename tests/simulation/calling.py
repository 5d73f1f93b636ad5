"""Calls the simulation as people do: in a process of its own, for it forks, and a program of tests has threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 1800


def simulate(*arguments: str, hash_seed: str = "random", cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def jobs() -> str:
    return str(min(4, os.cpu_count() or 1))
