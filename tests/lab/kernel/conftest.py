"""A bed of hosts, and a single empty host, on the real kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lab import namespaces
from tests.lab.kernel.bed import Bed, open_bed
from worker.kernel.linux import LinuxKernel


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    async with open_bed(hosts=2) as made:
        yield made


@pytest.fixture
def netns() -> Iterator[Path]:
    path = namespaces.create("host")
    yield path
    namespaces.destroy(path)


@pytest.fixture
async def kernel(netns: Path) -> AsyncIterator[LinuxKernel]:
    async with await LinuxKernel.open(netns=str(netns)) as made:
        yield made
