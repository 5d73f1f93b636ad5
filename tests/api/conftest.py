"""What the tests of the API share: a running controller per kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import stores
from tests.api.under_test import Api, running

if TYPE_CHECKING:
    from tests.store.real import Clusters


@pytest.fixture(scope=stores.module_loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope=stores.module_loop_scope, autouse=True)
async def one_loop(anyio_backend: str) -> None:
    return


@pytest.fixture(scope="module")
async def api(
    store_name: str, tmp_path_factory: pytest.TempPathFactory, clusters: Clusters, one_loop: None
) -> AsyncIterator[Api]:
    """One controller for all tests of a module that only need some.

    No wider: as long as it lives, its event loop is that of every test, also of those in virtual time.
    """
    async with running(await stores.fresh_url(store_name, tmp_path_factory.mktemp("store"), clusters)) as api:
        yield api


@pytest.fixture
async def shared_store(shared_store_name: str, tmp_path: Path, clusters: Clusters) -> str:
    """The URL of an empty store that several controllers can use."""
    return await stores.fresh_url(shared_store_name, tmp_path, clusters)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as held:
        yield held
