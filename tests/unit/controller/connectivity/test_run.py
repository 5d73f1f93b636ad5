"""How a test goes when hosts are busy, fall silent or take long: the real test, and hosts with made-up answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.memory import MemoryStore
from controller.cluster import Cluster
from controller.connectivity.run import Wish
from kvnet.errors import KvnetError, ProbeBusy
from tests.unit.controller.kit import ME, add_host, endpoint, network
from worker.answering import Answerer
from worker.log import Log
from worker.ports import Time

pytestmark = pytest.mark.anyio


class Host:
    """Answers each step of a test as it is told to; `asked`: the steps."""

    def __init__(self, attached: tuple[str, ...] = (), *, refuses: str = "", error: KvnetError | None = None) -> None:
        self.attached = attached
        self.refuses = refuses
        self.error = error or KvnetError("out of order")
        self.asked: list[str] = []

    async def probe(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        step = str(parameters["step"])
        self.asked.append(step)
        if step == self.refuses:
            raise self.error
        return {"attached": list(self.attached), "vnis": [], "targets": [], "pairs": []}


@asynccontextmanager
async def answering(cluster: Cluster, store: MemoryStore, hosts: Mapping[str, Host]) -> AsyncIterator[None]:
    for name in hosts.keys() - {"h1"}:
        await add_host(store, name)
    await cluster._state.reached(store.state.revision, *cluster._state.tables)
    running = [
        asyncio.create_task(
            Answerer(store, name, {"probe": host.probe}, time=Time(), log=Log(io.StringIO())).run(), name=name
        )
        for name, host in hosts.items()
    ]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_who_tests_while_the_hosts_are_in_another_test_is_told_so(cluster: Cluster, store: MemoryStore) -> None:
    async with answering(cluster, store, {"h1": Host(refuses="listen", error=ProbeBusy("another test", fix="later"))}):
        with pytest.raises(ProbeBusy, match="another test"):
            await cluster.connectivity.test(Wish(), ME)


async def test_a_host_that_stopped_answering_is_not_asked_to_send_again(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.connectivity.run.PAIRS_AT_ONCE", 1)
    host = await with_endpoints(cluster, 3, refuses="send")
    async with answering(cluster, store, {"h1": host}):
        report = await cluster.connectivity.test(Wish(all_endpoints=True), ME)

    assert host.asked == ["listen", "send", "collect"]
    assert not report["ok"]


async def test_what_there_was_no_time_for_is_counted_and_the_rest_is_told(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.connectivity.run.SENDING_S", -1.0)
    async with answering(cluster, store, {"h1": await with_endpoints(cluster, 3)}):
        report = await cluster.connectivity.test(Wish(all_endpoints=True), ME)

    assert report["hosts"][0]["answers"]
    assert report["not_tried"] == [{"what": "pairs that there was no time for", "count": 12}]  # by two families


async def with_endpoints(cluster: Cluster, count: int, **how: Any) -> Host:
    """h1, with so many endpoints that have an interface."""
    made = (await cluster.networks.create(network(), ME)).value
    found = [await cluster.endpoints.create(made.id, endpoint(f"c{n}"), ME) for n in range(count)]
    return Host(tuple(one.value.id for one in found), **how)
