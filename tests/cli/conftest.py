"""One controller for all tests of a module; each test makes networks of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import stores
from tests.cli.world import World, running

if TYPE_CHECKING:
    from tests.store.real import Clusters


@pytest.fixture(scope="module")
def world(shared_store_name: str, tmp_path_factory: pytest.TempPathFactory, clusters: Clusters) -> Iterator[World]:
    """With hosts h1 and h2 alive, and h3 missing."""
    url = asyncio.run(stores.fresh_url(shared_store_name, tmp_path_factory.mktemp("store"), clusters))
    with running(url, "--cool-down", "60s") as world:
        world.register("h1", "192.0.2.1")
        world.register("h2", "192.0.2.2")
        world.register("h3", "192.0.2.3", is_alive=False)
        yield world


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "w.sock"
