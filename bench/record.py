"""The file that published figures live in: one part a member, each with the machine, the commit and the moment.

A part is replaced as a whole as soon as it is measured, so a run that is cut short keeps what it has, and the figures
of the other parts stay. The page and the plots are made of this file and of nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figure

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "performance.json"
Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One part as it was measured. `figures` by name, as `Figure.plain` has them."""

    name: str
    machine: Mapping[str, Any]
    figures: Mapping[str, Plain]

    def value(self, name: str) -> float | None:
        figure = self.figures.get(name)
        return None if figure is None else figure["value"]

    def details(self, name: str) -> Mapping[str, Any]:
        return self.figures.get(name, {}).get("details", {})


def read(path: Path = RECORD) -> dict[str, Part]:
    """Nothing measured yet is no error."""
    if not path.exists():
        return {}
    parts = json.loads(path.read_text())["parts"]
    return {
        name: Part(name, plain["machine"], {figure["name"]: figure for figure in plain["figures"]})
        for name, plain in parts.items()
    }


def put(name: str, machine: Plain, figures: Sequence[Figure], path: Path = RECORD) -> None:
    """As a whole or not at all: a reader, or a run that is killed, never sees half of it."""
    whole = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    whole["parts"][name] = {"machine": machine, "figures": [figure.plain() for figure in figures]}
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(fresh, path)


def commit() -> str:
    """The commit that was measured; with a + where files differed from it."""
    said = _git("rev-parse", "--short", "HEAD")
    return said + ("+" if said and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
