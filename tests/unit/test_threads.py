"""Threads of a purpose's own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from worker.threads import Threads

pytestmark = pytest.mark.anyio


async def test_what_hangs_keeps_only_its_own_kind_waiting_and_what_was_given_up_is_never_begun() -> None:
    threads, go_on, begun = Threads(2, "look"), threading.Event(), []

    def hang(number: int) -> None:
        begun.append(number)
        go_on.wait(10.0)

    try:
        hanging = [asyncio.create_task(threads.run(hang, number)) for number in range(20)]
        done, _ = await asyncio.wait(hanging, timeout=0.05)
        assert not done
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5.0) == "free"
        for one in hanging:
            one.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
    finally:
        go_on.set()

    assert await asyncio.wait_for(threads.run(lambda: "again"), 5.0) == "again"
    assert sorted(begun) == [0, 1]
