"""A world of its own for the tests with real Docker daemons, and the programs that they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.docker_hosts import Programs
from tests.docker import programs
from tests.docker.site import Site, open_site
from tests.lab import world

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(autouse=True, scope="session")
def own_world(request: pytest.FixtureRequest) -> None:
    world.require(request.config)
    if not programs.is_real_root():
        pytest.skip("Docker's containers take the machine's root, for cgroups: sudo make test ARGS=tests/docker")


@pytest.fixture(scope="session")
def docker_programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return programs.docker(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module: its hosts live as long."""
    return "asyncio"


@pytest.fixture(scope="module")
async def module_site(
    docker_programs: Programs, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    """`SITE` in the module: options of `open_site`."""
    options = getattr(request.module, "SITE", {})
    async with open_site(tmp_path_factory.mktemp("site"), docker_programs, **options) as made:
        yield made


@pytest.fixture
async def site(module_site: Site) -> AsyncIterator[Site]:
    """Clean before and after."""
    yield module_site
    await module_site.restore()
    await module_site.clean()
