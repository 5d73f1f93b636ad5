"""Lists that are asked for together are one read, and nobody is told anything older than the question."""

from __future__ import annotations

import asyncio

import pytest

from backends.joined_reads import JoinedReads
from backends.memory import MemoryStore
from backends.passing import PassingStore
from backends.store import Put, Snapshot, Unavailable

pytestmark = pytest.mark.anyio


class Gated(PassingStore):
    """Reads, and holds the answer back until it is let go; counts."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.reads = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()

    async def list(self, prefix: str) -> Snapshot:
        self.reads += 1
        found = await super().list(prefix)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return found


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_during_a_read_gets_the_next_one_together_with_all_others() -> None:
    store = Gated()
    joined = JoinedReads(store)
    first = asyncio.create_task(joined.list("hosts/"))
    await settled()
    await store.commit([], [Put("hosts/h1", b"1")])
    later = [asyncio.create_task(joined.list("hosts/")) for _ in range(100)]
    await settled()
    store.gate.set()

    assert (await first).entries == ()
    found = await asyncio.gather(*later)

    assert [entry.key for entry in found[0].entries] == ["hosts/h1"], "its question came after that commit"
    assert all(snapshot is found[0] for snapshot in found)
    assert store.reads == 2


async def test_different_prefixes_do_not_wait_for_each_other() -> None:
    store = Gated()
    joined = JoinedReads(store)
    tasks = [asyncio.create_task(joined.list(prefix)) for prefix in ("hosts/", "meta/")]
    await settled()

    assert store.reads == 2
    store.gate.set()
    await asyncio.gather(*tasks)


async def test_an_error_is_told_to_all_who_shared_the_read_and_the_next_one_is_read_anew() -> None:
    store = Gated()
    store.error = Unavailable("away")
    store.gate.set()
    joined = JoinedReads(store)

    outcomes = await asyncio.gather(*(joined.list("hosts/") for _ in range(3)), return_exceptions=True)
    store.error = None

    assert outcomes == [store_error := outcomes[0]] * 3
    assert isinstance(store_error, Unavailable)
    assert (await joined.list("hosts/")).entries == ()


async def test_one_that_gives_up_takes_nothing_from_the_others() -> None:
    store = Gated()
    joined = JoinedReads(store)
    impatient, patient = (asyncio.create_task(joined.list("hosts/")) for _ in range(2))
    await settled()
    impatient.cancel()
    await settled()
    store.gate.set()

    assert (await patient).entries == ()
    assert impatient.cancelled()
