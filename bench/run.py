"""`make bench [ONLY="scale curves"] [QUICK=1]`: measures, writes docs/performance.json, and renders page and plots.

Each part is written as soon as it is done, and none may take longer than its bound; so an interrupted run keeps what it
has. A `--quick` run only shows that everything runs: its figures are small, and go to stdout.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import page, record
from bench.figures import Figure, machine, not_measured

QUICK = "KVNET_BENCH_QUICK"


@dataclass(frozen=True, slots=True)
class Part:
    """`about_s`: what it takes on two quiet cores; twice that ends it. `is_published`: part of a plain run."""

    name: str
    about_s: float
    is_published: bool = False


PARTS = (
    Part("footprint", 45, is_published=True),
    Part("limits", 60, is_published=True),
    Part("creation", 90, is_published=True),
    Part("curves", 200, is_published=True),
    Part("peers", 200, is_published=True),
    Part("scale", 540, is_published=True),
    Part("http_create", 90),
    Part("races", 60),
    Part("store", 30),
    Part("stores", 400),
    Part("worker", 60),
    Part("attach", 60),
    Part("startup", 40),
    Part("cli", 90),
    Part("datapath", 300),
    Part("docker", 200),
    Part("dns", 60),
    Part("events", 60),
)
LONGEST_FACTOR = 2.0


class TooLong(Exception):
    """A part that hangs must not keep the others from being measured."""


def main(argv: Sequence[str] | None = None) -> int:
    """0: all targets are met; 1: some are not."""
    given = _given(argv)
    if given.quick:
        os.environ[QUICK] = "1"
    chosen = [part for part in PARTS if part.name in given.parts or (not given.parts and part.is_published)]
    _say(f"{len(chosen)} parts, about {sum(part.about_s for part in chosen) / 60:.0f} min")
    measured = []
    for number, part in enumerate(chosen):
        left_s = sum(later.about_s for later in chosen[number:])
        _say(f"[{number + 1}/{len(chosen)}] {part.name}, about {part.about_s:.0f} s; {left_s / 60:.0f} min in all")
        facts, figures = _measure(part)
        measured.append({"part": part.name, "machine": facts, "figures": [figure.plain() for figure in figures]})
        if part.is_published and not given.quick:
            record.put(part.name, facts, figures, given.record)
            if given.record == record.RECORD:
                page.write(record.read())
    is_met = all(figure["ok"] for part in measured for figure in part["figures"])
    print(json.dumps({"ok": is_met, "parts": measured}, indent=2))
    return 0 if is_met else 1


def _given(argv: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join(part.name for part in PARTS)
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the published figures.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {names}; default: those of the page")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written: does it all run?")
    parser.add_argument("--record", type=Path, default=record.RECORD, help="where the figures go")
    given = parser.parse_args(argv)
    if unknown := set(given.parts) - {part.name for part in PARTS}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {names}")
    return given


def _measure(part: Part) -> tuple[dict[str, Any], list[Figure]]:
    """What fails, or hangs, is a figure that is not met; what was measured before that stays."""
    facts = {**machine(), "commit": record.commit(), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"}
    figures: list[Figure] = []
    began = time.monotonic()
    try:
        with _at_most(part.about_s * LONGEST_FACTOR):
            for figure in _figures(part):
                figures.append(figure)
                _say(f"  {_line(figure)}")
    except Exception as error:  # noqa: BLE001 - told in the figure; the other parts go on
        figures.append(not_measured(part.name, "", f"{type(error).__name__}: {error}"[:600]))
        _say(f"  {_line(figures[-1])}")
    took_s = time.monotonic() - began
    _say(f"  {part.name} took {took_s:.0f} s")
    return {**facts, "load_after": round(os.getloadavg()[0], 2), "took_s": round(took_s)}, figures


def _figures(part: Part) -> Iterator[Figure]:
    figures = importlib.import_module(f"bench.{part.name}").figures
    is_small = "quick" in inspect.signature(figures).parameters
    yield from figures(quick=bool(os.environ.get(QUICK))) if is_small else figures()


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooLong(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _say(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


def _line(figure: Figure) -> str:
    plain = figure.plain()
    target = f" (target {plain['target']})" if plain["target"] else ""
    verdict = "" if figure.is_met else f"  NOT MET  {figure.note}"
    return f"{figure.name} = {plain['value']} {figure.unit}{target}{verdict}"
