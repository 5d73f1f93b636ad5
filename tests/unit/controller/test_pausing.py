"""A pause of a host's repairs: told to its worker, and noted with who did it."""

from __future__ import annotations

import io

import pytest

from backends.memory import MemoryStore
from controller.cluster import Cluster
from controller.history import Subject, changes
from kvnet.errors import HostSilent
from tests.unit.controller.kit import ME, add_host
from tests.unit.controller.test_questions import answering
from worker.log import Log
from worker.pausing import Pause
from worker.ports import Time

pytestmark = pytest.mark.anyio


async def noted(cluster: Cluster, store: MemoryStore) -> list[tuple[str, str, str]]:
    await cluster._state.reached(store.state.revision, *cluster._state.tables)
    found = await changes(cluster.events, Subject(host="h1"), 10)
    return [(event.kind, event.actor, event.request_id) for event in found if event.kind != "host.status"]


async def test_the_journal_says_who_paused_a_host_and_who_resumed_it(cluster: Cluster, store: MemoryStore) -> None:
    pause = Pause("h1", Time(), Log(io.StringIO()))
    before = cluster.hosts.get("h1")
    async with answering(store, "h1", pause.kinds):
        assert (await cluster.pausing.pause("h1", 60, ME))["paused"]
        [condition] = pause.conditions
        assert f"by {ME.actor} (request {ME.request_id})" in condition.detail
        assert await cluster.pausing.resume("h1", ME) == {"host": "h1", "paused": False, "seconds": 0.0}
        await cluster.pausing.resume("h1", ME)

    assert await noted(cluster, store) == [
        ("host.resumed", ME.actor, ME.request_id),
        ("host.paused", ME.actor, ME.request_id),
    ]
    assert cluster.hosts.get("h1").version == before.version


async def test_what_a_host_was_not_told_is_not_noted(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h1", alive=False)
    await cluster._state.reached(store.state.revision, *cluster._state.tables)
    with pytest.raises(HostSilent):
        await cluster.pausing.pause("h1", 60, ME)

    assert await noted(cluster, store) == []
