"""Two hosts on the real kernel, driven by operations alone, so that a planted fault stays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.lab.kernel.bed import Bed, open_bed


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    async with open_bed(hosts=2) as made:
        yield made
