"""Events: in order, resumable, bounded; and what the journal keeps of them."""

from __future__ import annotations

import asyncio

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller import journal
from controller.cluster import Cluster
from controller.events import Subscription
from controller.requests import Caller
from controller.views import Bookmark, Event
from kvnet import codec, keys
from kvnet.errors import Gone
from kvnet.model import Alive
from tests.unit.controller.kit import DEADLINE_S, ME, FakeTime, add_host, endpoint, eventually, network, opened

pytestmark = pytest.mark.anyio


async def taken(stream: Subscription, count: int) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        found: list[Event] = []
        while len(found) < count:
            one = await anext(stream)
            if isinstance(one, Event):
                found.append(one)
        return found


async def test_a_subscriber_is_told_who_did_what_when_and_what_it_was_before(cluster: Cluster, time: FakeTime) -> None:
    stream = cluster.events.since()
    made = await cluster.networks.create(network(), Caller("alice", "r-7", "203.0.113.9"))
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)

    first, second, third = await taken(stream, 3)

    assert (first.kind, first.actor, first.request_id, first.source) == (
        "network.created",
        "alice",
        "r-7",
        "203.0.113.9",
    )
    assert (first.revision, first.network, first.at) == (made.version, made.value.id, time.now())
    assert first.before is None
    assert first.after["name"] == "my-net"
    assert (second.kind, second.after["name"]) == ("endpoint.created", "c1")
    assert (third.kind, third.before["name"], third.after) == ("endpoint.deleted", "c1", None)


async def test_a_subscriber_resumes_where_it_was(cluster: Cluster) -> None:
    start = cluster.events.revision
    for i in range(6):
        await cluster.networks.create(network(f"n{i}"), ME)
    whole = await taken(cluster.events.since(start), 6)

    rest = await taken(cluster.events.since(whole[2].revision), 3)

    assert rest == whole[3:]
    assert all(event.resumable for event in whole)


async def test_events_of_one_commit_share_a_revision_and_only_the_last_is_resumable(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    stream = cluster.events.since()
    await cluster.endpoints.create_many("my-net", [endpoint(f"c{i}") for i in range(9)], ME)

    events = await taken(stream, 9)

    by_revision: dict[int, list[bool]] = {}
    for event in events:
        by_revision.setdefault(event.revision, []).append(event.resumable)
    assert list(by_revision) == sorted(by_revision)
    assert all(flags == [False] * (len(flags) - 1) + [True] for flags in by_revision.values())


async def test_what_happens_while_a_subscriber_catches_up_is_told_once(cluster: Cluster) -> None:
    start = cluster.events.revision
    await cluster.networks.create(network("before"), ME)
    stream = cluster.events.since(start)
    await cluster.networks.create(network("after"), ME)

    assert [e.after["name"] for e in await taken(stream, 2)] == ["before", "after"]


async def test_a_quiet_stream_gets_bookmarks(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, bookmark_interval_s=0.01) as cluster:
        assert await anext(cluster.events.since()) == Bookmark(cluster.events.revision)


async def test_a_position_before_the_journals_floor_is_gone(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, journal_entries=2) as cluster:
        start = cluster.events.revision
        for i in range(5):
            await cluster.networks.create(network(f"n{i}"), ME)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("n4").version)
        await cluster.upkeep.sweep()
        await eventually(lambda: cluster.events._floor > start)

        with pytest.raises(Gone):
            cluster.events.since(start)
    async with opened(store, time, seed=2) as fresh:
        with pytest.raises(Gone):
            fresh.events.since(start)
        assert len(await taken(fresh.events.since(fresh.events._floor), 2)) == 2


async def test_a_subscriber_that_does_not_read_is_cut_and_costs_no_memory(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, event_queue=3) as cluster:
        stream = cluster.events.since()
        for i in range(6):
            await cluster.networks.create(network(f"n{i}"), ME)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("n5").version)

        with pytest.raises(Gone, match="more than 3"):
            await taken(stream, 6)
        assert len(cluster.events._subscribers) == 0


async def test_hosts_come_and_go_in_the_stream(cluster: Cluster, store: MemoryStore) -> None:
    stream = cluster.events.since()
    await add_host(store, "h2")
    await store.commit([], [Put(keys.alive("h2"), codec.encode(Alive("h2", "second", 1.0)))])
    await store.commit([], [Delete(keys.alive("h2"))])

    events = await taken(stream, 2)

    assert events[-1].kind in ("host.up", "host.down")
    assert {e.key for e in events} == {keys.alive("h2")}
    assert not any(e.resumable for e in events)


async def test_a_closing_controller_ends_its_streams(store: MemoryStore) -> None:
    async with opened(store) as cluster:
        stream = cluster.events.since()

    with pytest.raises(Gone, match="stops"):
        await anext(stream)


async def test_the_journal_is_plain_json_whatever_the_callers_are_called(cluster: Cluster, store: MemoryStore) -> None:
    odd = Caller('a "quoted"\n\\name', "é", "\x00")
    await cluster.networks.create(network(labels={"k": 'v"'}), odd)

    values = [e.value for e in (await store.list(keys.JOURNAL)).entries]
    (entry,) = [one for value in values for one in journal.entries(value) if one.actor == odd.actor]
    assert (entry.request_id, entry.source) == (odd.request_id, odd.source)
    assert entry.changes[0].after["labels"] == {"k": 'v"'}
