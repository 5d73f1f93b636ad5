"""The product under some hundred seeds, and every seed that ever found something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.calling import jobs, simulate

SEEDS, STEPS = "250", "200"  # about a minute of two cores; `make simulate` takes more
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))

pytestmark = pytest.mark.slow


def test_clusters_that_a_seed_makes_keep_every_promise() -> None:
    done = simulate("--seeds", SEEDS, "--steps", STEPS, "--jobs", jobs(), "--no-shrink")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_a_seed_once_found_is_mended(path: Path) -> None:
    done = simulate("--replay", str(path), "--lines", "40")

    assert done.returncode == 0, done.stdout + done.stderr
