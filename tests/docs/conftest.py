"""Puts the test process into a world of its own, as the other tests with namespaces are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import world

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)
