"""What the tests of security share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import stores
from tests.security.admitted import Guarded, guarded

if TYPE_CHECKING:
    from tests.store.real import Clusters


@pytest.fixture(scope=stores.module_loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope=stores.module_loop_scope, autouse=True)
async def one_loop(anyio_backend: str) -> None:
    return


@pytest.fixture
async def shared_store(shared_store_name: str, tmp_path: Path, clusters: Clusters) -> str:
    """The URL of an empty store that several controllers can use."""
    return await stores.fresh_url(shared_store_name, tmp_path, clusters)


@pytest.fixture
async def site() -> AsyncIterator[Guarded]:
    """A controller, alone, whose cluster asks for tokens."""
    async with guarded("memory://") as made:
        yield made
