"""One controller for all tests of bad requests: none of them may change anything, so they can share it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.under_test import Api, running


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Api]:
    async with running("memory://") as controller:
        yield controller
