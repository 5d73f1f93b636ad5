"""The conformance suite's fixtures: every test that asks for `harness` or `store` runs against every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backends.store import Store
from tests.store.harness import HARNESSES, Harness
from tests.store.real import SERVERS, Clusters

HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@pytest.mark.needs("restart")` leaves out the stores of which that cannot be asked (`Harness.can_restart`)."""
    if "harness" in metafunc.fixturenames:
        needed = [f"can_{need}" for need in _needs(metafunc.definition)]
        kinds = {**HARNESSES, **SERVERS}
        fit = [name for name, kind in sorted(kinds.items()) if all(getattr(kind, need) for need in needed)]
        metafunc.parametrize("harness", [_param(name) for name in fit], indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What does not run on the harnesses may share a server within its module: so a module runs in one process."""
    for item in items:
        if HERE in item.path.parents and "harness" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _param(name: str) -> object:
    """Tests of one cluster of servers run in one process, where tests run in several (`--dist loadgroup`)."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name)) if name in SERVERS else name


def _needs(item: pytest.Item) -> frozenset[str]:
    return frozenset(need for mark in item.iter_markers("needs") for need in mark.args)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_loop(anyio_backend: str) -> None:
    """All tests run on one event loop: gRPC's asyncio knows only one in a process, as in the product."""
    return


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    clusters = Clusters(tmp_path_factory.mktemp("servers"))
    yield clusters
    clusters.close()


@pytest.fixture
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, clusters: Clusters, anyio_backend: str
) -> AsyncIterator[Harness]:
    name = request.param
    servers = SERVERS.get(name)
    harness = HARNESSES[name](tmp_path) if servers is None else servers(tmp_path, clusters, _needs(request.node))
    await harness.start()
    yield harness
    await harness.stop()


@pytest.fixture
async def store(harness: Harness) -> Store:
    return await harness.open()
