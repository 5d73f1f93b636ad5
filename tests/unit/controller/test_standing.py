"""A store that went back in time, was wiped, or is another's: nothing is written until an operator says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from backends.store import Compacted, Delete, Put
from controller.cluster import Cluster
from controller.requests import ReservationRequest
from kvnet import codec, keys
from kvnet.errors import Gone, PreconditionFailed, StoreWentBack
from kvnet.marks import Accepted
from kvnet.marks import Cluster as Identity
from kvnet.model import Condition, NetworkObserved, Observed
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network, opened
from tests.unit.controller.listening import Stream

pytestmark = pytest.mark.anyio


class TimeMachine:
    """A store server that can be put back to what it was, as an operator does with a snapshot of it."""

    def __init__(self) -> None:
        self.state = MemoryState()

    def snapshot(self) -> tuple[dict[str, object], int]:
        return dict(self.state.entries), self.state.revision

    def restore(self, snapshot: tuple[dict[str, object], int]) -> None:
        entries, revision = snapshot
        state = self.state
        state.entries = dict(entries)  # type: ignore[arg-type]
        state.revision = state.compacted = revision
        state._last.clear()

    def client(self) -> MemoryStore:
        return MemoryStore(self.state)


def interrupt(store: MemoryStore) -> None:
    """The connections of this client break, as they do when the server restarts."""
    for watch in list(store._watches):
        watch.fail(Compacted("the server was restored"))


async def refuses(change: Awaitable[object]) -> StoreWentBack:
    with pytest.raises(StoreWentBack) as refusal:
        await change
    return refusal.value


async def fell(cluster: Cluster) -> None:
    await eventually(lambda: cluster.standing.trouble is not None)


async def test_every_change_is_refused_once_the_store_went_back_and_reads_go_on(time: FakeTime) -> None:
    machine = TimeMachine()
    async with machine.client() as store, opened(store, time) as cluster:
        await add_host(store, "h1")
        await cluster.networks.create(network("old", "10.1.0.0/24"), ME)
        await cluster.endpoints.create("old", endpoint("e1"), ME)
        await cluster.networks.create(network("empty"), ME)
        backup = machine.snapshot()
        await cluster.networks.create(network("new"), ME)
        reached = machine.state.revision

        machine.restore(backup)
        interrupt(store)
        await fell(cluster)
        revision = machine.state.revision

        error = await refuses(cluster.networks.create(network("third"), ME))
        await refuses(cluster.networks.delete("empty", ME))
        await refuses(cluster.endpoints.create("old", endpoint("e2"), ME))
        await refuses(cluster.endpoints.create_many("old", [endpoint("e3")], ME))
        await refuses(cluster.endpoints.delete("old", "e1", ME))
        await refuses(cluster.reservations.create("old", ReservationRequest("printer"), ME))
        await refuses(cluster.ipam.repair(ME)) if (await cluster.ipam.check()).findings else None
        time.pass_by(10 * 86_400.0)
        await eventually(lambda: cluster._state.is_in_step)
        assert "went back" in (await cluster.upkeep.sweep()).refused
        assert machine.state.revision == revision
        assert f"from revision {reached} to {backup[1]}" in error.detail
        assert "kvnet store accept" in error.fix
        assert {n.value.name for n in cluster.networks.list()} == {"old", "empty"}


async def test_one_acceptance_is_enough_for_all_controllers_also_those_that_notice_later(time: FakeTime) -> None:
    machine = TimeMachine()
    async with (
        machine.client() as one,
        machine.client() as two,
        opened(one, time) as first,
        opened(two, time, seed=2, replica="two") as second,
    ):
        await first.networks.create(network("old"), ME)
        backup = machine.snapshot()
        await first.networks.create(network("new"), ME)
        reached = machine.state.revision
        await eventually(lambda: second.standing._state.revision >= reached)

        machine.restore(backup)
        interrupt(one)
        await fell(first)
        trouble = first.standing.trouble
        assert trouble is not None
        await first.acceptance.accept(first.standing.sentinel.value.id, trouble.before, ME)  # type: ignore[union-attr]
        interrupt(two)

        for cluster in (first, second):
            await eventually(lambda cluster=cluster: cluster.standing.trouble is None)  # type: ignore[misc]
            await eventually(lambda cluster=cluster: not cluster.standing._owed)  # type: ignore[misc]
        await first.networks.create(network("of-the-first"), ME)
        await second.networks.create(network("of-the-second"), ME)
        names = {n.value.name for n in second.networks.list()}
        assert names == {"old", "of-the-first", "of-the-second"}


async def test_an_old_acceptance_that_comes_back_with_an_old_store_accepts_nothing(time: FakeTime) -> None:
    machine = TimeMachine()
    async with machine.client() as store, opened(store, time) as cluster:
        ident = cluster.standing.sentinel.value.id  # type: ignore[union-attr]
        await cluster.acceptance.accept(ident, 0, ME)
        backup = machine.snapshot()
        time.pass_by(60.0)
        await cluster.acceptance.accept(ident, 0, ME)
        await cluster.networks.create(network("new"), ME)
        await eventually(lambda: not cluster.standing._owed)

        machine.restore(backup)
        interrupt(store)

        await fell(cluster)
        await refuses(cluster.networks.create(network("third"), ME))


async def test_a_second_fall_after_an_acceptance_is_refused_again(time: FakeTime) -> None:
    machine = TimeMachine()
    async with machine.client() as store, opened(store, time) as cluster:
        ident = cluster.standing.sentinel.value.id  # type: ignore[union-attr]
        await cluster.acceptance.accept(ident, 0, ME)
        backup = machine.snapshot()
        await cluster.networks.create(network("new"), ME)
        await eventually(lambda: not cluster.standing._owed)

        machine.restore(backup)
        interrupt(store)

        await fell(cluster)


@pytest.mark.parametrize("other", [None, Identity("another", 0.0)], ids=["wiped", "another"])
async def test_what_is_not_this_cluster_is_neither_written_nor_accepted(
    cluster: Cluster, store: MemoryStore, other: Identity | None
) -> None:
    write = Delete(keys.CLUSTER) if other is None else Put(keys.CLUSTER, codec.encode(other))
    await store.commit([], [write])
    # Before the mirrors know: the commit's own check holds the change back.
    error = await refuses(cluster.networks.create(network(), ME))
    await fell(cluster)
    before = store.state.revision

    told = await refuses(cluster.networks.create(network(), ME))
    await refuses(cluster.acceptance.accept("another", 0, ME))

    assert store.state.revision == before
    assert error.status == 503
    assert ("kvnet restore" in told.fix) == (other is None)


async def test_a_sentinel_that_is_written_anew_is_a_restore_that_nobody_confirmed(
    cluster: Cluster, store: MemoryStore
) -> None:
    """`consul kv import` of an old export: every revision is new, and only this tells."""
    sentinel = store.state.entries[keys.CLUSTER]
    await store.commit([], [Put(keys.CLUSTER, sentinel.value)])

    await fell(cluster)
    error = await refuses(cluster.networks.create(network(), ME))

    assert "written anew" in error.detail


async def test_a_restore_that_brings_its_acceptance_along_is_taken_by_running_controllers(
    cluster: Cluster, store: MemoryStore, time: FakeTime
) -> None:
    made = await cluster.networks.create(network("kept"), ME)
    entries = dict(store.state.entries)
    await store.commit([], [Delete(key) for key in entries])
    await fell(cluster)
    await eventually(lambda: not cluster.networks.list())

    accepted = Accepted("a1", cluster.status().cluster, time.now(), "restore", 0, 0)
    rest = [Put(e.key, e.value) for e in entries.values() if not e.key.startswith(keys.META)]
    await store.commit([], rest)
    meta = [Put(keys.CLUSTER, entries[keys.CLUSTER].value), Put(keys.ACCEPTED, codec.encode(accepted))]
    await store.commit([], meta)

    await eventually(lambda: cluster.standing.trouble is None)
    await eventually(lambda: [n.value.id for n in cluster.networks.list()] == [made.value.id])
    await cluster.networks.create(network("next"), ME)


@pytest.mark.parametrize("proof", ["applied", "condition"])
async def test_a_controller_without_a_memory_believes_the_hosts(time: FakeTime, proof: str) -> None:
    state = MemoryState()
    async with MemoryStore(state) as store:
        async with opened(store, time):
            pass
        conditions = (Condition("store-went-back", "it had reached 900", 0.0),) if proof == "condition" else ()
        seen = {"0" * 12: NetworkObserved(900 if proof == "applied" else 0, conditions)}
        await store.commit([], [Put(keys.observed("h1"), codec.encode(Observed("h1", time.now(), seen)))])

        async with opened(store, time, seed=2) as cluster:
            error = await refuses(cluster.networks.create(network(), ME))
            assert "host h1 has seen a newer store" in error.detail
            ident = cluster.standing.sentinel.value.id  # type: ignore[union-attr]
            await cluster.acceptance.accept(ident, 0, ME)
            await cluster.networks.create(network(), ME)


async def test_what_was_not_seen_is_not_accepted(time: FakeTime) -> None:
    machine = TimeMachine()
    async with machine.client() as store, opened(store, time) as cluster:
        ident = cluster.standing.sentinel.value.id  # type: ignore[union-attr]
        with pytest.raises(PreconditionFailed):
            await cluster.acceptance.accept("another", 0, ME)
        with pytest.raises(PreconditionFailed):
            await cluster.acceptance.accept(ident, 77, ME)
        assert await store.get(keys.ACCEPTED) is None


async def test_events_go_on_from_where_the_store_is_now(time: FakeTime) -> None:
    machine = TimeMachine()
    async with machine.client() as store, opened(store, time) as cluster:
        await cluster.networks.create(network("old"), ME)
        backup = machine.snapshot()
        for i in range(5):
            await cluster.networks.create(network(f"new{i}"), ME)
        await eventually(lambda: cluster.events.revision == machine.state.revision)
        stream = Stream(cluster)

        machine.restore(backup)
        interrupt(store)
        await fell(cluster)
        with pytest.raises(Gone):
            await stream.taken(1)
        trouble = cluster.standing.trouble
        assert trouble is not None
        position = cluster.events.revision
        await cluster.acceptance.accept(cluster.standing.sentinel.value.id, trouble.before, ME)  # type: ignore[union-attr]
        await cluster.networks.create(network("after"), ME)

        told = [event for event in await Stream(cluster, position).taken(2) if event.resumable]
        assert [event.kind for event in told] == ["store.accepted", "network.created"]


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "delete", "attach", "backup", "restore", "wipe", "accept", "sweep", "restart"]),
        st.integers(0, 3),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_between_a_fall_and_its_acceptance_no_commit_of_ours_reaches_the_store(steps: list[Step]) -> None:
    asyncio.run(history(steps))


async def history(steps: list[Step]) -> None:
    """One controller that is never restarted, and a store that falls at random. Nothing may be written in a fallen
    store, and everything works again after the acceptance."""
    time, machine, rng = FakeTime(), TimeMachine(), random.Random(7)
    backups: list[tuple[dict[str, object], int]] = []
    async with machine.client() as store, opened(store, time) as cluster:
        await add_host(store, "h1")
        founded = machine.snapshot()
        has_fallen = False
        for number, (step, which) in enumerate(steps):
            before = machine.state.revision
            match step:
                case "backup":
                    backups.append(machine.snapshot())
                case "restore" | "wipe":
                    taken = rng.choice(backups or [founded])
                    # What nobody has heard of yet, such as the last seal of the journal, nobody misses.
                    await eventually(lambda: has_heard_of_all(cluster, machine))
                    if taken[1] >= machine.state.revision:
                        continue
                    machine.restore(taken if step == "restore" else ({}, 0))
                    interrupt(store)
                    await fell(cluster)
                    has_fallen = True
                case "accept" if has_fallen:
                    has_fallen = not await accepted(cluster, machine)
                case _:
                    done = await attempt(cluster, step, f"n{number}" if step == "create" else f"n{which}")
                    if has_fallen:
                        assert not done
                        assert machine.state.revision == before
            time.pass_by(40.0)


def has_heard_of_all(cluster: Cluster, machine: TimeMachine) -> bool:
    return max(mirror.revision for mirror in cluster._state.mirrors) >= machine.state.revision


async def accepted(cluster: Cluster, machine: TimeMachine) -> bool:
    trouble, sentinel = cluster.standing.trouble, cluster.standing.sentinel
    assert trouble is not None
    try:
        await cluster.acceptance.accept(sentinel.value.id if sentinel else "", trouble.before, ME)
    except (StoreWentBack, PreconditionFailed):  # it was wiped, whether that is known yet or not
        assert keys.CLUSTER not in machine.state.entries
        return False
    await eventually(lambda: not cluster.standing._owed)
    await eventually(lambda: cluster._state.is_in_step)
    assert cluster.standing.trouble is None
    await cluster.networks.create(network(f"after-{cluster.status().revision}"), ME)
    return True


async def attempt(cluster: Cluster, step: str, name: str) -> bool:
    from kvnet.errors import KvnetError

    actions: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: cluster.networks.create(network(name), ME),
        "delete": lambda: cluster.networks.delete(name, ME),
        "attach": lambda: cluster.endpoints.create(name, endpoint("e"), ME),
        "sweep": cluster.upkeep.sweep,
    }
    if step not in actions:
        return False
    try:
        done = await actions[step]()
    except KvnetError:
        return False
    return not getattr(done, "refused", "")
