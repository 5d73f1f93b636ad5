"""The threat model names the tests that prove it: they are there."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "security.md").read_text()


def test_every_defence_in_the_threat_model_names_a_test_that_there_is() -> None:
    rows = re.findall(r"^\| .+? \| .+? \| (`.+`) \|$", PAGE, re.MULTILINE)

    assert len(rows) > 15
    for row in rows:
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            path = name if "/" in name else f"{folder}/{name}"
            folder = path.rpartition("/")[0]
            assert (CHECKOUT / path).exists(), f"{name} in {row}"
