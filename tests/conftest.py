"""What all tests share: asyncio runs the async ones, and the store servers that a run needs are started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import stores

if TYPE_CHECKING:
    from tests.store.real import Clusters


# An example may take as long as a busy machine makes it. Continuous integration tries the same ones each time: that it
# fails says something of the change, not of the day; whoever runs the tests by hand tries others each time.
UNHURRIED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("here", **UNHURRIED)
hypothesis.settings.register_profile("ci", **UNHURRIED, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        stores.OPTION,
        default="",
        metavar="NAMES",
        help="stores for the tests of the product: all, or some of memory, sqlite, " + ", ".join(stores.SERVERS),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, is_shared in (("store_name", False), ("shared_store_name", True)):
        if name in metafunc.fixturenames:
            params = stores.params(metafunc.config, is_shared=is_shared)
            metafunc.parametrize(name, params, scope="module")


@pytest.fixture(scope=stores.loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    from tests.store.real import Clusters

    clusters = Clusters(tmp_path_factory.mktemp("servers"))
    yield clusters
    clusters.close()
