"""`make bench [ARGS="http_create races"]`: runs the named parts (all without a name) and prints one JSON object."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence

from bench.figures import Figure, machine

PARTS = (
    "http_create",
    "races",
    "store",
    "stores",
    "worker",
    "attach",
    "startup",
    "cli",
    "datapath",
    "docker",
    "dns",
    "events",
)


def main(argv: Sequence[str] | None = None) -> int:
    """0: all targets are met; 1: some are not."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the published figures.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; default: all")
    chosen: list[str] = parser.parse_args(argv).parts
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    facts = machine()
    figures: list[Figure] = []
    for part in chosen or PARTS:
        started = time.monotonic()
        print(f"bench: {part} ...", file=sys.stderr)
        for figure in importlib.import_module(f"bench.{part}").figures():
            figures.append(figure)
            print(f"bench:   {_line(figure)}", file=sys.stderr)
        print(f"bench: {part} took {time.monotonic() - started:.0f} s", file=sys.stderr)
    is_met = all(figure.is_met for figure in figures)
    print(json.dumps({"ok": is_met, "machine": facts, "figures": [f.plain() for f in figures]}, indent=2))
    return 0 if is_met else 1


def _line(figure: Figure) -> str:
    plain = figure.plain()
    target = f" (target {plain['target']})" if plain["target"] else ""
    verdict = "" if figure.is_met else f"  NOT MET  {figure.note}"
    return f"{figure.name} = {plain['value']} {figure.unit}{target}{verdict}"
