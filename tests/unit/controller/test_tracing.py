"""Whom a trace is about, whom it asks, and what it makes of hosts that do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.memory import MemoryStore
from backends.store import Delete
from controller.cluster import Cluster
from controller.tracing import Wish
from datapath.trace.seen import Question, Sight, from_plain, to_plain
from kvnet import keys
from kvnet.errors import AmbiguousName, Invalid, NotFound
from tests.unit.controller.kit import ME, add_host, endpoint, network, opened
from tests.unit.controller.test_questions import answering

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def populated() -> AsyncIterator[tuple[Cluster, MemoryStore]]:
    """web on h1 and db on h2, on app; another db on h1, on other; h2 is down."""
    store = MemoryStore()
    async with opened(store) as cluster:
        await add_host(store, "h1", underlay="192.0.2.1")
        await add_host(store, "h2", underlay="192.0.2.2", alive=False)
        await cluster.networks.create(network("app", "10.1.0.0/24", "fd00:1::/64"), ME)
        await cluster.networks.create(network("other", "10.2.0.0/24"), ME)
        for name, place, host in (("web", "app", "h1"), ("db", "app", "h2"), ("db", "other", "h1")):
            await cluster.endpoints.create(place, endpoint(name, host), ME)
        yield cluster, store


async def traced(cluster: Cluster, source: str, target: str, **more: Any) -> dict[str, Any]:
    return await cluster.tracing.trace(Wish(source, target, **more), ME)


async def test_an_endpoint_is_found_by_whatever_it_is_called() -> None:
    async with populated() as (cluster, _):
        found = cluster.endpoints.get("app", "db").value
        for name in (found.id, "app/db", f"app/{found.id}", f"app/{found.address}", str(found.address)):
            assert (await traced(cluster, "web", name, asks=False))["to"]["endpoint"] == found.id
        by_address = await traced(cluster, "web", str(found.address6), asks=False)
        assert by_address["family"] == 6


async def test_who_cannot_be_meant_is_told_with_what_is_there_instead() -> None:
    async with populated() as (cluster, _):
        with pytest.raises(AmbiguousName, match=r"app/db .* other/db"):
            await traced(cluster, "web", "db")
        with pytest.raises(NotFound, match="did you mean web"):
            await traced(cluster, "app/wbe", "app/db")
        with pytest.raises(NotFound, match="no network 'nowhere'"):
            await traced(cluster, "nowhere/web", "app/db")
        with pytest.raises(NotFound, match="nobody has that address in app"):
            await traced(cluster, "10.1.0.200", "app/db")
        with pytest.raises(NotFound, match="it is in no network"):
            await traced(cluster, "192.0.2.77", "app/db")
        address = cluster.endpoints.get("other", "db").value.address
        await cluster.endpoints.delete("other", "db", ME)
        with pytest.raises(NotFound, match="cools down until"):
            await traced(cluster, str(address), "app/db")


async def test_families_that_do_not_fit_are_refused() -> None:
    async with populated() as (cluster, _):
        with pytest.raises(Invalid, match="has no IPv6 address"):
            await traced(cluster, "other/db", "web", family=6)
        web, db = (cluster.endpoints.get("app", name).value for name in ("web", "db"))
        with pytest.raises(Invalid, match="different families"):
            await traced(cluster, str(web.address), str(db.address6))


async def test_a_host_that_is_down_is_the_finding_and_what_should_be_there_is_told() -> None:
    async with populated() as (cluster, store):

        async def look(parameters: Mapping[str, Any]) -> dict[str, Any]:
            from_plain(Question, parameters["question"])
            return to_plain(Sight("h1"))

        async with answering(store, "h1", {"look": look}):
            found = await traced(cluster, "app/web", "app/db")

    hosts = {one["host"]: one for one in found["hosts"]}
    assert hosts["h1"]["answered"]
    assert not hosts["h2"]["alive"]
    dead = next(hop for hop in found["hops"] if hop["host"] == "h2" and hop["kind"] == "worker")
    assert [difference["code"] for difference in dead["differences"]] == ["worker-dead"]
    there = [hop for hop in found["hops"] if hop["host"] == "h2" and hop["verdict"] == "unknown"]
    assert there
    assert all(hop["desired"] for hop in there)


async def test_an_answer_that_is_none_counts_as_no_answer() -> None:
    async with populated() as (cluster, store):

        async def babble(_: Mapping[str, Any]) -> dict[str, Any]:
            return {"host": 7, "links": "many"}

        async with answering(store, "h1", {"look": babble}):
            found = await traced(cluster, "other/db", "other/db")

    assert found["finding"]["code"] == "worker-silent"
    assert "another version" in found["finding"]["reason"]


async def test_a_host_may_be_looked_at_by_somebody_else_with_the_same_question() -> None:
    async with populated() as (cluster, _):
        asked = (await traced(cluster, "app/web", "app/db", asks=False))["questions"]
        assert set(asked) == {"h1", "h2"}
        seen = {"h1": to_plain(Sight("", mode="live")), "h2": to_plain(Sight(""))}

        found = await traced(cluster, "app/web", "app/db", seen=seen)

        assert all(host["looked_at"] and not host["answered"] for host in found["hosts"])
        with pytest.raises(Invalid, match="SeenLink"):
            await traced(cluster, "app/web", "app/db", seen={"h1": {"host": "h1", "links": [7]}})


async def test_endpoints_of_a_host_that_is_gone_are_told_as_that() -> None:
    async with populated() as (cluster, store):
        await store.commit([], [Delete(keys.host("h2"))])
        await cluster.endpoints.create("app", endpoint("more", "h1"), ME)  # so that it is seen

        found = await traced(cluster, "app/more", "app/db", seen={"h1": to_plain(Sight("h1"))})

    codes = [d["code"] for hop in found["hops"] if hop["host"] == "h2" for d in hop["differences"]]
    assert codes == ["host-unknown"]
