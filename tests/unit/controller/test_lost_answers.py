"""A store's answer is lost, and then nobody answers: no refusal may say that nothing was changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Check, Entry, Revision, Snapshot, Unavailable, Unknown, Write
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import EndpointRequest
from kvnet.errors import KvnetError, OutcomeUnknown
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Fading(MemoryStore):
    """Once told to, carries one commit out, loses its answer, and then answers nothing but its watches."""

    fades = False
    is_away = False

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if self.is_away:
            raise Unavailable("nobody answers")
        revision = await super().commit(checks, writes)
        if self.fades:
            self.is_away = True
            raise Unknown("the answer was lost")
        return revision

    async def get(self, key: str) -> Entry | None:
        if self.is_away:
            raise Unavailable("nobody answers")
        return await super().get(key)

    async def list(self, prefix: str) -> Snapshot:
        if self.is_away:
            raise Unavailable("nobody answers")
        return await super().list(prefix)


@pytest.fixture
def store() -> Fading:
    return Fading(MemoryState())


@pytest.fixture
async def cluster(store: Fading) -> AsyncIterator[Cluster]:
    await add_host(store, "h1")
    async with opened(store, FakeTime()) as cluster:
        await cluster.networks.create(network("my-net", "10.1.0.0/29"), ME)
        await cluster.networks.create(network("other", "10.2.0.0/29"), ME)
        await cluster.endpoints.create("my-net", endpoint("c1", "h1"), ME)
        yield cluster
        store.is_away = store.fades = False


async def outcome_of(cluster: Cluster, change: str) -> object:
    endpoints, networks = cluster.endpoints, cluster.networks
    match change:
        case "create endpoint":
            return await endpoints.create("my-net", EndpointRequest("h1", "c2", id="c0ffee0000000001"), ME)
        case "delete endpoint":
            return await endpoints.delete("my-net", "c1", ME)
        case "change endpoint":
            return await endpoints.update("my-net", "c1", EndpointPatch({"labels": {"a": "b"}}), ME)
        case "create network":
            return await networks.create(network("third", "10.3.0.0/29"), ME)
        case "delete network":
            return await networks.delete("other", ME)
        case _:
            return await cluster.peering.peer("my-net", "other", ME)


@pytest.mark.parametrize(
    "change",
    ["create endpoint", "delete endpoint", "change endpoint", "create network", "delete network", "peer networks"],
)
async def test_what_may_be_done_is_not_called_undone(cluster: Cluster, store: Fading, change: str) -> None:
    store.fades = True
    with pytest.raises(OutcomeUnknown) as told:
        await outcome_of(cluster, change)
    assert "nothing was changed" not in f"{told.value.detail} {told.value.fix}"


async def test_of_many_endpoints_each_has_its_own_outcome(cluster: Cluster, store: Fading) -> None:
    store.fades = True
    outcomes = await cluster.endpoints.create_many(
        "my-net", [EndpointRequest("h1", "c2"), EndpointRequest("nowhere", "c3")], ME
    )
    assert [one.code for one in outcomes if isinstance(one, KvnetError)] == ["outcome-unknown", "not-found"]


async def test_a_network_is_shown_by_a_replica_that_has_not_heard_of_it(cluster: Cluster) -> None:
    """It was acknowledged by the store; the news of it may come late."""
    made = (await cluster.networks.create(network("third", "10.3.0.0/29"), ME)).value
    cluster._state.networks.items.pop(made.id, None)
    assert cluster.networks.use(made).endpoints == 0
