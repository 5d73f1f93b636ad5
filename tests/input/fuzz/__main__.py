"""`python -m tests.input.fuzz TARGET --seconds N`: what a fuzzer comes up with, for one reader of strangers' bytes.

Ends with 1 at the first input that does what none may, and keeps it in `crashes/`; what is there is tried first, by
every run, and by the test suite without a fuzzer. A corpus that has grown stays in `.cache/fuzz`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from tests.input.fuzz.targets import Made

HERE = Path(__file__).parent
CORPUS = HERE.parents[2] / ".cache" / "fuzz"
LONGEST = 8192
ONE_S = 10


def target_of(name: str) -> Made:
    """Imports what it reads with; the fuzzer sees its way through that, and through nothing else."""
    with atheris.instrument_imports(include=["kvnet", "backends", "controller.api.store", "worker.dns", "dns"]):
        from tests.input.fuzz import targets

        return targets.TARGETS[name]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("dns", "resolver", "gateway", "codec", "http"))
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    made = target_of(asked.target)
    corpus, crashes = CORPUS / asked.target, HERE / "crashes" / asked.target
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(made.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        *(f"-max_total_time={asked.seconds}", f"-max_len={LONGEST}", f"-timeout={ONE_S}", "-rss_limit_mb=1024"),
        *(f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-verbosity=1"),
    ]
    if asked.target in ("gateway", "codec"):
        options.append(f"-dict={HERE / 'json.dict'}")
    atheris.Setup([sys.argv[0], *options, str(corpus), str(crashes)], made.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
