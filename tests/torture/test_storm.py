"""A short storm: a good store has no double owner, a broken one is caught."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture.arena import STORES, arena
from tests.torture.broken import BrokenStore, Flaw
from tests.torture.storm_run import Storm, StormOptions, StormReport

SEED = 20
MILLION = 1_000_000
pytestmark = pytest.mark.anyio

CAUGHT_BY = {
    Flaw.DROPS_A_CHECK: {"double-owner", "check-did-not-hold", "lost-claim"},
    Flaw.FORGETS_A_WRITE: {"lost-claim", "lost-release", "resurrected-owner"},
    Flaw.REUSES_VERSIONS: {"lost-claim", "revision-not-new", "real-time-order"},
    Flaw.BLAMES_WITHOUT_REASON: {"lost-claim", "resurrected-owner"},
}


async def storm(store: str, folder: Path, options: StormOptions, flaw: Flaw | None = None) -> StormReport:
    async with arena(store, 3, folder, random.Random(options.seed)) as here:
        if flaw is not None:
            rng = random.Random(options.seed)
            here = replace(here, wrap=lambda store: BrokenStore(store, flaw, rng, 0.02))
        return await Storm(here, options, folder / "storm.txt", lambda text: None).run()


@pytest.mark.parametrize("flaw", CAUGHT_BY)
async def test_a_broken_store_is_caught_by_the_storm(flaw: Flaw, tmp_path: Path) -> None:
    options = StormOptions(SEED, 3_000, 5.0, claimants=24, round_s=2.0, quiet_s=10.0)

    report = await storm("memory", tmp_path, options, flaw)

    assert set(report.findings.rules) & CAUGHT_BY[flaw]
    assert report.history.exists()


async def test_a_good_store_has_no_double_owner_in_a_storm(tmp_path: Path) -> None:
    report = await storm(
        "memory", tmp_path, StormOptions(SEED, 3_000, 20.0, claimants=24, round_s=2.0, pause_of_clients=(0.1, 0.4))
    )

    assert report.findings.violations == []
    assert report.counts["contended"] > 300
    assert report.faults


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
async def test_no_store_has_a_double_owner_in_a_storm(store: str, tmp_path: Path) -> None:
    report = await storm(store, tmp_path, StormOptions(SEED, MILLION, 12.0, round_s=6.0))

    assert report.findings.violations == []
    assert report.counts["contended"] > 0
    assert report.rounds > 1
