"""A worker gives back what nobody needs any more, though it has the collector look rarely."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from worker.ports import Time
from worker.tidying import EVERY_S, Tidying

pytestmark = pytest.mark.anyio


class Table:
    """Of a network that went: what is called when it changes belongs to itself."""

    def __init__(self) -> None:
        self.on_change = self.change

    def change(self) -> None:
        return


@pytest.fixture
def rare_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_rings_are_opened_every_two_minutes(rare_collector: None) -> None:
    gone = weakref.ref(Table())
    slept: list[float] = []
    tidied = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 1:
            tidied.set()
            await asyncio.Event().wait()

    assert gone() is not None
    task = asyncio.create_task(Tidying(Time(sleep=sleep)).run())
    async with asyncio.timeout(10):
        await tidied.wait()
    task.cancel()

    assert gone() is None
    assert all(EVERY_S / 2 < seconds <= EVERY_S for seconds in slept)
