"""A gateway shows a host the networks that it takes part in; who has left one learns it by a refusal, at the latest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends.store import Batch, Refused, Snapshot
from datapath.objects import DeleteLink
from kvnet import keys
from tests.unit.worker.kit import MortalStore, World, until
from tests.unit.worker.life import NET

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"
OF_NETWORK = (keys.endpoints(NET), keys.network(NET))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Prefixes that are refused from the moment on at which something changes there; what changed is not told."""
    doomed: set[str] = set()
    prompt_watch, prompt_list = MortalStore.watch, MortalStore.list

    async def watch(store: MortalStore, watched: str, after: int) -> AsyncIterator[Batch]:
        async for batch in prompt_watch(store, watched, after):
            if watched in doomed and (batch.changes or after):
                raise Refused(f"{watched} is not for h1")
            yield batch

    async def listed(store: MortalStore, prefix: str) -> Snapshot:
        if prefix in doomed:
            raise Refused(f"{prefix} is not for h1")
        return await prompt_list(store, prefix)

    monkeypatch.setattr(MortalStore, "watch", watch)
    monkeypatch.setattr(MortalStore, "list", listed)
    return doomed


async def test_a_network_that_is_refused_and_has_nothing_here_is_gone_from_the_kernel(
    world: World, refused: set[str]
) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    made = await h1.attach("c1")
    refused.update(OF_NETWORK)

    await h1.detach(id=made["endpoint"]["id"])

    def is_empty() -> bool:
        return not h1.worker.view.network_ids and not [name for name in h1.host.tables.links if name.startswith("kv")]

    await until(is_empty, seconds=10)


async def test_a_network_that_is_refused_while_this_host_has_endpoints_there_stays_as_it_is(
    world: World, refused: set[str]
) -> None:
    """A credential that lost too much must not cost the workloads their network."""
    h1 = await world.start()
    for name in ("c1", "c2"):
        h1.host.add_namespace(f"/run/netns/{name}")
    await h1.attach("c1")
    await h1.attach("c2")
    before = dict(h1.host.tables.links)
    refused.update(OF_NETWORK)
    await world.create_endpoint("elsewhere", "h2")
    await asyncio.sleep(5)  # virtual: many attempts

    assert h1.worker.view.network_ids
    assert h1.host.tables.links == before
    assert not [op for op in h1.kernel.applied if isinstance(op, DeleteLink)]
