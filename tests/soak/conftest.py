"""The soaks run in a world of their own, as every test of the kernel does; the pure ones do not mind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import world

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(autouse=True)
def own_world(request: pytest.FixtureRequest) -> None:
    world.require(request.config)
