"""docker-compose.yml for real: with each store it comes up, is walked through while parts of it die, and goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnet.client import Client
from kvnet.errors import Unauthenticated
from kvnet.tls import Trust
from tests.compose.cluster import CONTROLLERS, HOSTS, ONE_FILE, STORES, open_cluster, project
from tests.compose.engine import CommandFailed, Engine
from tests.compose.images import IMAGE
from tests.compose.walk import Walk

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]


@pytest.mark.parametrize("store", STORES)
async def test_a_cluster_lives_through_the_death_of_its_parts_and_goes_without_a_trace(
    engine: Engine, store: str
) -> None:
    async with open_cluster(engine, store) as cluster:
        await Walk(cluster, print).everything()

    for kind in ("container", "network", "volume"):
        everything = ("--all",) if kind == "container" else ()
        mine = f"label=com.docker.compose.project={project()}"
        assert await engine.run(engine.docker, kind, "ls", *everything, "--quiet", "--filter", mine) == ""


@pytest.mark.parametrize("store", [*STORES, ONE_FILE])
async def test_a_secured_cluster_is_walked_through_and_hears_nobody_without_credentials(
    engine: Engine, tmp_path: Path, store: str
) -> None:
    async with open_cluster(engine, store, tmp_path, is_secured=True) as cluster:
        url = CONTROLLERS["controller-1"].replace("http:", "https:")
        async with Client(url, trust=Trust(str(tmp_path / "ca.pem"))) as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.status()
        with pytest.raises(CommandFailed) as refusal:
            await cluster.exec("h1", "kvnet", "network", "ls")
        assert "no credential" in refusal.value.detail, "a host's shell is nobody; its worker is that host"
        tokens = {one["host"]: one["role"] for one in await cluster.clients["controller-2"].tokens() if one["host"]}
        assert tokens == dict.fromkeys(HOSTS, "host")
        status = await cluster.clients["controller-1"].status()
        assert status["warnings"] == []
        assert status["store"] == {"zookeeper": "zk"}.get(store, store)

        # What a death of its parts does is a matter of the store; it was tried on the others without credentials.
        walk = Walk(cluster, print)
        await (walk.everything() if store in ("etcd", ONE_FILE) else walk.the_smoke_test())


async def test_the_image_runs_a_controller_as_an_ordinary_user(engine: Engine) -> None:
    said = await engine.run(engine.docker, "run", "--rm", "--entrypoint", "id", IMAGE, "-un")
    assert said == "kvnet"


async def test_the_image_holds_no_secret_and_nothing_of_the_checkout_but_the_product(engine: Engine) -> None:
    layers = await engine.run(engine.docker, "history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    assert "ARG" not in layers
    found = await engine.run(
        engine.docker, "run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "ls /src /.git /.env 2>&1; :"
    )
    assert found.count("No such file") == 3


async def test_a_controller_without_any_store_says_which_profiles_there_are(engine: Engine) -> None:
    with pytest.raises(CommandFailed) as refusal:
        await engine.run(engine.docker, "run", "--rm", "-e", "SECONDS_TO_FIND=0", "--entrypoint", "controller", IMAGE)
    assert "COMPOSE_PROFILES" in refusal.value.detail
