"""Upkeep in virtual time: what it removes, when it keeps its hands off, and who does it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Check, Delete, Entry, Put, Revision, Unknown, Write
from controller import journal
from controller.cluster import Cluster
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.marks import Cluster as Identity
from kvnet.model import Alive, NetworkState, Reclaim
from tests.unit.controller.kit import ME, FailingStore, FakeTime, add_host, endpoint, eventually, network, opened

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


async def in_step(cluster: Cluster, store: MemoryStore) -> None:
    await cluster._state.reached(store.state.revision, *cluster._state.tables)


async def test_a_tombstone_goes_when_its_cool_down_is_over(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)

    time.pass_by(59.0)
    assert (await cluster.upkeep.sweep()).done["tombstones"] == 0
    time.pass_by(2.0)
    assert (await cluster.upkeep.sweep()).done["tombstones"] == 1

    assert (await store.list(keys.addresses(made.value.id))).entries == ()


async def test_a_deletion_that_was_cut_short_is_finished_on_the_second_look(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await cluster.networks.create(network(), ME)
    await cluster.networks._removal._put(made, NetworkState.DELETING, "network.deleting", ME)
    await in_step(cluster, store)

    assert (await cluster.upkeep.sweep()).done["networks"] == 0
    time.pass_by(31.0)
    assert (await cluster.upkeep.sweep()).done["networks"] == 1

    assert await store.get(keys.network(made.value.id)) is None
    assert await store.get(keys.name("my-net")) is None


async def test_a_leaked_address_is_released_only_when_it_was_seen_twice(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    leaked = keys.address(made.value.id, ip_address("10.1.0.77"))
    claim = AddressClaim(ClaimKind.ENDPOINT, "nobody", time.now(), None, "h1")
    await store.commit([], [Put(leaked, codec.encode(claim)), Put(keys.local("h1", "nobody"), made.value.id.encode())])

    await cluster.upkeep.sweep()
    assert await store.get(leaked) is not None
    time.pass_by(31.0)
    assert (await cluster.upkeep.sweep()).done["leaks"] >= 1
    for _ in range(3):
        time.pass_by(62.0)
        await in_step(cluster, store)
        await cluster.upkeep.sweep()

    assert await store.get(leaked) is None
    assert await store.get(keys.local("h1", "nobody")) is None
    evidence = [
        e
        for entry in store.state.entries.values()
        if entry.key.startswith(keys.JOURNAL)
        for e in journal.entries(entry.value)
        if e.actor == "upkeep"
    ]
    assert any("unchanged since" in e.source for e in evidence)


async def test_a_dead_host_keeps_its_endpoints_until_the_operators_limit(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await store.commit([], [Delete(keys.alive("h1"))])
    await in_step(cluster, store)

    await cluster.upkeep.sweep()
    time.pass_by(DAY_S - 1)
    assert (await cluster.upkeep.sweep()).done["endpoints"] == 0
    time.pass_by(2.0)
    assert (await cluster.upkeep.sweep()).done["endpoints"] == 1

    await in_step(cluster, store)
    assert cluster.endpoints.list() == ()
    assert cluster.hosts.get("h1").last_seen is not None


async def test_a_host_that_returns_in_between_starts_its_absence_anew(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    for _ in range(3):
        await store.commit([], [Delete(keys.alive("h1"))])
        await in_step(cluster, store)
        await cluster.upkeep.sweep()
        time.pass_by(DAY_S - 10)
        await cluster.upkeep.sweep()
        await add_host(store, "h1")
        await in_step(cluster, store)
        assert (await cluster.upkeep.sweep()).done["endpoints"] == 0

    assert len(cluster.endpoints.list()) == 1


@pytest.mark.parametrize("other", [None, Identity("another", 0.0)], ids=["absent", "another"])
async def test_nothing_is_swept_without_the_clusters_own_identity(
    cluster: Cluster, store: MemoryStore, time: FakeTime, other: Identity | None
) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)
    await store.commit([], [Delete(keys.CLUSTER) if other is None else Put(keys.CLUSTER, codec.encode(other))])
    await in_step(cluster, store)
    before = store.state.revision

    time.pass_by(2 * DAY_S)
    assert (await cluster.upkeep.sweep()).refused == cluster.standing.trouble.detail  # type: ignore[union-attr]
    assert store.state.revision == before


async def test_the_journal_is_bounded_and_says_up_to_where_it_was_trimmed(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time, journal_entries=5) as cluster:
        for i in range(12):
            time.pass_by(1.0)
            await cluster.networks.create(network(f"n{i}"), ME)
        await in_step(cluster, store)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("n11").version)

        await cluster.upkeep.sweep()

        kept = [e for e in (await store.list(keys.JOURNAL)).entries if e.key != keys.JOURNAL_FLOOR]
        floor = await store.get(keys.JOURNAL_FLOOR)
        assert sum(journal.count(e.value) for e in kept) == 5
        assert floor is not None
        assert journal.floor(floor.value) < min(e.version for e in kept)


async def test_old_entries_leave_the_journal_however_few_there_are(store: MemoryStore, time: FakeTime) -> None:
    async with opened(store, time) as cluster:
        await cluster.networks.create(network(), ME)
        await eventually(lambda: cluster.events.revision >= cluster.networks.get("my-net").version)
        time.pass_by(8 * DAY_S)

        await cluster.upkeep.sweep()

        assert [e.key for e in (await store.list(keys.JOURNAL)).entries] == [keys.JOURNAL_FLOOR]


async def test_one_of_two_replicas_leads_and_the_other_takes_over(time: FakeTime) -> None:
    state = MemoryState()
    second_may_go = asyncio.Event()
    async with MemoryStore(state) as one, MemoryStore(state) as two, opened(one, time, upkeep=True) as first:
        await eventually(lambda: first.status().is_leader)

        async def live() -> None:
            async with opened(two, time, seed=2, upkeep=True, replica="two") as second:
                await eventually(lambda: second.status().leader == "controller")
                assert not second.status().is_leader
                await eventually(lambda: second.status().is_leader or end_sessions(state, one))
                await eventually(lambda: first.status().leader == "two")
                assert not first.status().is_leader
                await second_may_go.wait()

        living = asyncio.create_task(live())
        second_may_go.set()
        await living
        await eventually(lambda: first.status().is_leader)


def end_sessions(state: MemoryState, store: MemoryStore) -> bool:
    """The store declares the leader's session over, and the leader learns of it. False, so that it can be repeated."""
    for session in list(store._sessions):
        state.end_session(session.id)
        session._lost.set()
    return False


async def test_a_leader_that_lost_its_session_stops_at_once(time: FakeTime) -> None:
    state = MemoryState()
    async with MemoryStore(state) as store, opened(store, time, upkeep=True) as cluster:
        await eventually(lambda: cluster.status().is_leader)
        sweeping = asyncio.Event()

        async def sweep_for_ever() -> None:
            sweeping.set()
            await asyncio.Event().wait()

        cluster.upkeep.sweep = sweep_for_ever  # type: ignore[method-assign,assignment]
        await sweeping.wait()
        end_sessions(state, store)

        await eventually(lambda: not cluster.status().is_leader)


async def mark_of(store: MemoryStore, host: str) -> Reclaim | None:
    entry = await store.get(keys.reclaim(host))
    return codec.decode(Reclaim, entry.value) if entry is not None else None


async def dies(cluster: Cluster, store: MemoryStore, host: str) -> None:
    await store.commit([], [Delete(keys.alive(host))])
    await in_step(cluster, store)


async def test_a_host_that_is_down_is_marked_with_the_evidence_and_shown_so(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    await in_step(cluster, store)
    died_at = time.now()
    await dies(cluster, store, "h1")
    await cluster.upkeep.sweep()
    assert await mark_of(store, "h1") is None
    time.pass_by(31.0)
    await cluster.upkeep.sweep()
    await in_step(cluster, store)

    mark = await mark_of(store, "h1")
    assert mark is not None
    assert (mark.host, mark.incarnation, mark.last_seen, mark.absent_since) == ("h1", "first", died_at, died_at)
    assert (mark.absent_s, mark.by) == (31.0, "controller")
    told = cluster.hosts.get("h1")
    assert (told.alive, told.down_since, told.incarnation) == (False, died_at, "first")
    events = [e for r in cluster.events._kept for e in cluster.events.events_of(r) or ()]
    (absent,) = [e for e in events if e.kind == "host.absent"]
    assert "as incarnation first; marked by controller at revision" in absent.source


async def test_a_new_controller_knows_of_a_host_that_died_before_its_time(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    died_at = time.now()
    await dies(cluster, store, "h1")
    await cluster.upkeep.sweep()
    time.pass_by(31.0)
    await cluster.upkeep.sweep()

    async with opened(store, time, seed=2) as another:
        told = another.hosts.get("h1")
    assert (told.last_seen, told.down_since, told.incarnation) == (died_at, died_at, "first")


async def test_a_new_leader_goes_on_from_the_mark_but_must_see_for_itself(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await dies(cluster, store, "h1")
    for _ in range(25):  # 22 of 24 hours, renewed now and then
        await cluster.upkeep.sweep()
        time.pass_by(0.88 * 3600.0)
        await in_step(cluster, store)
    mark = await mark_of(store, "h1")
    assert mark is not None
    assert mark.absent_s > 20 * 3600.0

    async with opened(store, time, seed=2, replica="two") as another:
        time.pass_by(5 * DAY_S)  # that nobody saw
        assert (await another.upkeep.sweep()).done["endpoints"] == 0
        time.pass_by(31.0)
        assert (await another.upkeep.sweep()).done["endpoints"] == 0
        time.pass_by(4 * 3600.0)
        await another.upkeep.sweep()
        await in_step(another, store)
        assert (await another.upkeep.sweep()).done["endpoints"] == 1
        await in_step(another, store)
        released = [
            e for r in another.events._kept for e in another.events.events_of(r) or () if e.kind == "endpoint.released"
        ]
        assert "host h1 absent since" in released[0].source
        assert "incarnation first" in released[0].source


async def test_a_worker_that_came_back_between_two_leaders_has_removed_the_mark(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await dies(cluster, store, "h1")
    await cluster.upkeep.sweep()
    time.pass_by(DAY_S - 60.0)
    await cluster.upkeep.sweep()
    assert await mark_of(store, "h1") is not None
    # What the worker commits when it is back, and then it dies again, all of it unseen by the upkeep.
    await store.commit([], [Put(keys.alive("h1"), b"{}"), Delete(keys.reclaim("h1"))])
    await store.commit([], [Delete(keys.alive("h1"))])

    async with opened(store, time, seed=2, replica="two") as another:
        for _ in range(3):
            time.pass_by(61.0)
            assert (await another.upkeep.sweep()).done["endpoints"] == 0
            await in_step(another, store)
        mark = await mark_of(store, "h1")
        assert mark is not None
        assert mark.absent_s < 200.0


async def test_the_release_checks_the_mark_and_the_absence_in_its_own_commit(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(), ME)
    await dies(cluster, store, "h1")
    await cluster.upkeep.sweep()
    time.pass_by(2 * DAY_S)
    await cluster.upkeep.sweep()
    await in_step(cluster, store)
    # It is back, and this controller's mirrors do not know yet.
    await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "second", 0.0)))])

    await cluster.upkeep.sweep()

    assert len((await store.list(keys.ENDPOINTS)).entries) == 1


async def test_nothing_is_concluded_while_no_host_lives_at_all(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    """After an outage of the store every session is gone. Who comes back later has the full time from then on."""
    for name in ("h2", "h3"):
        await add_host(store, name)
    await cluster.networks.create(network(), ME)
    for name in ("h1", "h2", "h3"):
        await cluster.endpoints.create("my-net", endpoint(name, name), ME)
        await dies(cluster, store, name)
    for _ in range(5):
        assert (await cluster.upkeep.sweep()).done["endpoints"] == 0
        time.pass_by(DAY_S)
    assert not (await store.list(keys.RECLAIMS)).entries

    await add_host(store, "h1")
    await in_step(cluster, store)
    await cluster.upkeep.sweep()
    time.pass_by(DAY_S - 1)
    assert (await cluster.upkeep.sweep()).done["endpoints"] == 0
    await in_step(cluster, store)
    time.pass_by(2.0)
    await cluster.upkeep.sweep()
    await in_step(cluster, store)
    assert {e.value.host for e in cluster.endpoints.list()} == {"h1"}


async def test_the_mark_on_a_host_that_lives_or_is_gone_is_removed(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h2")
    marks = [Put(keys.reclaim(one), codec.encode(Reclaim(one, "", None, 0.0, 0.0, "old", 1))) for one in ("h1", "h9")]
    await store.commit([], marks)
    await in_step(cluster, store)

    await cluster.upkeep.sweep()

    assert not (await store.list(keys.RECLAIMS)).entries


async def test_a_leader_whose_key_was_wiped_stops_and_stands_again(time: FakeTime) -> None:
    async with MemoryStore() as store, opened(store, time, upkeep=True) as cluster:
        await eventually(lambda: cluster.status().is_leader and cluster.status().leader == "controller")
        first = store.state.entries[keys.LEADER]

        await store.commit([], [Delete(keys.LEADER)])

        await eventually(lambda: store.state.entries.get(keys.LEADER) not in (None, first))
        await eventually(lambda: cluster.status().is_leader and cluster.status().leader == "controller")


class LateElection(FailingStore):
    """The answer to the first candidacy is lost, and it takes effect after its candidate has looked."""

    candidacy: tuple[Sequence[Check], Sequence[Write]] | None = None
    candidacies = 0

    async def get(self, key: str) -> Entry | None:
        found = await super().get(key)
        if key == keys.LEADER and self.candidacy is not None:
            late, self.candidacy = self.candidacy, None
            await self.inner.commit(*late)
        return found

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if keys.LEADER in {write.key for write in writes}:
            self.candidacies += 1
            if self.candidacies == 1:
                self.candidacy = checks, writes
                raise Unknown("no answer")
        return await super().commit(checks, writes)


async def test_a_candidate_whose_request_arrived_late_leads(time: FakeTime) -> None:
    async with MemoryStore() as store, opened(LateElection(store), time, upkeep=True) as cluster:
        await eventually(lambda: cluster.status().is_leader)

        assert cluster.status().leader == "controller"
