"""Bugs that are planted are found, within few seeds; a failure is the same one again, and becomes a short one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation.broken import PLANTED
from tests.simulation.calling import jobs, simulate

# A worker without its fence does harm only where several rare things meet: not shown yet (docs/simulation.md).
WITHIN = {name: "40" for name in PLANTED if name not in ("", "no-fence")}
STEPS = "250"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(WITHIN))
def test_a_planted_bug_is_found_within_few_seeds(name: str) -> None:
    done = simulate("--broken", name, "--seeds", WITHIN[name], "--steps", STEPS, "--jobs", jobs(), "--first")

    assert done.returncode == 1, f"{name} was not found in {WITHIN[name]} seeds\n{done.stdout}{done.stderr}"


def test_the_same_seed_is_the_same_run_in_any_process() -> None:
    """Whatever the hash seed of the interpreter is, and so the order of its sets."""
    asked = ("--from", "2", "--seeds", "12", "--steps", "200", "--jobs", jobs(), "--no-shrink", "--digests")
    one, other = simulate(*asked, hash_seed="1"), simulate(*asked, hash_seed="2")

    assert digests(one.stdout) == digests(other.stdout)
    assert len(digests(one.stdout)) == 12, one.stdout + one.stderr


def test_a_failing_seed_becomes_short_and_still_fails(tmp_path: Path) -> None:
    planted = ("--broken", "forgets-to-release", "--steps", STEPS)
    found = simulate(*planted, "--seeds", "20", "--jobs", "1", "--first")
    assert found.returncode == 1, found.stdout + found.stderr
    seed = found.stdout.split("seed ", 1)[1].split()[0]

    kept = ("--shrink-runs", "400", "--keep", str(tmp_path), "--lines", "0")
    short = simulate(*planted, "--seed", seed, "--shrink-it", "--jobs", jobs(), *kept)
    [path] = tmp_path.glob("*.json")
    again = [simulate("--replay", str(path), "--lines", "0", hash_seed=hash_seed) for hash_seed in ("1", "2")]

    assert len(json.loads(path.read_text())["steps"]) < int(STEPS) / 5, short.stdout
    assert [done.returncode for done in again] == [1, 1]
    assert again[0].stdout.split("(")[1].split(",")[0] == again[1].stdout.split("(")[1].split(",")[0]


def digests(told: str) -> set[str]:
    return {line for line in told.splitlines() if line.startswith("seed ") and " is " in line}
