"""Watches as tests need them: something to wait on with a deadline, and validators of what a watch may tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backends.store import Batch, Entry, Revision, Snapshot, Store, StoreError

DEADLINE_S = 30.0


@dataclass
class Watcher:
    """What one watch was told so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    revision: Revision = 0
    error: StoreError | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, batch: Batch) -> None:
        assert batch.revision >= self.revision, f"went back from {self.revision} to {batch.revision}"
        for change in batch.changes:
            if change.entry is None:
                self.entries.pop(change.key, None)
                continue
            known = self.entries.get(change.key)
            assert known is None or change.entry.version >= known.version, f"{change.key} went back in time"
            assert change.entry.version <= batch.revision, f"{change.key} is newer than its batch"
            self.entries[change.key] = change.entry
        self.revision = batch.revision
        self.batches.append(batch)

    @property
    def changes(self) -> list[tuple[str, bytes | None]]:
        return [
            (change.key, None if change.entry is None else change.entry.value)
            for batch in self.batches
            for change in batch.changes
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.told.clear()
                await self.told.wait()


@asynccontextmanager
async def watching(store: Store, prefix: str, after: Revision, known: Sequence[Entry] = ()) -> AsyncIterator[Watcher]:
    """A watch that runs in the background; entered when the first batch is there or it has failed."""
    watcher = Watcher({entry.key: entry for entry in known}, revision=after)

    async def follow() -> None:
        try:
            async for batch in store.watch(prefix, after):
                watcher.take(batch)
                watcher.told.set()
        except StoreError as error:
            watcher.error = error
        watcher.told.set()

    task = asyncio.create_task(follow())
    try:
        await watcher.until(lambda: bool(watcher.batches) or watcher.error is not None or task.done())
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


def plain(snapshot: Snapshot) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in snapshot.entries}


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await _a_moment()


async def _a_moment() -> None:
    await asyncio.sleep(0.002)
