"""Events: in order, resumable, bounded; and what the journal keeps of them."""

from __future__ import annotations

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller import journal
from controller.cluster import Cluster
from controller.fanout import Fanout, Filter, Listener
from controller.requests import Caller
from controller.views import Event
from kvnet import codec, keys
from kvnet.errors import Gone
from kvnet.model import Alive, Versioned
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network, opened
from tests.unit.controller.listening import PIECE, Stream

pytestmark = pytest.mark.anyio


async def test_a_subscriber_is_told_who_did_what_when_and_what_it_was_before(cluster: Cluster, time: FakeTime) -> None:
    stream = Stream(cluster)
    made = await cluster.networks.create(network(), Caller("alice", "r-7", "203.0.113.9"))
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)

    first, second, third = await stream.taken(3)

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
    whole = await Stream(cluster, start).taken(6)

    rest = await Stream(cluster, whole[2].revision).taken(3)

    assert rest == whole[3:]
    assert all(event.resumable for event in whole)


async def test_events_of_one_commit_share_a_revision_and_only_the_last_is_resumable(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    stream = Stream(cluster)
    await cluster.endpoints.create_many("my-net", [endpoint(f"c{i}") for i in range(9)], ME)

    events = await stream.taken(9)

    by_revision: dict[int, list[bool]] = {}
    for event in events:
        by_revision.setdefault(event.revision, []).append(event.resumable)
    assert list(by_revision) == sorted(by_revision)
    assert all(flags == [False] * (len(flags) - 1) + [True] for flags in by_revision.values())


async def test_what_happens_while_a_subscriber_catches_up_is_told_once(cluster: Cluster) -> None:
    start = cluster.events.revision
    await cluster.networks.create(network("before"), ME)
    stream = Stream(cluster, start)
    await cluster.networks.create(network("after"), ME)

    assert [e.after["name"] for e in await stream.taken(2)] == ["before", "after"]


async def test_a_position_before_the_journals_floor_is_gone(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, journal_entries=2) as cluster:
        start = cluster.events.revision
        for i in range(5):
            await cluster.networks.create(network(f"n{i}"), ME)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("n4").version)
        await cluster.upkeep.sweep()
        await eventually(lambda: cluster.events._floor > start)

        with pytest.raises(Gone):
            Stream(cluster, start)
    async with opened(store, time, seed=2) as fresh:
        with pytest.raises(Gone):
            Stream(fresh, start)
        assert len(await Stream(fresh, fresh.events._floor).taken(2)) == 2


async def test_who_does_not_read_is_cut_costs_no_memory_and_knows_where_to_go_on(
    store: MemoryStore, time: FakeTime
) -> None:
    async with opened(store, time, event_queue=3) as cluster:
        stream = Stream(cluster)
        await cluster.networks.create(network("read"), ME)
        (read,) = await stream.taken(1)
        for i in range(6):
            await cluster.networks.create(network(f"n{i}"), ME)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("n5").version)

        with pytest.raises(Gone, match="more than 3") as cut:
            stream.take()
        assert cut.value.context["revision"] == read.revision
        assert (stream.fanout.size, cluster.events.audience, cluster.events.dropped) == (0, 0, 1)

        rest = await Stream(cluster, read.revision).taken(6)
        assert [event.after["name"] for event in rest] == [f"n{i}" for i in range(6)]


async def test_the_tape_is_bounded_in_bytes_too(cluster: Cluster) -> None:
    fanout = Fanout(cluster.events, lambda event: b"x", 1000, most_bytes=5_000)
    fanout.listener()
    for i in range(20):
        await cluster.networks.create(network(f"n{i}", labels={"long": "x" * 500}), ME)

    await eventually(lambda: cluster.events.dropped == 1)
    assert fanout.size <= 5_000


async def test_every_event_is_encoded_once_for_all_who_listen(cluster: Cluster) -> None:
    first = Stream(cluster)
    others = [fanout_stream(first) for _ in range(5)]
    made = await cluster.networks.create(network(), ME)
    await eventually(lambda: cluster.events.revision >= made.version)

    told = [first.take(), *(first_events(first, one) for one in others)]
    assert {event.after["name"] for events in told for event in events} == {"my-net"}
    assert len(first.encoded) == 1


def fanout_stream(stream: Stream) -> Listener:
    return stream.fanout.listener()


def first_events(stream: Stream, listener: Listener) -> list[Event]:
    return [stream.encoded[int(number)] for number in listener.take(PIECE).split()]


async def test_a_piece_ends_where_it_is_large_enough_also_within_a_commit(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    live, start = Stream(cluster), cluster.events.revision
    made = await cluster.endpoints.create_many("my-net", [endpoint(f"c{i}") for i in range(50)], ME)
    last = max(one.version for one in made if isinstance(one, Versioned))
    await eventually(lambda: cluster.events.revision >= last)

    for stream in (live, Stream(cluster, start)):
        pieces = [await stream.taken(1, limit=1) for _ in range(50)]
        assert [[e.after["name"] for e in piece] for piece in pieces] == [[f"c{i}"] for i in range(50)]
        assert stream.listener.told == last


async def test_a_position_that_this_replica_has_not_reached_is_not_told_again(cluster: Cluster) -> None:
    made = await cluster.networks.create(network("first"), ME)
    stream = Stream(cluster, made.version + 1)
    await cluster.networks.create(network("second"), ME)
    await cluster.networks.create(network("third"), ME)

    assert [event.after["name"] for event in await stream.taken(1)][-1] == "third"


async def test_a_filter_leaves_out_the_rest_and_the_position_goes_on(cluster: Cluster) -> None:
    mine = await cluster.networks.create(network("mine"), ME)
    stream = Stream(cluster, wanted=Filter(("network",), mine.value.id))
    other = await cluster.networks.create(network("other"), ME)
    await cluster.endpoints.create("mine", endpoint(), ME)
    await eventually(lambda: cluster.events.revision > other.version)

    assert stream.take() == []
    assert stream.listener.told == cluster.events.revision


async def test_hosts_come_and_go_in_the_stream(cluster: Cluster, store: MemoryStore) -> None:
    stream = Stream(cluster)
    await add_host(store, "h2")
    await store.commit([], [Put(keys.alive("h2"), codec.encode(Alive("h2", "second", 1.0)))])
    await store.commit([], [Delete(keys.alive("h2"))])

    events = await stream.taken(2)

    assert events[-1].kind in ("host.up", "host.down")
    assert {e.key for e in events} == {keys.alive("h2")}
    assert not any(e.resumable for e in events)


async def test_a_closing_controller_ends_its_streams(store: MemoryStore) -> None:
    async with opened(store) as cluster:
        stream = Stream(cluster)

    with pytest.raises(Gone, match="stops"):
        stream.take()


async def test_the_journal_is_plain_json_whatever_the_callers_are_called(cluster: Cluster, store: MemoryStore) -> None:
    odd = Caller('a "quoted"\n\\name', "é", "\x00")
    await cluster.networks.create(network(labels={"k": 'v"'}), odd)

    values = [e.value for e in (await store.list(keys.JOURNAL)).entries]
    (entry,) = [one for value in values for one in journal.entries(value) if one.actor == odd.actor]
    assert (entry.request_id, entry.source) == (odd.request_id, odd.source)
    assert entry.changes[0].after["labels"] == {"k": 'v"'}
