"""Every part of the bench runs, small: what is published once a day must not be found broken on that day."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.record import ROOT

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

PATIENCE_S = 240.0


@pytest.mark.parametrize("part", ["footprint", "limits", "creation", "curves", "scale"])
def test_a_part_gives_all_its_figures(part: str) -> None:
    """Whether they are met is another question: the machine is busy with other tests."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", part, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    figures = json.loads(done.stdout)["parts"][0]["figures"]

    assert len(figures) > 5, done.stderr[-2000:]
    assert [figure for figure in figures if figure["value"] is None] == []
