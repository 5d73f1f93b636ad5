"""Time jumps, the seed decides the order, killing is final and stopping is not."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.simulation.loop import Livelock, SimulatedLoop
from tests.simulation.processes import Process


def test_an_hour_passes_at_once() -> None:
    loop, done = SimulatedLoop(random.Random(1)), []

    async def wait() -> None:
        await asyncio.sleep(3600)
        done.append(loop.time())

    with loop.entered():
        began = loop.time()
        loop.create_task(wait())
        loop.run_for(3599)
        assert not done
        loop.run_for(2)
    assert done == [began + 3600]


def test_the_seed_decides_who_comes_first() -> None:
    orders = {order(seed) for seed in range(20)}

    assert len(orders) > 5
    assert order(3) == order(3)


def order(seed: int) -> tuple[int, ...]:
    loop, done = SimulatedLoop(random.Random(seed)), list[int]()

    async def tell(number: int) -> None:
        done.append(number)

    with loop.entered():
        for number in range(5):
            loop.create_task(tell(number))
        loop.run_for(1)
    return tuple(done)


def test_a_killed_process_does_not_even_clean_up() -> None:
    loop, process, done = SimulatedLoop(random.Random(1)), Process("victim"), list[str]()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            done.append("cleaned up")

    with loop.entered():
        process.context().run(loop.create_task, work())
        loop.run_for(1)
        process.kill()
        loop.run_for(100)
    assert done == []


def test_a_stopped_process_goes_on_where_it_was() -> None:
    loop, process, done = SimulatedLoop(random.Random(1)), Process("sleeper"), list[float]()

    async def work() -> None:
        await asyncio.sleep(10)
        done.append(loop.time())

    with loop.entered():
        began = loop.time()
        process.context().run(loop.create_task, work())
        loop.run_for(1)
        process.is_stopped = True
        loop.run_for(100)
        assert not done
        process.is_stopped = False
        loop.run_for(0)
    assert done == [began + 101]


def test_a_loop_that_never_waits_is_told() -> None:
    loop = SimulatedLoop(random.Random(1))

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that is what is wrong with it
            await asyncio.sleep(0)

    with loop.entered():
        loop.create_task(spin())
        with pytest.raises(Livelock):
            loop.run_for(1)
