"""Commits that come at the same moment are few for the store, and to each caller as if it had been alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from backends.gathered import GatheredCommits
from backends.memory import MemoryStore
from backends.passing import PassingStore
from backends.store import Absent, Check, Conflict, Put, Revision, Unavailable, Unchanged, Write

pytestmark = pytest.mark.anyio


class Slow(PassingStore):
    """Counts commits, and takes a moment for each."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.commits: list[int] = []
        self.is_away = False

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        self.commits.append(len(writes))
        await asyncio.sleep(0.01)
        if self.is_away:
            raise Unavailable("the store is away")
        return await super().commit(checks, writes)


def are_notes(writes: Sequence[Write]) -> bool:
    return all(write.key.startswith("notes/") for write in writes)


@contextlib.asynccontextmanager
async def gathering(store: Slow) -> AsyncIterator[GatheredCommits]:
    gathered = GatheredCommits(store, are_notes)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(gathered.run())
        await asyncio.sleep(0)
        yield gathered
        running.cancel()


async def test_many_at_once_are_few_for_the_store_and_each_has_its_revision() -> None:
    store = Slow()
    async with gathering(store) as gathered:
        asked = [gathered.commit([Absent(f"notes/{n}")], [Put(f"notes/{n}", b"%d" % n)]) for n in range(100)]
        revisions = await asyncio.gather(*asked)

        assert len(store.commits) <= 5
        assert sum(store.commits) == 100
        for number, revision in enumerate(revisions):
            entry = await gathered.get(f"notes/{number}")
            assert entry is not None
            assert (entry.value, entry.version) == (b"%d" % number, revision)


async def test_one_that_fails_its_check_fails_alone() -> None:
    store = Slow()
    async with gathering(store) as gathered:
        await gathered.commit([], [Put("notes/3", b"old")])
        asked = [gathered.commit([Absent(f"notes/{n}")], [Put(f"notes/{n}", b"new")]) for n in range(20)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

        assert [number for number, found in enumerate(outcomes) if isinstance(found, Conflict)] == [3]
        entry = await gathered.get("notes/3")
        assert entry is not None
        assert entry.value == b"old"


async def test_two_of_one_key_come_one_after_the_other() -> None:
    store = Slow()
    async with gathering(store) as gathered:
        first = await gathered.commit([], [Put("notes/a", b"0")])
        asked = [gathered.commit([Unchanged("notes/a", first)], [Put("notes/a", b"%d" % n)]) for n in range(3)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

        assert isinstance(outcomes[0], int)
        assert [type(found) for found in outcomes[1:]] == [Conflict, Conflict]


async def test_what_is_not_to_be_gathered_goes_by_itself_at_once() -> None:
    store = Slow()
    async with gathering(store) as gathered:
        await asyncio.gather(*(gathered.commit([], [Put(f"others/{n}", b"1")]) for n in range(10)))
        await gathered.commit([], [Put("notes/a", b"1"), Put("others/a", b"1")])

        assert store.commits == [1] * 10 + [2]


async def test_all_hear_that_the_store_is_away() -> None:
    store = Slow()
    store.is_away = True
    async with gathering(store) as gathered:
        asked = [gathered.commit([], [Put(f"notes/{n}", b"1")]) for n in range(10)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

        assert {type(found) for found in outcomes} == {Unavailable}


async def test_while_nobody_gathers_each_goes_by_itself() -> None:
    store = Slow()
    gathered = GatheredCommits(store, are_notes)
    await gathered.commit([], [Put("notes/before", b"1")])
    async with gathering(store) as running:
        await running.commit([], [Put("notes/during", b"1")])
    await running.commit([], [Put("notes/after", b"1")])

    assert [entry.key for entry in (await store.list("notes/")).entries] == [
        "notes/after",
        "notes/before",
        "notes/during",
    ]


async def test_who_gave_up_takes_nothing_away_from_others() -> None:
    store = Slow()
    async with gathering(store) as gathered:
        asked = [asyncio.create_task(gathered.commit([], [Put(f"notes/{n}", b"1")])) for n in range(10)]
        await asyncio.sleep(0)
        asked[0].cancel()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert all(isinstance(found, int) for found in outcomes[1:])
