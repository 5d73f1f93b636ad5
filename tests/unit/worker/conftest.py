"""A worker in virtual time, over fake ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import World, a_world
from tests.unit.worker.virtual import VirtualLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One overlay network, no worker yet."""
    async with a_world(tmp_path, overlay()) as made:
        yield made
