"""The version after this one, made of this one: a copy of the tree with a newer schema and something new in it.

What is new: `note`, a field of endpoints and hosts that came with the schema, and that nobody asked for.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from kvnet import codec

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("kvnet", "backends", "datapath", "controller", "worker", "lab", "cli")
SCHEMA = codec.SCHEMA + 1
VERSION = "99.0.0"
NOTE = "from-the-next-version"
FIELD = f'    note: str = field(default="{NOTE}", metadata={{"schema": {SCHEMA}}})\n'
LAST_FIELDS = {"Endpoint": "    gateway_priority: int = 0", "Host": "    segment: Cidr | None = None\n"}


def make(folder: Path) -> dict[str, str]:
    """The environment in which `python -m cli.main` is that version."""
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    _replace(folder / "kvnet" / "codec.py", f"\nSCHEMA = {codec.SCHEMA}\n", f"\nSCHEMA = {SCHEMA}\n")
    init = folder / "kvnet" / "__init__.py"
    init.write_text(f'"""The next version."""\n\n__version__ = "{VERSION}"\n')
    model = folder / "kvnet" / "model.py"
    for name, last in LAST_FIELDS.items():
        head, mark, rest = model.read_text().partition(f"\nclass {name}:\n")
        assert mark, name
        before, found, after = rest.partition(last)
        assert found, (name, last)
        model.write_text(head + mark + before + FIELD + found + after)
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))
