"""A short torture of every store: no double owner, nothing lost, every watcher in step, whatever goes wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture.arena import STORES, arena
from tests.torture.broken import BrokenStore, Flaw
from tests.torture.run import Options, Report, Run

SECONDS = 10.0
SEED = 20
pytestmark = pytest.mark.anyio


async def torture(store: str, folder: Path, options: Options, flaw: Flaw | None = None) -> Report:
    async with arena(store, 3, folder, random.Random(options.seed)) as here:
        if flaw is not None:
            rng = random.Random(options.seed)
            here = replace(here, wrap=lambda store: BrokenStore(store, flaw, rng))
        return await Run(here, options, folder / "history.jsonl", lambda text: None).run()


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
async def test_a_store_keeps_its_promises_under_faults(store: str, tmp_path: Path) -> None:
    report = await torture(store, tmp_path, Options(SECONDS, SEED))

    assert report.findings.violations == []
    assert report.findings.judged["commits"] > 0
    assert report.tally.counts["allocations"] > 0
    assert report.faults


@pytest.mark.slow
async def test_the_product_on_a_store_that_drops_checks_is_caught(tmp_path: Path) -> None:
    report = await torture("memory", tmp_path, Options(4.0, SEED, quiet_s=5.0), Flaw.DROPS_A_CHECK)

    assert "check-did-not-hold" in report.findings.rules
