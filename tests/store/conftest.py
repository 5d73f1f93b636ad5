"""The conformance suite's fixtures: every test that asks for `harness` or `store` runs against every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.store import Store
from tests.store.harness import HARNESSES, Harness


@pytest.fixture(params=sorted(HARNESSES))
async def harness(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Harness]:
    harness = HARNESSES[request.param](tmp_path)
    await harness.start()
    yield harness
    await harness.stop()


@pytest.fixture
async def store(harness: Harness) -> Store:
    return await harness.open()
