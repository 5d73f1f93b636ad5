"""Readers of strangers' bytes hold against a fuzzer: for a short while here, and for long with `make fuzz`.

What a fuzzer ever found is kept, and tried without one.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.input.fuzz.targets import TARGETS

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
CRASHES = HERE / "fuzz" / "crashes"
SECONDS = 20
LEAST_RUNS = 2000


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_once_found_is_found_no_more(target: str) -> None:
    made = TARGETS[target]()
    try:
        for data in [*made.seeds, *(one.read_bytes() for one in sorted((CRASHES / target).glob("*-*")))]:
            made.check(data)
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("target", TARGETS)
async def test_a_fuzzer_finds_nothing_within_a_short_while(target: str) -> None:
    command = (sys.executable, "-m", "tests.input.fuzz", target, "--seconds", str(SECONDS))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(SECONDS * 5):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, report.decode(errors="replace")[-4000:]
    runs = next(line for line in report.decode().splitlines() if line.startswith("stat::number_of_executed_units"))
    assert int(runs.split()[-1]) >= LEAST_RUNS
