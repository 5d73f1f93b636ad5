"""What the tests of single requests share: a controller of their own, on a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.under_test import Api, running


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with running("memory://") as made:
        yield made
