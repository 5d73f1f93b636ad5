"""Group commit: nobody notices that it shares a transaction, whatever happens to the others or to the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.committer import LINGER_S, Committer, Transaction
from backends.memory import MemoryStore
from backends.passing import PassingStore
from backends.store import (
    MAX_OPERATIONS,
    Absent,
    Check,
    Conflict,
    Delete,
    Present,
    Put,
    Room,
    SessionLost,
    Store,
    StoreError,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from tests.store.faults import FaultyStore

pytestmark = pytest.mark.anyio

KEYS = [f"k/{number}" for number in range(6)]


class Counting:
    """Counts the transactions that reach the store."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore(), random.Random(0))

    @property
    def commits(self) -> int:
        return len(self.store.applied)


def seal(notes: Sequence[bytes]) -> list[Write]:
    return [Put("journal/" + "-".join(note.decode() for note in notes)[:200], b",".join(notes))]


@asynccontextmanager
async def running(store: Store, sealed: bool = False) -> AsyncIterator[Committer]:
    committer = Committer(store, seal=seal if sealed else None)
    task = asyncio.create_task(committer.run())
    try:
        yield committer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def put(key: str, value: bytes = b"") -> Transaction:
    return Transaction((Absent(key),), (Put(key, value),))


async def test_concurrent_transactions_on_different_keys_share_a_commit() -> None:
    counting = Counting()
    async with running(counting.store) as committer:
        revisions = await asyncio.gather(*(committer.submit(put(f"k/{number}")) for number in range(30)))

    assert counting.commits == 1
    assert len(set(revisions)) == 1


async def test_what_a_busy_process_gets_to_a_moment_later_goes_along() -> None:
    counting = Counting()
    async with running(counting.store) as committer:
        waiting = []
        for number in range(12):
            waiting.append(asyncio.create_task(committer.submit(put(f"k/{number}"))))
            for _ in range(2):
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert counting.commits == 1


async def test_one_that_comes_alone_does_not_wait() -> None:
    counting = Counting()
    async with running(counting.store) as committer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(20):
            await committer.submit(put(f"k/{number}"))
        took_s = loop.time() - began
    assert counting.commits == 20
    assert took_s < 20 * LINGER_S / 2


async def test_a_bulk_of_a_hundred_stays_within_the_floor_and_takes_few_commits() -> None:
    counting = Counting()
    await counting.store.commit([], [Put("network", b"")])
    async with running(counting.store, sealed=True) as committer:
        outcomes = await committer.submit_many(
            Transaction(
                (Unchanged("network", 1), Absent(f"e/{number}"), Absent(f"a/{number}")),
                (Put(f"e/{number}", b""), Put(f"a/{number}", b""), Put(f"l/{number}", b"")),
                note=b"%d" % number,
            )
            for number in range(100)
        )

    assert all(isinstance(outcome, int) for outcome in outcomes)
    assert counting.commits - 1 <= 10
    for _, checks, writes in counting.store.applied:
        assert len(checks) + len(writes) <= MAX_OPERATIONS
        assert len({check.key for check in checks}) == len(checks)


class Boasting(PassingStore):
    """Says that it takes more than it does, as a server that is set up to take less than its kind."""

    room = Room(together=2 * MAX_OPERATIONS, of_a_kind=2 * MAX_OPERATIONS)


async def test_servers_that_take_less_than_was_thought_get_what_all_take() -> None:
    counting = Counting()
    async with running(Boasting(counting.store), sealed=True) as committer:
        outcomes = await committer.submit_many(
            [Transaction(put(f"k/{n}").checks, put(f"k/{n}").writes, b"%d" % n) for n in range(100)]
        )

    assert all(isinstance(outcome, int) for outcome in outcomes)
    assert 4 <= counting.commits <= 5


class Roomy(PassingStore):
    """Its limit is of checks and of writes each, as etcd's."""

    room = Room(together=40, of_a_kind=20)


async def test_a_batch_keeps_to_what_the_servers_take_of_checks_and_of_writes() -> None:
    counting = Counting()
    async with running(Roomy(counting.store), sealed=True) as committer:
        outcomes = await committer.submit_many(
            [
                Transaction(put(f"k/{n}").checks, (*put(f"k/{n}").writes, Put(f"more/{n}", b"")), b"%d" % n)
                for n in range(100)
            ]
        )

    assert all(isinstance(outcome, int) for outcome in outcomes)
    assert counting.commits - 1 <= 12  # nine of two writes each, and what the seal adds
    for _, checks, writes in counting.store.applied:
        assert Roomy.room.holds(len(checks), len(writes))


async def test_only_the_guilty_sees_the_conflict() -> None:
    store = MemoryStore()
    await store.commit([], [Put("k/3", b"taken")])
    async with running(store) as committer:
        outcomes = await committer.submit_many([put(f"k/{number}") for number in range(6)])

    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, False, False, True, False, False]
    assert outcomes[3].keys == ("k/3",)  # type: ignore[union-attr]
    assert len((await store.list("k/")).entries) == 6


async def test_of_many_for_one_key_the_first_wins() -> None:
    store = MemoryStore()
    async with running(store) as committer:
        outcomes = await committer.submit_many([put("k", b"%d" % number) for number in range(20)])

    entry = await store.get("k")
    assert entry is not None
    assert entry.value == b"0"
    assert [type(outcome) for outcome in outcomes] == [int] + [Conflict] * 19


async def test_blind_writes_of_one_key_keep_their_order() -> None:
    store = MemoryStore()
    async with running(store) as committer:
        await committer.submit_many([Transaction((), (Put("k", b"%d" % number),)) for number in range(50)])

    entry = await store.get("k")
    assert entry is not None
    assert entry.value == b"49"


async def test_a_lost_session_hits_only_those_that_named_it() -> None:
    async with MemoryStore() as store:
        alive, dead = await store.session(10), await store.session(10)
        await dead.close()
        async with running(store) as committer:
            outcomes = await committer.submit_many(
                [
                    put("a"),
                    Transaction((), (Put("b", b"", dead.id),)),
                    Transaction((), (Put("c", b"", alive.id),)),
                    put("d"),
                ]
            )

        assert [type(outcome) for outcome in outcomes] == [int, SessionLost, int, int]
        await alive.close()


async def test_what_is_too_large_or_malformed_does_not_touch_the_others() -> None:
    store = MemoryStore()
    large = Transaction((), (Put("large", b"x" * 300_000),))
    async with running(store) as committer:
        outcomes = await committer.submit_many([put("a"), large, put("b")])
        with pytest.raises(ValueError, match="not a key"):
            await committer.submit_many([put("c"), put("/bad")])

    assert [type(outcome) for outcome in outcomes] == [int, TooLarge, int]
    assert await store.get("c") is None


async def test_large_notes_are_spread_over_several_commits() -> None:
    store = MemoryStore()
    async with running(store, sealed=True) as committer:
        outcomes = await committer.submit_many(
            [Transaction((), (Put(f"k/{number}", b""),), note=b"%d" % number * 40_000) for number in range(1, 10)]
        )

    assert all(isinstance(outcome, int) for outcome in outcomes)
    assert len((await store.list("journal/")).entries) >= 2


async def test_a_cancelled_submitter_does_not_disturb_the_others() -> None:
    store = FaultyStore(MemoryStore(), random.Random(1))
    async with running(store) as committer:
        tasks = [asyncio.create_task(committer.submit(put(f"k/{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, int) for outcome in outcomes[1::2])
    assert {f"k/{number}" for number in range(1, 20, 2)} <= {entry.key for entry in (await store.list("k/")).entries}


async def test_when_it_stops_the_waiting_are_told() -> None:
    class Stuck(MemoryStore):
        async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> int:
            await asyncio.Event().wait()
            raise AssertionError

    async with running(Stuck()) as committer:
        sent = asyncio.create_task(committer.submit(put("a")))
        second = asyncio.create_task(committer.submit(put("a")))
        for _ in range(5):
            await asyncio.sleep(0)
    outcomes = await asyncio.gather(sent, second, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Unknown, Unavailable]
    with pytest.raises(Unavailable):
        await committer.submit(put("b"))


@st.composite
def transactions(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    checks = draw(
        st.lists(
            st.tuples(st.sampled_from(["absent", "present", "current", "stale"]), st.sampled_from(KEYS)), max_size=2
        )
    )
    writes = draw(
        st.lists(
            st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from(KEYS)), max_size=2, unique_by=lambda w: w[1]
        )
    )
    return checks, writes


@settings(max_examples=60, deadline=None)
@given(
    plans=st.lists(transactions(), min_size=1, max_size=40),
    failing=st.sampled_from([0.0, 0.1, 0.3]),
    cancelling=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**32),
)
def test_every_outcome_is_true_and_every_batch_is_what_its_members_would_have_done(
    plans: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]], failing: float, cancelling: float, seed: int
) -> None:
    asyncio.run(_check_outcomes(plans, failing, cancelling, random.Random(seed)))


async def _check_outcomes(
    plans: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
    failing: float,
    cancelling: float,
    rng: random.Random,
) -> None:
    store = FaultyStore(MemoryStore(), rng)
    await store.commit([], [Put(key, b"") for key in KEYS[::2]])
    store.failing = failing
    submitted: dict[str, Transaction] = {}

    async def submit(number: int) -> int | StoreError:
        await asyncio.sleep(rng.random() * 0.004)
        checks, writes = plans[number]
        transaction = Transaction(
            tuple(_check(kind, key, store) for key, kind in {key: kind for kind, key in checks}.items()),
            (*(_write(kind, key, number) for kind, key in writes), Put(f"mark/{number}", b"")),
            note=b"%d" % number,
        )
        submitted[f"mark/{number}"] = transaction
        return await committer.submit(transaction)

    async with running(store, sealed=True) as committer:
        tasks = [asyncio.create_task(submit(number)) for number in range(len(plans))]
        await asyncio.sleep(0.001)
        for task in tasks:
            if rng.random() < cancelling:
                task.cancel()
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    marks = _replay(store, submitted)
    for number, outcome in enumerate(outcomes):
        mark = f"mark/{number}"
        if isinstance(outcome, int):
            assert marks[mark] == outcome
        elif isinstance(outcome, Conflict):
            assert mark not in marks
            assert set(outcome.keys) <= {check.key for check in submitted[mark].checks}
        elif isinstance(outcome, Unavailable):
            assert mark not in marks
        else:
            assert isinstance(outcome, Unknown | asyncio.CancelledError)


def _check(kind: str, key: str, store: FaultyStore) -> Check:
    if kind == "absent":
        return Absent(key)
    if kind == "present":
        return Present(key)
    assert isinstance(store.store, MemoryStore)
    entry = store.store.state.entries.get(key)
    return Unchanged(key, entry.version if entry and kind == "current" else 10**9)


def _write(kind: str, key: str, number: int) -> Write:
    return Put(key, b"%d" % number) if kind == "put" else Delete(key)


def _replay(store: FaultyStore, submitted: dict[str, Transaction]) -> dict[str, int]:
    """The revision of each mark; asserts that the members of every batch are all there, whole, and independent."""
    versions: dict[str, int] = {}
    marks: dict[str, int] = {}
    for revision, _, writes in store.applied:
        members = [submitted[write.key] for write in writes if write.key in submitted]
        journal = [write for write in writes if isinstance(write, Put) and write.key.startswith("journal/")]
        if members:
            _require_whole(members, [write for write in writes if write not in journal])
            _require_independent(members, versions)
            assert {note for write in journal for note in write.value.split(b",")} == {m.note for m in members}
        for write in writes:
            assert write.key not in marks, "applied twice"
            versions.pop(write.key, None)
            if isinstance(write, Put):
                versions[write.key] = revision
            if write.key in submitted:
                marks[write.key] = revision
    return marks


def _require_whole(members: list[Transaction], writes: list[Write]) -> None:
    expected = [write for member in members for write in member.writes]
    assert sorted(map(repr, expected)) == sorted(map(repr, writes))


def _require_independent(members: list[Transaction], versions: dict[str, int]) -> None:
    """Whatever the order, every check of every member holds."""
    for order in (members, members[::-1]):
        state = dict(versions)
        for member in order:
            for check in member.checks:
                version = state.get(check.key)
                assert (version is None) == isinstance(check, Absent)
                assert not isinstance(check, Unchanged) or check.version == version
            for write in member.writes:
                state.pop(write.key, None)
                if isinstance(write, Put):
                    state[write.key] = -1
