"""What the tests of the API share: a running controller per kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.api.under_test import Api, running


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["memory", "sqlite"])
async def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One controller for all tests of a module that only need some.

    No wider: as long as it lives, its event loop is that of every test, also of those in virtual time.
    """
    path = tmp_path_factory.mktemp("store") / "kvnet.db"
    async with running("memory://" if request.param == "memory" else f"sqlite://{path}") as api:
        yield api


@pytest.fixture
def store_file(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'kvnet.db'}"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as held:
        yield held
