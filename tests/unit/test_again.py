"""A test that fails twice has failed, whatever else passes; one that passes alone is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
UNSTEADY = """
from pathlib import Path
import pytest
def test_well(): pass
@pytest.mark.xdist_group("g")
@pytest.mark.parametrize("p", ["a@b"])
def test_first_time_is_unlucky(p):
    flag = Path(__file__).with_suffix(".flag")
    was_there = flag.exists()
    flag.touch()
    assert was_there
"""


def again(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = xdist_group\n")
    command = [sys.executable, "-m", "tests.again", "-q", *arguments]
    where = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("how", [(), ("-n", "2", "--dist", "loadgroup")])
def test_what_passes_alone_is_named_as_unsteady(tmp_path: Path, how: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(UNSTEADY)
    done = again(tmp_path, *how, "test_it.py")

    assert done.returncode == 0, done.stdout
    assert "UNSTEADY test_it.py::test_first_time_is_unlucky[a@b]: failed, and passed alone" in done.stdout


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(UNSTEADY + "def test_wrong(): assert 0\n")
    done = again(tmp_path, "test_it.py")

    assert done.returncode == 1
    assert "UNSTEADY" not in done.stdout


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("".join(f"def test_{n}(): assert 0\n" for n in range(6)))
    done = again(tmp_path, "test_it.py")

    assert done.returncode == 1
    assert "once more" not in done.stdout


def test_tests_that_cannot_be_collected_are_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import nowhere_to_be_found\n")
    done = again(tmp_path, "test_it.py")

    assert done.returncode == 2
    assert "once more" not in done.stdout
