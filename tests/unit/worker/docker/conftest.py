"""Docker's plugin over a real unix socket, and so in real time."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
