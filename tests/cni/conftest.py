"""A world of its own for the tests of container runtimes' programs, and those programs as an installation has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import Lab
from tests.cni.calling import Programs, make_programs
from tests.lab import world
from tests.lab.worker.bench import workers

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(autouse=True, scope="session")
def own_world(request: pytest.FixtureRequest) -> None:
    """Namespaces' names are on a mount of their own that is shared, as Podman would make it when it starts: done in
    the middle of a test, every namespace that is there already could not be removed any more.
    """
    world.require(request.config)
    namespaces.share()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return make_programs(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module: its hosts live as long."""
    return "asyncio"


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Two hosts, the world outside, and a network with both families: `pods`, 10.90.0.0/24."""
    async with workers(tmp_path_factory.mktemp("lab"), outside=True) as made:
        subnets = [{"cidr": "10.90.0.0/24"}, {"cidr": "fd90::/64"}]
        await made.client.create_network({"name": "pods", "driver": "overlay", "subnets": subnets})
        yield made
