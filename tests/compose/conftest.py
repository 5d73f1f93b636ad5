"""A world of its own for the compose cluster, and one Docker in it for all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.compose.cluster import build
from tests.compose.engine import Engine, own_engine
from tests.docker import programs
from tests.lab import world

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module: its Docker lives as long."""
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """With kvnet's image, built of this checkout by its Dockerfile."""
    world.require(request.config)
    if not programs.is_real_root():
        pytest.skip("Docker's containers take the machine's root, for cgroups: sudo make compose-test")
    async with own_engine(tmp_path_factory.mktemp("compose")) as made:
        await build(made)
        yield made
