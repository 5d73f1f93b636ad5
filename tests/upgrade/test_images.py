"""A store of every schema that was ever released is loaded into every kind of store: this version reads all of it.

Nothing is missing, nothing is written anew by looking at it, and a worker builds from it what belongs on its host.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.open import open_store
from backends.store import Entry, Put, Store
from controller.ipam.dump import read as dumped
from kvnet import codec, keys, places, sentinel
from tests import stores
from tests.input.site import a_site, a_worker, until
from tests.upgrade.record import KINDS, read

if TYPE_CHECKING:
    from tests.store.real import Clusters

pytestmark = pytest.mark.anyio

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jsonl"))
# Bound to processes that are gone with their sessions, as after a power cut.
OF_SESSIONS = (keys.ALIVE, keys.LEADERS, keys.REPLICAS, keys.QUESTIONS, keys.ANSWERS)
# What an image that grows old has, and what upkeep takes away: a hold of some seconds, an address that cooled down.
PASSED = ("which was given up", "the cool-down of")


@pytest.fixture(scope=stores.loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_an_image_is_read_whole_and_written_again_without_a_loss(image: Path) -> None:
    values = read(image)
    for kind in KINDS:
        if kind != keys.REPLICAS:
            assert any(key.startswith(kind) for key in values), kind
    for key, value in values.items():
        model = places.model_of(key)
        if model is None:
            continue
        found = sentinel.decode(value) if key.startswith(keys.META) else codec.decode(model, value)
        places.require_place(key, found)
        plain = json.loads(codec.unstamped(value))
        again = json.loads(codec.encode(found))
        assert {name: again.get(name) for name in plain} == plain, key


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
async def test_a_cluster_of_that_schema_goes_on(
    image: Path, store_name: str, tmp_path: Path, clusters: Clusters
) -> None:
    values = {key: value for key, value in read(image).items() if not key.startswith((*OF_SESSIONS, *keys.SECRET))}
    values.pop(keys.AUTHENTICATION, None)  # the tests' clients have no tokens
    url = await stores.fresh_url(store_name, tmp_path, clusters)
    store = await open_store(url)
    for key in sorted(values):
        await store.commit([], [Put(key, values[key])])
    if store_name != "memory":
        await store.close()

    async def opener(url: str) -> Store:
        return store if store_name == "memory" else await open_store(url)

    async with a_site(url, tmp_path, cool_down_s=600.0, upkeep=False, opener=opener) as site:
        names = {n["name"] for n in (await site.api.get("/v1/networks")).json()["items"]}
        assert names == {"web", "both", "far", "plain"}
        found = await site.values()
        assert {key: found.get(key) for key in values} == values
        findings = (await site.api.get("/v1/ipam/check")).json()["findings"]
        assert [one for one in findings if not any(words in one["detail"] for words in PASSED)] == []
        network = (await site.api.get("/v1/networks/web")).json()["id"]
        async with a_worker(site, "a", tmp_path) as member:
            await until(lambda: member.worker.reconciler.is_up_to(network, 1), what="its networks are built")
            assert not member.conditions(network)
        made = await site.api.post("/v1/networks/web/endpoints", {"host": "h1", "name": "new"})
        assert made.status_code == 201, made.text


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_nothing_in_an_image_is_foreign_or_unreadable(image: Path) -> None:
    entries = [Entry(key, value, 1) for key, value in read(image).items()]
    assert dumped(entries).unreadable == {}
