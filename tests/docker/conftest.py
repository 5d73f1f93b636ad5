"""A world of its own for the tests with real Docker daemons, and the programs that they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.docker_hosts import Programs
from tests.docker import programs
from tests.lab import world

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(autouse=True, scope="session")
def own_world(request: pytest.FixtureRequest) -> None:
    world.require(request.config)


@pytest.fixture(scope="session")
def docker_programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return programs.docker(tmp_path_factory.mktemp("programs"))
