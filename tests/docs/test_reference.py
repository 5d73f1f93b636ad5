"""The reference is the product's own words, and nothing of the product is missing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import reference
from tests.docs.pages import CHECKOUT
from tests.docs.said import CONDITIONS, KEYS, VARIABLES


@pytest.mark.parametrize(("path", "text"), reference.written().items(), ids=lambda given: getattr(given, "name", ""))
def test_the_reference_is_in_step_with_the_product(path: Path, text: str) -> None:
    assert path.exists(), "run: python -m tests.docs.reference"
    assert path.read_text() == text, "run: python -m tests.docs.reference"


def test_every_key_is_told() -> None:
    assert {name for name, _ in reference.key_names()} == KEYS.keys()


def test_every_variable_of_the_environment_is_told() -> None:
    assert reference.variables() == VARIABLES.keys()


def test_every_problem_that_hosts_report_is_told_and_no_other() -> None:
    assert reference.condition_codes() <= CONDITIONS.keys()
    sources = "".join(
        p.read_text() for name in ("worker", "datapath", "kvnet") for p in (CHECKOUT / name).rglob("*.py")
    )
    assert [code for code in CONDITIONS if f'"{code}"' not in sources] == []
