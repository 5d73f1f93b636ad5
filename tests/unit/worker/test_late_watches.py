"""One commit is told by several watches, and any of them may be the last: an attach is whole all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends.store import Batch
from datapath.objects import DeleteLink
from kvnet import keys
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import MortalStore, World, until
from tests.unit.worker.life import NET

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"
PREFIXES = {"local": "local/", "endpoints": keys.endpoints(NET), "hosts": keys.HOSTS, "network": keys.network(NET)}
LATE_S = 0.2


@pytest.fixture(params=PREFIXES)
def late(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This watch tells everything a moment after the others."""
    prefix = PREFIXES[request.param]
    prompt = MortalStore.watch

    async def watch(store: MortalStore, watched: str, after: int) -> AsyncIterator[Batch]:
        async for batch in prompt(store, watched, after):
            if watched.startswith(prefix):
                await asyncio.sleep(LATE_S)
            yield batch

    monkeypatch.setattr(MortalStore, "watch", watch)
    return prefix


@pytest.mark.parametrize("is_first", [True, False], ids=["first-of-its-network", "one-more"])
async def test_when_attach_returns_its_port_works(world: World, late: str, is_first: bool) -> None:
    h1 = await world.start()
    for name in ("c0", "c1"):
        h1.host.add_namespace(f"/run/netns/{name}")
    if not is_first:
        await h1.attach("c0", name="c0")
        await asyncio.sleep(1)

    await h1.attach("c1", ports=[{"port": 80, "host_port": 8080}])

    published = h1.host.tables.firewall.publications if h1.host.tables.firewall else frozenset()
    assert {p.port for p in published} == {8080}
    await asyncio.sleep(1)
    assert not [op for op in h1.kernel.applied if isinstance(op, DeleteLink)], "what was built stays"


async def test_the_last_detach_leaves_nothing(world: World, late: str) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    made = await h1.attach("c1", ports=[{"port": 80, "host_port": 8080}])

    await h1.detach(id=made["endpoint"]["id"])

    def is_empty() -> bool:
        return not h1.worker.view.network_ids and not [name for name in h1.host.tables.links if name.startswith("kv")]

    await until(is_empty, seconds=5)
    assert h1.host.tables.firewall is None or not h1.host.tables.firewall.publications


@pytest.mark.parametrize("is_first", [True, False], ids=["first-of-its-network", "one-more"])
@pytest.mark.parametrize("later_s", [0.0, 0.1, 0.25, 2.0])
async def test_an_endpoint_that_was_made_over_the_api_is_attached_by_its_id(
    world: World, late: str, is_first: bool, later_s: float
) -> None:
    h1 = await world.start()
    for name in ("c0", "c1"):
        h1.host.add_namespace(f"/run/netns/{name}")
    if not is_first:
        await h1.attach("c0", name="c0")
        await asyncio.sleep(1)

    made = await world.create_endpoint("c1", "h1", overlay())
    await asyncio.sleep(later_s)
    answer = await h1.attach("c1", id=made.id)

    assert answer["endpoint"]["id"] == made.id
    assert answer["interface"] in h1.host.tables.namespaces[C1]
