"""The conformance suite's fixtures: every test that asks for `harness` or `store` runs against every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.store import Store
from tests.store.harness import HARNESSES, Harness


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@pytest.mark.needs("restart")` leaves out the stores of which that cannot be asked (`Harness.can_restart`)."""
    if "harness" in metafunc.fixturenames:
        needed = [f"can_{need}" for mark in metafunc.definition.iter_markers("needs") for need in mark.args]
        fit = [name for name, kind in sorted(HARNESSES.items()) if all(getattr(kind, need) for need in needed)]
        metafunc.parametrize("harness", fit, indirect=True)


@pytest.fixture
async def harness(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Harness]:
    harness = HARNESSES[request.param](tmp_path)
    await harness.start()
    yield harness
    await harness.stop()


@pytest.fixture
async def store(harness: Harness) -> Store:
    return await harness.open()
