"""The walk of a first day on the embedded store: real controller, real workers, real kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import Lab, open_lab
from tests.lab.walk import walk

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=3) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
        for name in made.hosts:
            await made.until_ready(name)
        yield made


async def test_the_walk_of_a_first_day(lab: Lab) -> None:
    await walk(lab)
