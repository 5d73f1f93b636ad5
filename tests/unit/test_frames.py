"""Whoever keeps an error lets go of all that its frames have: connections, buffers, tasks."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from backends.memory import MemoryStore
from backends.mirror import Mirror
from backends.store import Batch, Revision, Unavailable
from kvnet.frames import without_frames

pytestmark = pytest.mark.anyio

FAILURES = 5
DEADLINE_S = 10.0


class Buffer:
    """What a connection has that is large."""


class BreakingStore(MemoryStore):
    """Each of its watches ends at once, with an error that came of another one. `buffers`: those of the watches."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers = weakref.WeakSet[Buffer]()
        self.failures = 0

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        buffer = Buffer()
        self.buffers.add(buffer)
        self.failures += 1
        yield Batch((), after)
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise Unavailable(f"lost with {buffer}") from error


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_mirror_keeps_nothing_of_watches_that_broke(no_garbage_collector: None) -> None:
    broke = asyncio.Event()

    def look(_: object) -> None:
        if store.failures >= FAILURES:
            broke.set()

    async with BreakingStore() as store:
        mirror = Mirror(store, "a/", rng=random.Random(0), sleep=lambda _: asyncio.sleep(0))
        mirror.on_error = look
        following = asyncio.create_task(mirror.run())
        async with asyncio.timeout(DEADLINE_S):
            await broke.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    assert isinstance(mirror.last_error, Unavailable)
    assert len(store.buffers) <= 1, "the latest one may have been under way"


def test_what_an_error_came_of_has_no_frames_either_and_what_it_came_across_has() -> None:
    try:
        try:
            raise KeyError("a bug")
        except KeyError:
            try:
                raise OSError("reset")
            except OSError as error:
                raise Unavailable("lost") from error
    except Unavailable as lost:
        kept = without_frames(lost)

    assert str(kept) == "lost"
    assert kept.__traceback__ is None
    assert kept.__cause__ is not None
    assert kept.__cause__.__traceback__ is None
    across = kept.__cause__.__context__
    assert isinstance(across, KeyError)
    assert across.__traceback__ is not None
