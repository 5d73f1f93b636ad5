"""One controller on an embedded store for all tests of the command line; each test makes networks of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.world import World, running


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With hosts h1 and h2 alive, and h3 missing."""
    path = tmp_path_factory.mktemp("store") / "kvnet.db"
    with running(f"sqlite://{path}", "--cool-down", "60s") as world:
        world.register("h1", "192.0.2.1")
        world.register("h2", "192.0.2.2")
        world.register("h3", "192.0.2.3", is_alive=False)
        yield world


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "w.sock"
