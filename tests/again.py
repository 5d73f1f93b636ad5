"""Runs pytest; what fails is run once more, alone, and is named if it passes then.

Two thousand tests on real servers, kernels and browsers, on a machine of two cores: now and then one of them loses a
race with the machine. Such a test must not hide a failure, nor be hidden: a test that fails twice has failed, more than
a few failures are no accident and get no second try, and what needed one is told as UNSTEADY, to be mended.

    python -m tests.again [pytest's arguments]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

AT_MOST = 4
TESTS_FAILED = 1
_GROUP = re.compile(r"@[^\]@]*\Z")


def run(arguments: Sequence[str]) -> int:
    """pytest's exit code; 0 too if all that failed passed when run alone."""
    with tempfile.TemporaryDirectory() as folder:
        # A cache of its own: other parts, and whoever works beside this, have theirs.
        cache = ("-o", f"cache_dir={folder}")
        status = _pytest([*arguments, *cache])
        if status != TESTS_FAILED:
            return status
        failed = _failed(Path(folder))
        if not 0 < len(failed) <= AT_MOST:
            return status
        print(f"\nonce more, alone: {' '.join(failed)}", flush=True)
        options = [one for one in arguments if one.startswith("-") or not Path(one.partition("::")[0]).exists()]
        again = _pytest([*_serial(options), *cache, *failed])
    if again == 0:
        print("\n".join(f"UNSTEADY {name}: failed, and passed alone" for name in failed), flush=True)
    return again


def _pytest(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def _failed(cache: Path) -> list[str]:
    """Their ids, without the `@group` that xdist may add to them."""
    try:
        told = json.loads((cache / "v/cache/lastfailed").read_text())
    except OSError:
        return []
    return sorted(_GROUP.sub("", name) for name in told)


def _serial(options: Sequence[str]) -> list[str]:
    """Without `-n N` and `--dist MODE`."""
    kept: list[str] = []
    rest = iter(options)
    for option in rest:
        if option in ("-n", "--dist"):
            next(rest, None)
        elif not option.startswith(("--ignore", "-n", "--dist")):
            kept.append(option)
    return kept


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
