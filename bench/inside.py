"""Runs the part of a bench that needs hosts in namespaces of its own, and brings its figures out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict

from bench.figures import Figure, not_measured
from kvnet.errors import Unfit
from lab.enter import settle, wrapped

TIMEOUT_S = 600.0


def run_inside(module: str) -> Iterator[Figure]:
    """The figures that `python -m module` prints; one that is not met if this machine cannot."""
    try:
        command, environment = wrapped([sys.executable, "-m", module])
    except Unfit as error:
        yield not_measured(module.removeprefix("bench."), "", f"{error.detail}; {error.fix}")
        return
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    for line in done.stdout.splitlines():
        yield Figure(**json.loads(line))
    if done.returncode:
        yield not_measured(module.removeprefix("bench."), "", f"it failed: {done.stderr[-1500:]}")


def main(figures: Callable[[], AsyncIterator[Figure]]) -> None:
    """The inner side: settle in, measure, print one figure a line."""
    settle()

    async def run() -> None:
        async for figure in figures():
            print(json.dumps(asdict(figure)), flush=True)

    asyncio.run(run())
