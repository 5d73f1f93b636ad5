"""A store that breaks one promise now and then is caught within seconds, by the rule that names what it did."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Store
from tests.torture.broken import BrokenStore, Flaw
from tests.torture.clients import RawClient, Tally
from tests.torture.history import Recorder, read_rounds
from tests.torture.linearizable import check
from tests.torture.recording import Gate, RecordingStore

pytestmark = pytest.mark.anyio

CLIENTS, TURNS = 4, 150
Wrap = Callable[[Store, random.Random], Store]

CAUGHT_BY = {
    Flaw.DROPS_A_CHECK: {"check-did-not-hold"},
    Flaw.FORGETS_A_WRITE: {"lost-write", "check-did-not-hold", "watch-lost-event"},
    Flaw.REUSES_VERSIONS: {"revision-reused", "wrong-version"},
    Flaw.LOSES_AN_EVENT: {"watch-lost-event"},
    Flaw.BLAMES_WITHOUT_REASON: {"conflict-without-reason"},
    Flaw.LISTS_HALF: {"list-not-a-snapshot", "lost-write"},
}


@pytest.mark.parametrize("flaw", list(Flaw))
async def test_a_broken_store_is_caught(flaw: Flaw, tmp_path: Path) -> None:
    rules = await rules_after_a_run(tmp_path / "history", lambda store, rng: BrokenStore(store, flaw, rng))

    assert rules & CAUGHT_BY[flaw]


async def test_a_good_store_is_not(tmp_path: Path) -> None:
    assert await rules_after_a_run(tmp_path / "history", lambda store, rng: store) == set()


async def rules_after_a_run(path: Path, wrap: Wrap) -> set[str]:
    """Raw clients and a watcher, each with a store of their own that `wrap` may break; the judge's is sound."""
    state, gate, tally = MemoryState(), Gate(), Tally()
    ticks = itertools.count()
    with path.open("w+", encoding="utf-8") as file:
        recorder = Recorder(file, lambda: next(ticks))
        judge = RecordingStore(MemoryStore(state), recorder, "judge", gate)
        stores = [
            RecordingStore(wrap(MemoryStore(state), random.Random(i)), recorder, f"c{i}", gate)
            for i in range(CLIENTS + 1)
        ]
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow(stores[-1]))
            clients = [
                tasks.create_task(RawClient(store, f"c{i}", random.Random(i), tally, pass_by).run(TURNS))
                for i, store in enumerate(stores[:-1])
            ]
            await asyncio.wait(clients)
            await judge.commit([], [])  # lets the watcher hear of the last
            watching.cancel()
        await judge.list_as("", is_final=True)
        file.seek(0)
        (history,) = read_rounds(file)
    return set(check(history)[0].rules)


async def follow(store: Store) -> None:
    async for _ in store.watch("", 0):
        pass


async def pass_by(_seconds: float) -> None:
    await asyncio.sleep(0)
